"""Figures of data sets whose properties are known by construction, and a classifier that cannot cheat."""

import json
import random
import re
import sys
import tracemalloc

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from diffusers_tpo.errors import UserError
from diffusers_tpo.negatives.audit.blind_test import Pair, blind_test, draw_pairs
from diffusers_tpo.negatives.audit.diversity import distinct, edit_figures, self_bleu, spread
from diffusers_tpo.negatives.audit.report import AuditLimits, audit, report_tables, sentence_embedder, warnings_of


PRINCIPLES = ("content", "attribute", "spatial", "contextual")
CHANCE = {"mean": 0.5, "low": 0.48, "high": 0.52}
TELLS = {"mean": 0.7, "low": 0.66, "high": 0.74}
SURE = {"mean": 0.9, "low": 0.85, "high": 0.95}
WIDE = {"mean": 0.6, "low": 0.5, "high": 0.7}
HOSTILE = (
    "<script>alert(1)</script> & <b>",
    "[red]x[/red] [/] \\[link=https://x]",
    "\x1b[31mred\x1b[0m \x07 \u202eevil",
    "👩‍🚀",
    "a lone \ud83d half | of a `pair`",
    "قطة حمراء على طاولة",
    "very long " * 1000,
    "...",
)


def row(prompt: str, *edited: str, principles: tuple[str, ...] | None = None, num_edits: int = 1) -> dict:
    return {
        "prompt": prompt,
        "negative_prompts": list(edited),
        "principles": list(principles or PRINCIPLES[: len(edited)]),
        "num_edits": [num_edits] * len(edited),
    }


def sentence(rng: random.Random, words: int = 8) -> list[str]:
    return [f"w{rng.randrange(60)}" for _ in range(words)]


def edits_that_tell(count: int, share: float) -> list[dict]:
    """One word of each caption is replaced, in a `share` of the rows by "zebra", which no caption has."""
    rng, rows = random.Random(0), []
    for number in range(count):
        before = sentence(rng)
        after = list(before)
        place = rng.randrange(8)
        others = [f"w{i}" for i in range(60) if f"w{i}" != before[place]]
        after[place] = "zebra" if rng.random() < share else rng.choice(others)
        rows.append(row(" ".join(before), " ".join(after), principles=(PRINCIPLES[number % 4],)))
    return rows


@pytest.fixture(scope="module")
def healthy() -> dict:
    return audit(edits_that_tell(300, 0))


def test_counts_of_a_known_data_set():
    """Four captions, one of them twice; six mismatched prompts: one pair twice, one that is another row's caption, one
    that is its own. Lengths 3/3, 3/3, 3/3, 6/3, 3/3 and 3/3."""
    figures = audit(
        [
            row("a red cube", "a blue cube", "two red cubes", principles=("attribute", "content")),
            row("A red cube.", "a blue cube!", principles=("attribute",)),
            row("a blue cube", "a blue cube on a table", principles=("spatial",), num_edits=2),
            row("a green ball", "a green, ball", "a green cone", principles=("attribute", "content")),
            row("a dog"),
        ]
    )
    assert (figures["captions"], figures["mismatched"], figures["sample"]) == (5, 6, 4)
    assert figures["per_caption"] == {
        "largest": 2,
        "fewer": {"count": 3, "share": 0.6},
        "none": {"count": 1, "share": 0.2},
    }
    assert {name: count["count"] for name, count in figures["principles"].items()} == {
        "attribute": 3,
        "content": 2,
        "spatial": 1,
    }
    assert figures["principles"]["attribute"]["share"] == 0.5
    assert {name: count["count"] for name, count in figures["num_edits"].items()} == {"1": 5, "2": 1}
    assert {name: count["count"] for name, count in figures["duplicates"].items()} == {
        "captions": 1,
        "pairs": 1,
        "other_captions": 2,
        "own_caption": 1,
    }
    assert figures["length_ratio"] == pytest.approx({"mean": 7 / 6, "p5": 1, "p50": 1, "p95": 2})
    assert figures["blind_test"] == {"skipped": "3 different captions are too few; it needs 20"}


def test_spread():
    """The values 1 to 100, once written out and once as counts."""
    expected = {"mean": 50.5, "p5": 5, "p50": 50, "p95": 95}
    assert spread(range(1, 101)) == expected
    assert spread([2, 1], [3, 1]) == {"mean": 1.75, "p5": 1, "p50": 2, "p95": 2}


def test_diversity_measures():
    """ "a b a b" has 2 different words of 4 and 2 different pairs of 3."""
    assert distinct([["a", "b", "a", "b"]], 1) == 1 / 2
    assert distinct([["a", "b", "a", "b"]], 2) == 2 / 3
    assert distinct([["a", "b"], ["a", "b"]], 1) == 1 / 2
    assert distinct([["a"]], 3) == 0
    assert self_bleu([["a", "red", "cube", "here"]] * 3) == pytest.approx(1)
    assert self_bleu([list("abcde"), list("fghij")]) < 0.01
    assert self_bleu([["alone"]]) is None


def test_edits():
    pairs = [("a red cube", "a blue cube"), ("one red ball", "one blue ball"), ("a red cube", "a red round cube")]
    figures = edit_figures(pairs)
    assert (figures["count"], figures["distinct"], figures["distinct_share"]) == (3, 2, 2 / 3)
    assert figures["most_frequent"] == [
        {"before": "red", "after": "blue", "count": 2},
        {"before": "", "after": "round", "count": 1},
    ]


def test_embedding_distance():
    """Captions point along x; an edit either keeps the direction (0), turns by 90 degrees (1) or by 180 (2)."""
    directions = {"a": (2, 0), "same": (5, 0), "turned": (0, 3), "opposite": (-1, 0)}
    rows = [row("a", "same"), row("a", "turned", principles=("spatial",)), row("a", "opposite")]
    figures = audit(rows, embed=lambda texts: np.array([directions[text] for text in texts]))
    assert figures["embedding_distance"]["mean"] == pytest.approx(1)
    assert figures["embedding_distance"]["p95"] == pytest.approx(2)
    assert figures["embedding_distance"]["principles"]["spatial"]["mean"] == pytest.approx(1)
    assert "embedding distance" in report_tables(figures)


def test_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"pip install 'diffusers_tpo\[embeddings\]'"):
        sentence_embedder("any")


def test_rows_are_read_once_and_forgotten():
    """5000 rows of 2 KB are 10 MB; the hashes of 5000 captions and mismatched prompts are 120 KB."""
    read, word, other = [], "word" * 50 + " ", "other" * 40 + " "  # a few long ones, which are soon compared

    def rows(count):
        for number in range(count):
            read.append(number)
            yield row(f"{number} " + word * 5, f"{number} " + other * 5)

    audit(rows(30), sample=5)  # imports what it needs
    read.clear()
    tracemalloc.start()
    try:
        figures = audit(rows(5000), sample=5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == list(range(5000))
    assert figures["captions"] == 5000 and figures["sample"] == 5
    assert peak < 2e6


def test_sample_is_seeded_and_spread_over_the_rows():
    """Each row has an edit of its own, so the edits name the sample; their mean number is 500 +- 29 * 2."""
    rows = [row(f"a x{number} cube", f"a y{number} cube") for number in range(1000)]

    def sampled(seed):
        edits = audit(rows, sample=20, seed=seed)["edits"]["most_frequent"]
        return {int(edit["after"][1:]) for edit in edits}

    assert len(sampled(0)) == 20 and sampled(0) == sampled(0) != sampled(1)
    assert np.mean([number for seed in range(5) for number in sampled(seed)]) == pytest.approx(500, abs=58)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no mismatched prompts"),
        ([row("a cube")], "no mismatched prompts"),
        ([row("a cube", "a ball"), row("a cube", "a ball", principles=("content", "spatial"))], "row 1 has lists"),
    ],
)
def test_unusable_rows_are_named(rows, message):
    with pytest.raises(UserError, match=message):
        audit(rows)


def test_blind_test_finds_a_telltale_word():
    test = blind_test(draw_pairs(edits_that_tell(400, 1)))
    assert test["single"]["low"] > 0.95 and test["pairwise"]["mean"] > 0.99
    assert test["cues"]["mismatched"][0] == {
        "ngram": "zebra",
        "weight": pytest.approx(test["cues"]["mismatched"][0]["weight"]),
        "mismatched": 400,
        "matched": 0,
    }
    assert set(test["principles"]) == set(PRINCIPLES) and test["principles"]["spatial"]["pairs"] == 100


def test_blind_test_weighs_a_principle_by_itself():
    """Only spatial edits contain the word."""
    rows = edits_that_tell(400, 0)
    for spatial in rows[2::4]:
        spatial["negative_prompts"] = [" ".join(["zebra", *spatial["prompt"].split()[1:]])]
    principles = blind_test(draw_pairs(rows))["principles"]
    assert principles["spatial"]["pairwise"]["low"] > 0.9
    assert principles["attribute"]["pairwise"]["low"] < 0.6


def test_blind_test_of_exchangeable_texts_is_chance():
    """Captions and mismatched prompts come from the same distribution."""
    rng = random.Random(1)
    rows = [row(" ".join(sentence(rng)), " ".join(sentence(rng))) for _ in range(1000)]
    test = blind_test(draw_pairs(rows))
    for mode in ("single", "pairwise"):
        assert test[mode]["low"] < 0.5 < test[mode]["high"] and test[mode]["high"] - test[mode]["low"] < 0.08


def test_blind_test_cannot_recognise_a_repeated_caption():
    """Each caption has words of its own and stands in ten rows. A classifier that has seen it in another row knows its
    edit; one that has not knows nothing."""
    rows = [row(f"a{i} b{i} c{i}", f"a{i} b{i} d{i}") for i in range(40) for _ in range(10)]
    pairs = draw_pairs(rows)
    test = blind_test(pairs)
    assert test["pairs"] == 40
    assert test["single"] == test["pairwise"] == {"mean": 0.5, "low": 0.5, "high": 0.5}

    texts = CountVectorizer().fit_transform([p.caption for p in pairs] + [p.edited for p in pairs])
    shuffled = np.random.default_rng(0).permutation(len(pairs) * 2)
    leaking = cross_val_score(LogisticRegression(), texts[shuffled], np.repeat([0, 1], len(pairs))[shuffled])
    assert leaking.mean() > 0.99


def test_blind_test_draws_one_edit_of_each_caption():
    rows = [row("a cube", "a ball", "a cone", "a dog"), row("a cat", "a rat")]
    drawn = {draw_pairs(rows, seed)[0] for seed in range(30)}
    assert drawn == {
        Pair("a cube", "a ball", "content"),
        Pair("a cube", "a cone", "attribute"),
        Pair("a cube", "a dog", "spatial"),
    }
    assert all(draw_pairs(rows, seed)[1:] == [Pair("a cat", "a rat", "content")] for seed in range(3))


def test_blind_test_without_common_words():
    pairs = [Pair(f"a{i}", f"b{i}", "content") for i in range(30)]
    assert blind_test(pairs) == {"skipped": "no word occurs in two texts"}


def test_healthy_data_raises_no_warning(healthy):
    assert warnings_of(healthy) == []
    assert warnings_of(healthy | {"generation": {}}) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"principles": {"content": {"count": 9, "share": 0.9}, "spatial": {"count": 1, "share": 0.1}}}, ""),
        ({"principles": {"content": {"count": 9, "share": 1.0}}}, ""),
        (
            {"principles": {name: {"count": 0, "share": 0.7 if name == "content" else 0.1} for name in PRINCIPLES}},
            r"`content` makes up 70.0 %",
        ),
        ({"length_ratio": {"mean": 1.3}}, "1.30 times the words"),
        ({"length_ratio": {"mean": 0.7}}, "0.70 times the words"),
        ({"edits": {"distinct_share": 0.04}}, "Only 4.0 % of the edits"),
        (
            {"diversity": {"mismatched": {"self_bleu_4": 0.6}, "captions": {"self_bleu_4": 0.4}}},
            "self-BLEU is 0.60 and that of captions 0.40",
        ),
        ({"diversity": {"mismatched": {"self_bleu_4": None}, "captions": {"self_bleu_4": None}}}, ""),
        ({"generation": {"failed": 100, "rejected": {}}}, "25.0 % of the captions"),
        ({"generation": {"failed": 10, "rejected": {}}}, ""),
        ({"blind_test": {"skipped": "too few"}}, ""),
        (
            {
                "blind_test": {
                    "single": TELLS,
                    "pairwise": CHANCE,
                    "characters": {"single": CHANCE, "pairwise": CHANCE},
                }
            },
            r"words that sees no image tells mismatched prompts from captions with 70.0 \[66.0, 74.0\] % accuracy \(limit 65.0 %\)",
        ),
        (
            {"blind_test": {"single": CHANCE, "pairwise": SURE, "characters": {"single": CHANCE, "pairwise": CHANCE}}},
            "the edited one of two prompts with 90.0",
        ),
        (
            {
                "blind_test": {
                    "single": CHANCE,
                    "pairwise": CHANCE,
                    "characters": {"single": TELLS, "pairwise": CHANCE},
                }
            },
            "A classifier of characters that sees no image tells",
        ),
        (
            {"blind_test": {"single": WIDE, "pairwise": CHANCE, "characters": {"single": CHANCE, "pairwise": CHANCE}}},
            "may tell mismatched prompts from captions with 60.0 .* upper end .* audit more captions",
        ),
        ({"same_principle": {"count": 3, "share": 0.6}}, "In 60.0 % of the captions with several"),
        (
            {"generation": {"failed": 0, "rejected": {}, "drawn": {"content": 90, "attribute": 10}}},
            r"not the ones that were drawn \(distance 65.0 %",
        ),
        ({"generation": {"failed": 0, "rejected": {}, "drawn": dict.fromkeys(PRINCIPLES, 75)}}, ""),
    ],
)
def test_each_warning_says_how_much(healthy, changed, message):
    warnings = warnings_of(healthy | changed)
    assert len(warnings) == bool(message)
    assert all(re.search(message, warning) and warning.endswith(".") for warning in warnings)


def test_warnings_of_duplicates_and_limits():
    figures = audit([row("a red cube", "a blue cube"), row("a red cube", "a red cube")] * 5)
    found = warnings_of(figures, AuditLimits(distinct_edits=0))
    assert len(found) == 3
    assert found[0].startswith("90.0 % of the captions repeat") and found[1].startswith("80.0 % of the pairs")
    assert found[2].startswith("5 mismatched prompts equal their own caption")
    assert len(warnings_of(figures, AuditLimits(distinct_edits=0, duplicate_share=1))) == 1


def test_captions_of_other_rows_as_mismatched_prompts_are_a_warning(healthy):
    others = healthy["duplicates"] | {"other_captions": {"count": 30, "share": 0.1}}
    (warning,) = warnings_of(healthy | {"duplicates": others})
    assert warning.startswith("10.0 % of the mismatched prompts are the caption of another row (limit 5.0 %)")


def test_spaces_at_the_ends_are_seen_by_the_second_classifier_alone():
    """Every fifth caption ends in a space that its edit has lost: of both texts of such a pair one is sure, so 60 % are right."""
    rng, pairs = random.Random(0), []
    for number in range(400):
        before, after = sentence(rng), sentence(rng)
        pairs.append(Pair(" ".join(before) + " " * (number % 5 == 0), " ".join(after), "content"))
    found = blind_test(pairs)
    assert found["single"]["high"] < 0.6 < found["characters"]["pairwise"]["mean"] + 0.05
    assert found["characters"]["pairwise"]["low"] > 0.5 > found["single"]["low"]


def test_an_accuracy_below_chance_is_explained(healthy):
    below = {"mean": 0.3, "low": 0.25, "high": 0.35}
    test = healthy["blind_test"] | {"single": below}
    assert "gives nothing away" in report_tables(healthy | {"blind_test": test})
    usual = healthy["blind_test"] | {"single": CHANCE, "pairwise": CHANCE}
    usual |= {"characters": {"single": CHANCE, "pairwise": CHANCE}}
    assert "gives nothing away" not in report_tables(healthy | {"blind_test": usual})
    assert not warnings_of(healthy | {"blind_test": usual | {"single": below}})


def test_report_has_every_figure(healthy):
    generation = {"requests": 12345, "rejected": {"unchanged": 7}, "failed": 2, "prompt_tokens": 10, "cost": 0.123456}
    text = report_tables(healthy | {"generation": generation})
    for expected in ("12,345", "rejected: unchanged", "0.1235", "`attribute`", "25.0 %", "self-BLEU-4", "| `w"):
        assert expected in text
    assert "Generation" not in report_tables(healthy)
    assert "Skipped: too few." in report_tables(healthy | {"blind_test": {"skipped": "too few"}})


def test_hostile_captions_are_counted_and_shown_harmlessly():
    rows = [row(f"{text} {i}", f"{text} |<`\x1b {i}", principles=(text[:20],)) for i in range(5) for text in HOSTILE]
    figures = audit(rows)
    json.dumps(figures, allow_nan=False)
    text = report_tables(figures)
    text.encode()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) >= 6
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    outside_code = re.sub(r"`[^`\n]*`", "", text)
    assert not re.search(r"[<`]", outside_code)
