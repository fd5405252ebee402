"""Turns the figures of an evaluation into the tables, curves and examples of its report. Measures nothing."""

import re
from collections.abc import Sequence

import numpy as np

from ..guidance import GuideWith
from ..intervals import Interval, bootstrap_interval, in_one_column, mean_interval, share_interval
from .built_in_guidance import BUILT_IN, GuidanceAdvice
from .choose import Choice
from .compare import best_scale, compare, is_share, mean_over_prompts
from .correlation import Regression, regress, within_groups
from .plots import Curves, Line, Scatter
from .renders import image_path
from .report import Example, Report, Table
from .results import Results
from .suite import Suite


Cell = str | Interval
MOST_LINES = 10
OVER_STEPS = ("error/matched", "implicit/score_relative")
EXAMPLES = 8
SCORE = "implicit/score"
WAYS: tuple[GuideWith, ...] = ("model", "reference")


def build_report(
    suite: Suite,
    results: Results,
    title: str,
    facts: dict[str, str],
    choice: Choice | None,
    warnings: Sequence[str] = (),
) -> Report:
    """The whole report.

    Args:
        facts: what was done with what, by name.
        choice: that of a checkpoint sweep.
        warnings: what a reader must know besides what the results say of themselves.
    """
    tables, curves = preference_tables(results) if results.preference else [], step_curves(results)
    tables += guidance_table(results)
    for metric in results.scores:
        tables += [
            means_table(results, metric),
            *differences_tables(results, metric),
            *categories_table(results, metric),
        ]
        curves.append(scale_curves(results, metric))
    scatters = []
    if results.shared and results.scores and len(results.models) > 2:
        tables.append(correlation_table(results))
        scatters = [scatter(results, name, scores) for name, scores in standardised(results).items()]
    gains, losses = examples(suite, results)
    chosen = [choice.sentence()] if choice else []
    faults = [f"{model}: {fault}; its figures speak of the rest" for model, fault in results.faults.items()]
    return Report(
        title, facts, [*faults, *unscored(results), *chosen, *warnings], tables, curves, scatters, gains, losses
    )


def unscored(results: Results) -> list[str]:
    """One sentence for each metric and model with prompts that have no score."""
    found = []
    for metric, scores in results.scores.items():
        for model, missing in zip(results.models, np.isnan(scores).sum(axis=(1, 2)), strict=True):
            if missing:
                found.append(
                    f"{metric}: {missing} of {scores[0].size} prompts of {model} have no score; they are left out"
                )
    return found


def figures_table(title: str, note: str, header: list[str], rows: list[list[Cell]]) -> Table:
    """A table in which the intervals of a column have as many decimals."""
    columns = []
    for cells in zip(*rows, strict=True):
        written = iter(in_one_column([cell for cell in cells if isinstance(cell, Interval)]))
        columns.append([next(written) if isinstance(cell, Interval) else cell for cell in cells])
    return Table(title, note, header, [list(row) for row in zip(*columns, strict=True)])


def means_table(results: Results, metric: str) -> Table:
    """Means over the prompts by model and guidance scale."""
    rows: list[list[Cell]] = []
    for model, scores in zip(results.models, results.scores[metric], strict=True):
        means = [bootstrap_interval(part) for part in scores]
        best = f"{results.scales[best_scale(scores)]:g}"
        rows.append([model, *means, best, bootstrap_interval(results.at_best(metric, model))])
    header = ["model", *(f"guidance {scale:g}" for scale in results.scales), "best at", "at its best"]
    note = (
        f"Mean over {len(results.prompts)} prompts with 95 % bootstrap interval. Best at: the guidance scale "
        "with the highest mean. At its best: the score with the best scale, which is chosen for each tenth of the prompts on the other nine."
    )
    return figures_table(f"{metric} ({results.kinds.get(metric, 'adherence')})", note, header, rows)


def differences_tables(results: Results, metric: str) -> list[Table]:
    """Paired differences to the first model, and win rates; none of a single model."""
    first = results.models[0]
    rows: list[list[Cell]] = []
    scores = results.scores[metric]
    for m, model in enumerate(results.models[1:], start=1):
        gains = [compare(scores[m, g], scores[0, g]).difference for g in range(len(results.scales))]
        own = compare(results.at_best(metric, model), results.at_best(metric, first))
        rows.append([model, *gains, own.difference, own.win_rate.percent(), f"{100 * own.ties:.0f}"])
    if not rows:
        return []
    header = [
        "model",
        *(f"guidance {scale:g}" for scale in results.scales),
        "each at its best",
        "win rate %",
        "ties %",
    ]
    note = "Paired differences with 95 % bootstrap interval over prompts. Each at its best: every model with the guidance that suits it best. Win rate there, ties counted half."
    return [figures_table(f"{metric}: minus {first}", note, header, rows)]


def categories_table(results: Results, metric: str) -> list[Table]:
    """Differences to the first model by category of the prompts, if they have any."""
    categories = sorted({prompt.category for prompt in results.prompts} - {""})
    if len(categories) < 2 or len(results.models) < 2:
        return []
    names = np.array([prompt.category for prompt in results.prompts])
    base = results.at_best(metric, results.models[0])
    own = {model: results.at_best(metric, model) for model in results.models[1:]}
    rows: list[list[Cell]] = []
    for category in categories:
        part = names == category
        gains = [compare(values[part], base[part]).difference for values in own.values()]
        rows.append([category, str(int(part.sum())), f"{mean_over_prompts(base[part]):.4g}", *gains])
    header = ["category", "prompts", results.models[0], *(f"{model}, difference" for model in own)]
    return [figures_table(f"{metric} by category", "Each model with the guidance that suits it best.", header, rows)]


def preference_tables(results: Results) -> list[Table]:
    """What the models themselves say of held-out pairs: as a whole, by principle, against the first model."""
    names = list(dict.fromkeys(name for table in results.preference.values() for name in table))
    names = [name for name in names if not name.startswith("guidance/")]
    whole = [name for name in names if not name.startswith("reward/") and name.count("/") < 2]
    by_principle = [name for name in names if name.count("/") > 1]
    against = [name for name in names if name.startswith("reward/")]
    tables = {model: dict(results.preference[model]) for model in results.models}
    if results.retrieval:
        whole.append("retrieval")
        for model, values in results.retrieval.items():
            tables[model]["retrieval"] = values

    def rows(columns: list[str], models: list[str]) -> list[list[str | Interval]]:
        return [[model, *(_figure(name, tables[model]) for name in columns)] for model in models]

    pairs = max(len(values) for values in tables[results.models[0]].values())
    note = (
        f"{pairs} held-out images. error/matched: mean squared denoising error of an image with its own caption, lower is better. "
        "implicit/score: how much larger the error with mismatched captions is; relative: as a share of the matched error. Accuracy: "
        "share of pairs with a positive score; the noise of few draws pulls it towards 1/2, and accuracy_corrected estimates it without "
        "that noise (-: the draws are too few to tell). Retrieval: share of images whose own caption is the best of all."
    )
    found = [figures_table("Implicit preference", note, ["model", *whole], rows(whole, results.models))]
    if by_principle:
        header = ["model", *(name.removeprefix("implicit/") for name in by_principle)]
        found.append(figures_table("By principle", "", header, rows(by_principle, results.models)))
    if against and len(results.models) > 1:
        others = results.models[1:]
        header, note = ["model", *against], "Rewards, as in training: the first model's errors minus the model's own."
        lines = rows(against, others)
        if results.divergence:
            header += ["p(c) KL", "p(c) JS"]
            note += " p(c): divergence of how often a caption is preferred, in nats."
            lines = [[*line, *results.divergence[model].values()] for line, model in zip(lines, others, strict=True)]
        found.append(figures_table(f"Against {results.models[0]}", note, header, lines))
    return found


def guidance_table(results: Results) -> list[Table]:
    """How much guidance each model has built in, and at which scale it does what the first model does at its best; none if
    nobody's reference could be asked."""
    shown = [model for model in results.models if BUILT_IN in results.preference.get(model, {})]
    names = [name for model in shown for name in results.preference[model] if name.startswith("guidance/")]
    names = list(dict.fromkeys(names))
    if not shown:
        return []
    metric = next(iter(results.scores), None)
    best = 4.0 if metric is None else results.scales[best_scale(results.scores[metric][0])]
    rows: list[list[Cell]] = []
    for model in shown:
        advice = GuidanceAdvice.of(results.preference[model], results.unguided[model])
        about = [f"{advice.scale(best, way):.1f}" if advice else "-" for way in WAYS]
        rows.append([model, *(_figure(name, results.preference[model]) for name in names), *about])
    where = f"at {best:g}" if metric is None else f"at {best:g}, its best of {metric}"
    first = results.models[0]
    note = (
        "built_in: what training changed, projected on the reference's direction of guidance; 0 is the reference, and what it predicts "
        "under guidance g has g - 1. Also under the mismatched prompts of each principle. of_empty: the same of the empty prompt. share: "
        "how much of the squared change lies along that direction; the columns after it speak of that part alone. They say at which "
        f"scale a model does what its reference does {where}, if the model or its reference answers the empty prompt. That the "
        f"reference is {first} is taken for granted there."
    )
    header = ["model", *(name.removeprefix("guidance/") for name in names), "scale, own", "scale, reference's"]
    return [figures_table("Built-in guidance", note, header, rows)]


def _figure(name: str, table: dict[str, np.ndarray]) -> str | Interval:
    """Mean and interval of a metric; values in [0, 1] have Wilson's interval, estimates of a share one that is cut there."""
    if name not in table:
        return "-"
    if "_corrected" in name:
        return mean_interval(table[name]).inside(0, 1)
    return share_interval(table[name]) if is_share(name) else mean_interval(table[name])


def scale_curves(results: Results, metric: str) -> Curves:
    """The metric over the guidance scale: a line for each model, or of many models for the first and the best of each run."""
    chosen = results.models
    if len(chosen) > MOST_LINES:
        means = {model: float(np.nan_to_num(mean_over_prompts(results.at_best(metric, model)))) for model in chosen}
        best = [max(steps.values(), key=lambda model: means[model]) for steps in runs_of(results.models).values()]
        chosen = [chosen[0], *(model for model in best if model != chosen[0])][:MOST_LINES]
    lines = []
    for model in chosen:
        found = [bootstrap_interval(part) for part in results.scores[metric][results.models.index(model)]]
        lines.append(_line(model, list(results.scales), found))
    return Curves(f"guidance-{metric}", f"{metric} over guidance", "guidance scale", metric, lines)


def runs_of(models: list[str]) -> dict[str, dict[int, str]]:
    """Labels that end in a number, such as those of checkpoints, by what stands before it, and by that number."""
    found: dict[str, dict[int, str]] = {}
    for model in models:
        if match := re.fullmatch(r"(.+)[-/](\d+)", model):
            found.setdefault(match[1], {})[int(match[2])] = model
    return found


def step_curves(results: Results) -> list[Curves]:
    """Every metric over the steps of the runs of which there are at least three checkpoints."""
    runs = {run: dict(sorted(steps.items())) for run, steps in runs_of(results.models).items() if len(steps) > 2}
    if not runs:
        return []
    found = []
    measured = results.values(results.models[0])
    for metric in (name for name in (*OVER_STEPS, *results.scores) if name in measured):
        lines = []
        for run, steps in list(runs.items())[:MOST_LINES]:
            values = [results.values(model)[metric] for model in steps.values()]
            lines.append(_line(run, [float(step) for step in steps], [bootstrap_interval(part) for part in values]))
        note = f"{metric}, each model with the guidance that suits it best" if metric in results.scores else metric
        found.append(Curves(f"steps-{metric}", f"{metric} over steps", "optimizer step", note, lines))
    return found


def _line(label: str, x: list[float], intervals: list[Interval]) -> Line:
    return Line(label, x, [i.mean for i in intervals], [i.low for i in intervals], [i.high for i in intervals])


def examples(suite: Suite, results: Results) -> tuple[list[Example], list[Example]]:
    """The prompts on which the best of the other models gains most and loses most against the first, at its best guidance."""
    if not results.scores or len(results.models) < 2:
        return [], []
    metric = next(iter(results.scores))
    scores = results.scores[metric]
    means = [
        float(np.nan_to_num(mean_over_prompts(results.at_best(metric, model)), nan=-np.inf))
        for model in results.models
    ]
    other = 1 + int(np.argmax(means[1:]))
    scale = best_scale(scores[other])
    gains = scores[other, scale] - scores[0, scale]
    order = [int(index) for index in np.argsort(-gains, kind="stable") if not np.isnan(gains[index])]

    def show(index: int) -> Example:
        shown = []
        for m in (0, other):
            path = image_path(suite.images(results.models[m], results.scales[scale]), index, 0)
            shown.append((results.models[m], path if path.exists() else None, f"{scores[m, scale, index]:.4g}"))
        return Example(results.prompts[index].text, f"{metric} at guidance {results.scales[scale]:g}", shown)

    up = [show(index) for index in order[:EXAMPLES] if gains[index] > 0]
    down = [show(index) for index in order[::-1][:EXAMPLES] if gains[index] < 0]
    return up, down


def correlation_table(results: Results) -> Table:
    """Each score regressed on the implicit preference score, at every guidance scale and on three levels."""
    rows: list[list[Cell]] = []
    for name, y in standardised(results).items():
        for g, scale in enumerate(results.scales):
            for level, found in regressions(results, y[:, g]).items():
                p_values = [f"{found.pearson_p:.2g}", f"{found.spearman_p:.2g}"]
                rows.append(
                    [name, f"{scale:g}", level, str(found.n), found.slope, found.pearson, found.spearman, *p_values]
                )
    header = ["score", "guidance", "over", "n", "slope", "r", "Spearman", "p (r)", "p (Spearman)"]
    note = (
        f"Scores regressed on {SCORE}; n is how many have both. Over models: means of each model. Over prompts: within models, each "
        "model's mean removed. Over models at equal prompts: each prompt's mean removed. The last two resample prompts. Adherence and "
        "aesthetics: mean of all scores of that kind, each in units of its spread."
    )
    return figures_table("Correlation with the implicit preference", note, header, rows)


def standardised(results: Results) -> dict[str, np.ndarray]:
    """The scores `(M, G, P)` by metric, and the mean of those of each kind in units of their spread."""
    found = dict(results.scores)
    for kind in ("adherence", "aesthetics"):
        parts = [scores for metric, scores in results.scores.items() if results.kinds.get(metric, "adherence") == kind]
        parts = [scores for scores in parts if not np.isnan(scores).all()]
        parts = [(part - np.nanmean(part)) / np.nanstd(part) for part in parts if np.nanstd(part) > 0]
        if len(parts) > 1:
            found[f"all {kind}"] = np.mean(parts, axis=0)
    return found


def regressions(results: Results, y: np.ndarray) -> dict[str, Regression]:
    """Scores `(M, P)` on the implicit preference score: over models, over prompts, over models at equal prompts."""
    x = np.stack([results.preference[model][SCORE] for model in results.models])
    models, prompts = (grid.ravel() for grid in np.indices(x.shape))
    means = mean_over_prompts(x), mean_over_prompts(y)
    return {
        "models": regress(*means),
        "prompts": regress(*within_groups(x.ravel(), y.ravel(), models), clusters=prompts),
        "models, equal prompts": regress(*within_groups(x.ravel(), y.ravel(), prompts), clusters=prompts),
    }


def scatter(results: Results, name: str, scores: np.ndarray) -> Scatter:
    """Mean score over mean implicit preference score at the first guidance scale, a point for each model.

    Args:
        scores: `(M, G, P)`. Models whose labels agree up to a slash, such as checkpoints of one run, share a colour.
    """
    x = [float(mean_over_prompts(results.preference[model][SCORE])) for model in results.models]
    y = mean_over_prompts(scores[:, 0]).tolist()
    groups = [model.split("/")[0] for model in results.models]
    note = f"guidance {results.scales[0]:g}; {len(results.models)} models, mean over {len(results.prompts)} prompts"
    return Scatter(f"correlation-{name}", f"{name} against implicit preference", SCORE, name, x, y, groups, note)
