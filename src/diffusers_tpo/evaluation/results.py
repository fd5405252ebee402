"""All figures of an evaluation, as arrays over prompts and as the file results.json. Draws and prints nothing."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError, reason
from ..files import write_whole
from ..intervals import Interval, bootstrap_interval
from .compare import at_own_best, compare
from .prompts import Prompt


@dataclass(frozen=True)
class Results:
    """What was measured of `M` models.

    Attributes:
        models: their labels; the others are compared with the first.
        scales: `G` guidance scales.
        scores: by metric: `(M, G, P)`, the mean over the images of each of the `P` prompts, nan where none was scored.
        kinds: by metric: "adherence" or "aesthetics".
        preference: by model and metric, see [`~diffusers_tpo.evaluation.preference_values`]: `(N,)` over held-out pairs.
        retrieval: by model: `(N,)`, see [`~diffusers_tpo.evaluation.retrieval_accuracy`].
        divergence: by model: of its p(c) from that of the first model.
        faults: by model: what of its answers is no finite number, so that its figures speak of the rest only.
        unguided: by model whose built-in guidance was measured: the scale at which its pipeline is not guided.
        shared: whether prompt `i` is the caption of held-out pair `i`, so that scores and preferences can be correlated.
    """

    prompts: list[Prompt]
    models: list[str]
    scales: list[float]
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    preference: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    retrieval: dict[str, np.ndarray] = field(default_factory=dict)
    divergence: dict[str, dict[str, Interval]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    unguided: dict[str, float] = field(default_factory=dict)
    shared: bool = False

    def at_best(self, metric: str, model: str) -> np.ndarray:
        """Scores of a model at the guidance scale where it is best, `(P,)`."""
        return at_own_best(self.scores[metric][self.models.index(model)])

    def metrics(self, kind: str) -> tuple[str, ...]:
        """The scores of a kind, in the order of their scorers."""
        return tuple(metric for metric, own in self.kinds.items() if own == kind)

    def values(self, model: str) -> dict[str, np.ndarray]:
        """All metrics of a model by name, each over its prompts or pairs: scores at the guidance scale that is best for the model, preferences."""
        return {metric: self.at_best(metric, model) for metric in self.scores} | self.preference.get(model, {})


def write_results(results: Results, path: Path, about: dict[str, object]) -> None:
    """Writes `results.json`: `about` (command, versions, settings), all scores and the figures drawn from them."""
    first = results.models[0]
    means, differences = {}, {}
    for metric, scores in results.scores.items():
        means[metric] = {
            model: {f"{scale:g}": vars(bootstrap_interval(scores[m, g])) for g, scale in enumerate(results.scales)}
            | {"at best guidance": vars(bootstrap_interval(results.at_best(metric, model)))}
            for m, model in enumerate(results.models)
        }
        differences[metric] = {
            model: {f"{scale:g}": _comparison(scores[m, g], scores[0, g]) for g, scale in enumerate(results.scales)}
            | {"at best guidance": _comparison(results.at_best(metric, model), results.at_best(metric, first))}
            for m, model in enumerate(results.models)
            if m
        }
    content = about | {
        "prompts": [vars(prompt) for prompt in results.prompts],
        "models": results.models,
        "guidance_scales": results.scales,
        "kinds": results.kinds,
        "means": means,
        "differences_to_first": differences,
        "scores": results.scores,
        "preference": results.preference,
        "retrieval": results.retrieval,
        "faults": results.faults,
        "divergence": {m: {k: vars(v) for k, v in table.items()} for m, table in results.divergence.items()},
    }
    write_whole(path, json.dumps(as_plain(content), ensure_ascii=True, indent=1, allow_nan=False))


def read_results(path: Path) -> Results:
    """What [`write_results`] wrote, but for the figures that follow from it and the divergence.

    Raises:
        UserError: if it is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Results(
            [Prompt(**prompt) for prompt in found["prompts"]],
            found["models"],
            found["guidance_scales"],
            {metric: _array(values) for metric, values in found["scores"].items()},
            found["kinds"],
            {
                model: {name: _array(values) for name, values in own.items()}
                for model, own in found["preference"].items()
            },
            {model: _array(values) for model, values in found["retrieval"].items()},
            faults=found["faults"],
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no results.json of an evaluation ({reason(error)})") from error


def _array(values: list) -> np.ndarray:
    """With nan for null."""
    return np.array(values, dtype=float)


def _comparison(values: ArrayLike, others: ArrayLike) -> dict[str, object]:
    found = compare(values, others)
    return {
        "difference": vars(found.difference),
        "win_rate": vars(found.win_rate),
        "ties": found.ties,
        "prompts": found.prompts,
    }


def as_plain(value: Any) -> Any:
    """The same in JSON's types; numbers that JSON does not know become null."""
    if isinstance(value, dict):
        return {key: as_plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return as_plain(value.tolist())
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.7g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
