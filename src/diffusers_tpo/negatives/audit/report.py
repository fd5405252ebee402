"""What a data set of mismatched prompts is like, in figures, and what to think of them. Knows nothing of editors."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ...errors import UserError
from ...intervals import Interval
from ...show import CONTROL, markdown_table
from .blind_test import blind_test, draw_pairs
from .counts import Counts
from .diversity import diversity, edit_figures, embedding_distance, sentence_embedder


__all__ = ["AuditLimits", "audit", "report_tables", "sentence_embedder", "warnings_of"]

COLUMNS = ("prompt", "negative_prompts", "principles", "num_edits")
TABLES = ("rejected", "refused", "drawn", "languages")  # of the generation
MORE = ("editor",)  # columns that need not be there
BELOW_CHANCE = (
    "An accuracy below 50 % gives nothing away: where both sides hold the same words equally often, a text that is left out "
    "leaves its own side with fewer of its words, so the classifier guesses the other side."
)
SHOWN = 10  # lines of a table of edits or n-grams


@dataclass(frozen=True)
class AuditLimits:
    """From where on a figure deserves a warning.

    Args:
        blind_accuracy: of telling without an image whether a prompt is mismatched. The upper end of its interval
            counts; 0.5 is chance.
        blind_pairwise: the same for telling which of two prompts was edited, which is easier.
        principle_excess: share of one principle as a multiple of its even share; raise it if you asked for weights.
        duplicate_share: share of captions, or of pairs of a caption and a mismatched prompt, that repeat earlier ones.
        other_captions: share of mismatched prompts that are the caption of another row.
        same_principle: share of captions with several mismatched prompts that all follow one principle.
        drawn_distance: how far the principles of the set may be from those that were drawn: half the sum of differences.
        failed_share: share of captions for which no edit was found.
        distinct_edits: least share of different edits among all edits of the sample.
        length_ratio: least and largest mean of words of an edit per word of its caption.
        self_bleu_excess: by how much the mismatched prompts may be more alike than the captions.
    """

    blind_accuracy: float = 0.65
    blind_pairwise: float = 0.8
    principle_excess: float = 2.0
    duplicate_share: float = 0.05
    other_captions: float = 0.05
    same_principle: float = 0.5
    drawn_distance: float = 0.1
    failed_share: float = 0.05
    distinct_edits: float = 0.1
    length_ratio: tuple[float, float] = (0.8, 1.25)
    self_bleu_excess: float = 0.1


def audit(
    rows: Iterable[dict],
    sample: int = 5000,
    seed: int = 0,
    embed: Callable[[list[str]], np.ndarray] | None = None,
) -> dict:
    """Reads a data set of mismatched prompts once and says what it is like.

    Shares and duplicates are over all rows; texts that differ only in case, punctuation or spaces are equal. The rest
    is over a sample of captions that have mismatched prompts: edits over all of these, everything else over one for
    each. Memory does not grow with the rows but for 8 bytes a caption and 16 a mismatched prompt.

    Args:
        rows: of `prompt`, `negative_prompts`, `principles` and `num_edits`; images would only cost time.
        sample: captions in the sample; 1 or more.
        embed: gives `(N, D)` embeddings of `N` texts, for instance [`sentence_embedder`].

    Returns:
        Nested figures that `json` can write: `captions`, `mismatched`, `per_caption`, `principles`, `num_edits`,
        `length_ratio`, `duplicates`, `sample`, `diversity`, `edits`, `blind_test`, and `embedding_distance` with
        `embed`.

    Raises:
        UserError: if a row does not name one principle and one number of edits for each mismatched prompt, if there
            are no mismatched prompts, or if an optional package is missing.
    """
    kept: list[dict] = []
    counts, usable, rng = Counts(), 0, random.Random(f"audit/{seed}")
    for number, row in enumerate(rows):
        row = {name: row[name] for name in COLUMNS} | {name: row[name] for name in MORE if name in row}
        if len({len(row[name]) for name in COLUMNS[1:]}) > 1:
            raise UserError(
                f"row {number} has lists of different lengths in {', '.join(COLUMNS[1:])}; they go together"
            )
        counts.add(row)
        if not row["negative_prompts"]:
            continue
        usable += 1
        if len(kept) < sample:
            kept.append(row)
        elif (place := rng.randrange(usable)) < sample:  # every row stays with the same chance
            kept[place] = row
    if not counts.pairs:
        raise UserError("the data set has no mismatched prompts, so there is nothing to audit; check its columns")
    pairs = draw_pairs(kept, seed)
    figures = counts.figures() | {"sample": len(kept)}
    figures["diversity"] = diversity(pairs, seed)
    figures["edits"] = edit_figures([(row["prompt"], edited) for row in kept for edited in row["negative_prompts"]])
    figures["blind_test"] = blind_test(pairs, seed)
    if embed is not None:
        figures["embedding_distance"] = embedding_distance(pairs, embed)
    return figures


def warnings_of(figures: dict, limits: AuditLimits | None = None) -> list[str]:
    """What deserves attention in the figures of [`audit`]: sentences that say what, how much, and what to do."""
    limits = limits or AuditLimits()
    return [*_blind_warnings(figures, limits), *_count_warnings(figures, limits), *_text_warnings(figures, limits)]


def _blind_warnings(figures: dict, limits: AuditLimits) -> list[str]:
    test = figures["blind_test"]
    if "skipped" in test:
        return []
    for who, found in (("A classifier of words", test), ("A classifier of characters", test["characters"])):
        for name, limit, task in (
            ("single", limits.blind_accuracy, "mismatched prompts from captions"),
            ("pairwise", limits.blind_pairwise, "the edited one of two prompts"),
        ):
            if found[name]["high"] > limit:
                return [_blind_warning(who, task, Interval(**found[name]), limit)]
    return []


def _blind_warning(who: str, task: str, accuracy: Interval, limit: float) -> str:
    told = f"{task} with {accuracy.percent()} % accuracy (limit {_percent(limit)})"
    if accuracy.low > limit:
        return (
            f"{who} that sees no image tells {told}, so a model can learn the wording instead of the image; look at the n-grams "
            "that give them away and vary the edits."
        )
    return (
        f"{who} that sees no image may tell {told}: the upper end of the interval is above the limit; audit more captions to "
        "know, or vary the edits."
    )


def _count_warnings(figures: dict, limits: AuditLimits) -> list[str]:
    found, principles = [], figures["principles"]
    name = max(principles, key=lambda name: principles[name]["share"])
    if principles[name]["share"] * len(principles) > limits.principle_excess and len(principles) > 1:
        found.append(
            f"The principle {_code(name)} makes up {_percent(principles[name]['share'])} of the mismatched prompts, "
            f"more than {limits.principle_excess:g} times its even share; choose other captions or weights if you did "
            "not ask for that."
        )
    for what, key in (("captions", "captions"), ("pairs of a caption and a mismatched prompt", "pairs")):
        share = figures["duplicates"][key]["share"]
        if share > limits.duplicate_share:
            found.append(
                f"{_percent(share)} of the {what} repeat earlier ones (limit {_percent(limits.duplicate_share)}), "
                "which weighs them more in training; remove repeated rows."
            )
    others = figures["duplicates"]["other_captions"]["share"]
    if others > limits.other_captions:
        found.append(
            f"{_percent(others)} of the mismatched prompts are the caption of another row (limit "
            f"{_percent(limits.other_captions)}): the same text is right in one row and wrong in another, which teaches to look, "
            "but a text that is often wrong may be unlearned; see whether that is meant."
        )
    if figures["same_principle"]["share"] > limits.same_principle:
        found.append(
            f"In {_percent(figures['same_principle']['share'])} of the captions with several mismatched prompts all of them follow "
            f"one principle (limit {_percent(limits.same_principle)}); ask for more principles if you did not choose one."
        )
    if (distance := _drawn_distance(figures)) > limits.drawn_distance:
        found.append(
            f"The principles are not the ones that were drawn (distance {_percent(distance)}, limit "
            f"{_percent(limits.drawn_distance)}): many captions have nothing of the kind, so another was taken. The table of "
            "principles shows both; another editor may find more."
        )
    if own := figures["duplicates"]["own_caption"]["count"]:
        found.append(f"{own} mismatched prompts equal their own caption, so they are not mismatched; remove them.")
    if (generation := figures.get("generation")) and (failed := generation["failed"]):
        done = figures["captions"] - figures["per_caption"]["none"]["count"]
        if failed / (failed + done) > limits.failed_share:
            found.append(
                f"No edit was found for {_percent(failed / (failed + done))} of the captions (limit "
                f"{_percent(limits.failed_share)}), so the data set may favour easy ones; look at the reasons for "
                "rejection and try another editor or more attempts."
            )
    return found


def _drawn(figures: dict) -> dict[str, float]:
    """Shares of the principles that were drawn, where the editor's run is known."""
    drawn = figures.get("generation", {}).get("drawn", {})
    return {name: count / sum(drawn.values()) for name, count in drawn.items()}


def _drawn_distance(figures: dict) -> float:
    drawn, got = _drawn(figures), figures["principles"]
    if not drawn:
        return 0.0
    return sum(abs(drawn.get(name, 0.0) - got.get(name, {"share": 0.0})["share"]) for name in {*drawn, *got}) / 2


def _text_warnings(figures: dict, limits: AuditLimits) -> list[str]:
    found, edits, (low, high) = [], figures["edits"], limits.length_ratio
    if edits["distinct_share"] < limits.distinct_edits:
        found.append(
            f"Only {_percent(edits['distinct_share'])} of the edits are different (limit "
            f"{_percent(limits.distinct_edits)}), so a model sees the same few replacements again and again; use more "
            "varied captions or another editor."
        )
    if not low <= (mean := figures["length_ratio"]["mean"]) <= high:
        found.append(
            f"Mismatched prompts have {mean:.2f} times the words of their captions on average (limits {low:g} to "
            f"{high:g}), so length gives them away; ask for edits that replace words by as many."
        )
    ours, yardstick = (figures["diversity"][side]["self_bleu_4"] for side in ("mismatched", "captions"))
    if ours is not None and ours - yardstick > limits.self_bleu_excess:
        found.append(
            f"Mismatched prompts are more alike than captions: their self-BLEU is {ours:.2f} and that of captions "
            f"{yardstick:.2f} (limit {limits.self_bleu_excess:g} more); look at the most frequent edits and vary them."
        )
    return found


def report_lines(figures: dict) -> list[str]:
    """The figures of [`audit`] that matter first, a line for each, and its warnings."""
    shares = (f"{name} {_percent(found['share'])}" for name, found in figures["principles"].items())
    lines = [
        f"{_number(figures['captions'])} captions with {_number(figures['mismatched'])} mismatched prompts",
        f"principles: {', '.join(shares)}",
        f"different edits: {_percent(figures['edits']['distinct_share'])}, "
        f"{figures['length_ratio']['mean']:.2f} words per word of the caption",
        f"blind test: {_blind_line(figures['blind_test'])}",
    ]
    if generation := figures.get("generation"):
        lines.append(_generation_line(generation))
        if "judged" in generation:
            lines.append(_judged_line(generation))
    return lines + [f"warning: {warning}" for warning in figures.get("warnings", ())]


def _blind_line(test: dict) -> str:
    if "skipped" in test:
        return f"skipped, {test['skipped']}"
    words, characters = (Interval(**found["single"]).percent() for found in (test, test["characters"]))
    return f"without the image, words alone tell {words} %, characters {characters} % (chance is 50 %)"


def _generation_line(generation: dict) -> str:
    rejected = sum(generation["rejected"].values())
    line = f"{_number(generation['failed'])} captions set aside, {_number(rejected)} edits rejected"
    if "requests" in generation:
        tokens = generation["prompt_tokens"] + generation["completion_tokens"]
        line += f", {_number(generation['requests'])} requests, {_number(tokens)} tokens"
    return line + (f", ${generation['cost']:.2f}" if "cost" in generation else "")


def _judged_line(generation: dict) -> str:
    refused = generation["refused"]
    shares = ", ".join(f"{_number(count)} {name}" for name, count in refused.items()) or "none"
    line = f"judged: {_number(generation['judged'])} opinions, refused {shares}"
    return line + (f", ${generation['judge_cost']:.2f}" if "judge_cost" in generation else "")


def report_tables(figures: dict) -> str:
    """The figures of [`audit`], and those of `generation` if there are any, as tables that also read well as text."""
    tables = [
        ("Size", ["", "number", "share"], _size_rows(figures)),
        ("Principles", *_principles_table(figures)),
        ("Number of edits", ["edits", "number", "share"], _shares(figures["num_edits"])),
        (f"Variety, in {_number(figures['sample'])} captions", *_variety_table(figures)),
        ("Languages", ["language", "captions", "share", *_language_columns(figures)], _language_rows(figures)),
        ("Most frequent edits", ["old words", "new words", "number"], _edit_rows(figures)),
    ]
    text = "\n\n".join(f"### {title}\n\n{markdown_table(header, rows)}" for title, header, rows in tables)
    text += f"\n\n### Blind test\n\n{_blind_text(figures['blind_test'])}"
    if generation := figures.get("generation"):
        rows = [[name.replace("_", " "), _number(value)] for name, value in generation.items() if name not in TABLES]
        for table in ("rejected", "refused"):
            rows += [[f"{table}: {name}", _number(value)] for name, value in generation.get(table, {}).items()]
        text += f"\n\n### Generation\n\n{markdown_table(['', 'number'], rows)}"
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _code(text: str) -> str:
    """Text of a caption in a table cell, where it can neither format nor escape anything."""
    text = CONTROL.sub("\N{REPLACEMENT CHARACTER}", text).replace("`", "'").replace("|", "\\|")
    return f"`{text}`" if text else "(nothing)"


def _shares(counts: dict) -> list[list[str]]:
    return [[name, _number(count["count"]), _percent(count["share"])] for name, count in counts.items()]


def _size_rows(figures: dict) -> list[list[str]]:
    counts, largest, duplicates = figures["per_caption"], figures["per_caption"]["largest"], figures["duplicates"]
    return [
        ["captions", _number(figures["captions"]), ""],
        ["mismatched prompts", _number(figures["mismatched"]), ""],
        *_shares(
            {
                f"captions with fewer than {largest} mismatched": counts["fewer"],
                "captions whose several mismatched prompts follow one principle": figures["same_principle"],
                "repeated captions": duplicates["captions"],
                "repeated pairs": duplicates["pairs"],
                "mismatched prompts that are another caption": duplicates["other_captions"],
                "mismatched prompts that equal their caption": duplicates["own_caption"],
            }
        ),
    ]


def _principles_table(figures: dict) -> tuple[list[str], list[list[str]]]:
    rows = zip(figures["principles"], _shares(figures["principles"]), strict=True)
    table = {name: [_code(name), *row[1:]] for name, row in rows}
    header, test = ["principle", "number", "share"], figures["blind_test"]
    if drawn := _drawn(figures):
        header.append("drawn")
        for name, row in table.items():
            row.append(_percent(drawn.get(name.replace("`", ""), 0.0)))
    if "skipped" not in test:
        header += ["blind test: single, %", "blind test: pairwise, %"]
        for name, found in test["principles"].items():
            table[name] += [Interval(**found[mode]).percent() for mode in ("single", "pairwise")]
    if "embedding_distance" in figures:
        header.append("embedding distance")
        for name, found in figures["embedding_distance"]["principles"].items():
            table[name].append(f"{found['mean']:.3f}")
    return header, [row + [""] * (len(header) - len(row)) for row in table.values()]


def _language_columns(figures: dict) -> list[str]:
    return ["set aside"] if "languages" in figures.get("generation", {}) else []


def _language_rows(figures: dict) -> list[list[str]]:
    """Captions by language, and how many of each found no edit."""
    languages, failed = figures["languages"], figures.get("generation", {}).get("languages")
    empty = {"count": 0, "share": 0.0}
    rows = []
    for name in [*languages, *(name for name in failed or {} if name not in languages)]:
        kept = languages.get(name, empty)
        row = [name, _number(kept["count"]), _percent(kept["share"])]
        rows.append(row if failed is None else [*row, _number(failed.get(name, 0))])
    return rows


def _variety_table(figures: dict) -> tuple[list[str], list[list[str]]]:
    sides = [figures["diversity"][side] for side in ("captions", "mismatched")]
    rows = [[f"distinct-{n}", *(f"{side[f'distinct_{n}']:.3f}" for side in sides)] for n in (1, 2, 3)]
    if sides[0]["self_bleu_4"] is not None:
        rows.append(["self-BLEU-4", *(f"{side['self_bleu_4']:.3f}" for side in sides)])
    rows.append(["different edits", "", _percent(figures["edits"]["distinct_share"])])
    spreads = {"words per word of the caption": figures["length_ratio"]}
    if "embedding_distance" in figures:
        spreads["embedding distance"] = figures["embedding_distance"]
    for name, value in spreads.items():
        rows.append([f"{name}: mean", "", f"{value['mean']:.3f}"])
        rows.append([f"{name}: 5 %, 50 %, 95 %", "", ", ".join(f"{value[q]:.2f}" for q in ("p5", "p50", "p95"))])
    return ["", "captions", "mismatched"], rows


def _edit_rows(figures: dict) -> list[list[str]]:
    shown = figures["edits"]["most_frequent"][:SHOWN]
    return [[_code(edit["before"]), _code(edit["after"]), _number(edit["count"])] for edit in shown]


def _blind_text(test: dict) -> str:
    if "skipped" in test:
        return f"Skipped: {test['skipped']}."
    single, pairwise = (Interval(**test[mode]).percent() for mode in ("single", "pairwise"))
    text = (
        f"A classifier that sees only words tells whether a prompt is mismatched with {single} % accuracy, and which "
        f"of two prompts is with {pairwise} % ({_number(test['pairs'])} captions, 95 % intervals; chance is 50 %). "
    )
    single, pairwise = (Interval(**test["characters"][mode]).percent() for mode in ("single", "pairwise"))
    text += f"One that sees characters, spaces and case tells {single} % and {pairwise} %."
    if min(found[mode]["high"] for found in (test, test["characters"]) for mode in ("single", "pairwise")) < 0.5:
        text += f" {BELOW_CHANCE}"
    for side, cues in test["cues"].items():
        rows = [[_code(cue["ngram"]), _number(cue["mismatched"]), _number(cue["matched"])] for cue in cues[:SHOWN]]
        if rows:
            header = [f"speaks for {side}", "in mismatched", "in captions"]
            text += f"\n\n{markdown_table(header, rows)}"
    return text
