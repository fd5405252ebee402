"""Names the best of several checkpoints by one metric, or by a rule over several. Knows numbers only."""

from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..intervals import Interval, paired_difference
from .compare import mean_over_prompts


Values = dict[str, np.ndarray]  # of one candidate: each metric over the prompts
LOWER_IS_BETTER = ("error/matched",)
RULE = "rule"


@dataclass(frozen=True)
class Choice:
    """The best of the candidates.

    Attributes:
        best: its name, `None` if none is admitted.
        metric: by which the admitted ones are ordered.
        refused: why each of the others may not be chosen.
        against_last: the best minus the last candidate in this metric; `None` if the last is the best.
    """

    best: str | None
    metric: str
    refused: dict[str, str]
    against_last: Interval | None

    def sentence(self) -> str:
        """The choice in words."""
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.refused.items())
        if self.best is None:
            return f"No checkpoint is admitted ({reasons})."
        text = f"Best by {self.metric}: {self.best}."
        if self.against_last is not None:
            sure = "" if self.against_last.excludes_zero() else ", which may be chance"
            text += f" The last checkpoint is not the best: {self.best} differs from it by {self.against_last}{sure}."
        return text + (f" Left out: {reasons}." if reasons else "")


def choose_best(
    values: dict[str, dict[str, np.ndarray]],
    metric: str,
    base: dict[str, np.ndarray] | None = None,
    alignment: str = "implicit/score_relative",
    quality: tuple[str, ...] = (),
    broken: dict[str, str] | None = None,
) -> Choice:
    """Chooses among candidates. One whose metric is not a number is never the best.

    Args:
        values: of each candidate, oldest first: by metric `(N,)` over the same prompts or images.
        metric: the one to order by, higher is better except for those in [`LOWER_IS_BETTER`]; or "rule": the mean of
            `alignment` decides among the candidates that raise it over the base, whose matched error is not worse than the
            base's and whose `quality` metrics are not worse. "Worse" means that the 95 % interval of the paired difference
            excludes zero on that side, "raise" that the mean is higher.
        base: the same of the model that training began with; needed for the rule.
        broken: why candidates may not be chosen whatever their figures say, such as images that are not numbers.

    Raises:
        UserError: if a metric is not there.
    """
    by = alignment if metric == RULE else metric
    for name in (by, *quality):
        missing = [candidate for candidate, table in values.items() if name not in table]
        if missing or not values:
            known = ", ".join(sorted(next(iter(values.values()), {}))) or "nothing: there is no checkpoint"
            raise UserError(f"--metric {name!r} was not measured; measured are {known}, or {RULE}")
    sign = -1 if by in LOWER_IS_BETTER else 1
    means = {name: sign * float(mean_over_prompts(table[by])) for name, table in values.items()}
    refused = {name: f"{by} is not a number" for name, mean in means.items() if not np.isfinite(mean)}
    refused |= {name: reason for name, reason in (broken or {}).items() if name in values}
    if metric == RULE:
        whole = {name: table for name, table in values.items() if name not in refused}
        refused |= _refuse(whole, base, by, quality)
    admitted = {name: mean for name, mean in means.items() if name not in refused}
    if not admitted:
        return Choice(None, by, refused, None)
    best = max(admitted, key=lambda name: admitted[name])
    last = list(values)[-1]
    gap = None if best == last else paired_difference(values[best][by], values[last][by])
    return Choice(best, by, refused, gap)


def _refuse(
    values: dict[str, Values], base: Values | None, alignment: str, quality: tuple[str, ...]
) -> dict[str, str]:
    """Why the rule does not admit candidates; a comparison that is not a number admits none."""
    if base is None:
        raise UserError(f"--metric {RULE} compares checkpoints with the base, and the base was not measured")
    refused = {}
    for candidate, table in values.items():
        reasons = []
        if not paired_difference(table[alignment], base[alignment]).mean > 0:
            reasons.append(f"{alignment} is not above the base's")
        matched = paired_difference(table["error/matched"], base["error/matched"])
        if not np.isfinite(matched.mean):
            reasons.append("the matched error is not a number")
        elif matched.low > 0:
            reasons.append("the matched error is worse than the base's")
        for name in quality:
            gain = paired_difference(table[name], base[name])
            if not np.isfinite(gain.mean):
                reasons.append(f"{name} is not a number")
            elif gain.high < 0:
                reasons.append(f"{name} is worse than the base's")
        if reasons:
            refused[candidate] = " and ".join(reasons)
    return refused
