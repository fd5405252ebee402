"""How an external score depends on another one, such as the implicit preference score. Knows nothing of models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..errors import UserError
from ..intervals import Interval


FEWEST_UNITS = 5  # points or clusters below which resampling says nothing
BLOCK = 2_000_000  # weights that are held at once while resampling
ROUNDING = 1e-12  # relative differences below this are none
UNKNOWN = Interval(np.nan, -np.inf, np.inf)


@dataclass(frozen=True)
class Regression:
    """A straight line and two correlations with their 95 % intervals.

    `pearson_p` tests the slope as well: both are zero together. `n` is the number of pairs used, `left_out` of those that
    were not finite, `clusters` of the clusters (`None` if all points count as independent).
    """

    slope: Interval
    intercept: float
    pearson: Interval
    pearson_p: float
    spearman: Interval
    spearman_p: float
    n: int
    left_out: int
    clusters: int | None

    def __str__(self) -> str:
        size = f"n = {self.n}" if self.clusters is None else f"n = {self.n} in {self.clusters} clusters"
        p, rank_p = (f"p {'<' if p < 0.001 else '='} {max(p, 0.001):.2g}" for p in (self.pearson_p, self.spearman_p))
        return f"r = {self.pearson}, {p}; rho = {self.spearman}, {rank_p}; {size}"


def regress(
    x: ArrayLike, y: ArrayLike, clusters: Sequence | np.ndarray | None = None, seed: int = 0, resamples: int = 2000
) -> Regression:
    """Least squares line and correlations of `y` on `x`.

    Without clusters the points count as independent: the slope has a t interval, Pearson's r Fisher's z interval,
    Spearman's rho a bootstrap percentile interval; the two p values are those of `scipy.stats`.
    With clusters, whole clusters are drawn with replacement, and all intervals are percentiles of the resamples. A p value
    is then twice the smaller share of resamples on one side of zero, `min(1, 2 (k + 1) / (resamples + 1))`, so never
    under `2 / (resamples + 1)`. Percentile intervals are somewhat too narrow below 20 clusters; below 5 points or clusters
    they are infinite, and such a p value is nan. The order of the points does not matter.

    Args:
        x: `(N,)`, such as the implicit preference score.
        y: `(N,)`, such as an external score.
        clusters: `(N,)` sortable labels; points of one cluster may depend on each other, such as one prompt's under several
            models.

    Returns:
        Figures that are nan, with infinite intervals, for fewer than 3 finite pairs or where `x` or `y` is constant.

    Raises:
        UserError: if the lengths differ.
    """
    x, y, units = _columns("clusters", x, y, clusters)
    finite = np.isfinite(x) & np.isfinite(y)
    left_out = int((~finite).sum())
    x, y, units = x[finite], y[finite], units[finite]
    order = np.lexsort((y, x, units))
    x, y, units = x[order], y[order], units[order] if clusters is not None else np.arange(len(x))
    number = None if clusters is None else len(np.unique(units))
    if len(x) < 3 or _constant(x) or _constant(y):
        return Regression(UNKNOWN, np.nan, UNKNOWN, np.nan, UNKNOWN, np.nan, len(x), left_out, number)
    line, pearson, spearman = stats.linregress(x, y), stats.pearsonr(x, y), stats.spearmanr(x, y)
    resampled = _resample(x, y, units, np.random.default_rng(seed), resamples)
    rho, rho_p = _percentiles(spearman.statistic, resampled[2])
    if clusters is None:
        half = float(stats.t.ppf(0.975, len(x) - 2) * line.stderr)
        slope = Interval(float(line.slope), float(line.slope) - half, float(line.slope) + half)
        r = Interval(float(pearson.statistic), *map(float, pearson.confidence_interval()))
        r_p, rho_p = float(pearson.pvalue), float(spearman.pvalue)
    else:
        slope, _ = _percentiles(line.slope, resampled[0])
        r, r_p = _percentiles(pearson.statistic, resampled[1])
    return Regression(slope, float(line.intercept), r, r_p, rho, rho_p, len(x), left_out, number)


def within_groups(x: ArrayLike, y: ArrayLike, groups: Sequence | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Takes the group's mean off both scores, so that only differences within groups are left.

    With models as groups the correlation of the result is the one over prompts within a model; with prompts as groups it is
    the one over models at equal prompts. The means use up one degree of freedom for each group: pass the prompts as
    `clusters` to [`regress`] and read its bootstrap figures. A pair that is not finite, or alone in its group, becomes nan.

    Args:
        x: `(N,)`.
        y: `(N,)`.
        groups: `(N,)` sortable labels.

    Returns:
        `(N,)` and `(N,)`, in the order of the points.

    Raises:
        UserError: if the lengths differ.
    """
    x, y, units = _columns("groups", x, y, groups)
    finite = np.isfinite(x) & np.isfinite(y)
    counts = np.bincount(units[finite], minlength=units.max(initial=0) + 1)
    usable = finite & (counts[units] > 1)
    centred = []
    for values in (x, y):
        sums = np.bincount(units[usable], values[usable], minlength=len(counts))
        means = (sums / np.maximum(counts, 1))[units]
        rest = np.where(usable, values - means, np.nan)
        centred.append(np.where(np.abs(rest) <= ROUNDING * np.abs(means), 0.0, rest))
    return centred[0], centred[1]


def line_band(x: ArrayLike, y: ArrayLike, at: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The least squares line at some places, with the 95 % interval of its mean if the points are independent.

    Args:
        x: `(N,)`.
        y: `(N,)`.
        at: `(M,)` places on the x axis.

    Returns:
        `(M,)` line, low and high; nan where [`regress`] gives nan.
    """
    x, y, _ = _columns("", x, y, None)
    at, finite = np.asarray(at, dtype=float), np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) < 3 or _constant(x) or _constant(y):
        return (np.full(at.shape, np.nan),) * 3
    line = stats.linregress(x, y)
    variance = ((y - line.intercept - line.slope * x) ** 2).sum() / (len(x) - 2)
    spread = 1 / len(x) + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
    mean, half = line.intercept + line.slope * at, stats.t.ppf(0.975, len(x) - 2) * np.sqrt(variance * spread)
    return mean, mean - half, mean + half


def _columns(
    name: str, x: ArrayLike, y: ArrayLike, labels: Sequence | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores as floats and labels as numbers in their sorted order; zeros without labels."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or x.shape != y.shape:
        raise UserError(f"x and y have the shapes {x.shape} and {y.shape}; give one number of each for every point")
    if labels is None:
        return x, y, np.zeros(len(x), dtype=int)
    labels = list(labels)
    if len(labels) != len(x):
        raise UserError(f"{name} has the length {len(labels)} for {len(x)} points; give one label for every point")
    numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
    return x, y, np.array([numbers[label] for label in labels], dtype=int)


def _constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def _resample(x: np.ndarray, y: np.ndarray, units: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """`(3, resamples)` slopes, Pearson's r and Spearman's rho of samples whose units are drawn with replacement."""
    _, units = np.unique(units, return_inverse=True)
    count = units.max() + 1
    if count < FEWEST_UNITS:
        return np.full((3, resamples), np.nan)
    x_scale, y_scale = x.std(), y.std()
    x, y = (x - x.mean()) / x_scale, (y - y.mean()) / y_scale
    x_order, y_order = _ties(x), _ties(y)
    blocks = []
    for start in range(0, resamples, max(1, BLOCK // len(x))):
        size = min(max(1, BLOCK // len(x)), resamples - start)
        drawn = rng.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)[:, units].astype(float)
        slope, r = _weighted_line(x, y, weights)
        _, rho = _weighted_line(_midranks(x_order, weights), _midranks(y_order, weights), weights)
        blocks.append((slope * y_scale / x_scale, r, rho))
    return np.concatenate(blocks, axis=1)


def _weighted_line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and correlation for each row of weights, nan where x or y does not vary in it.

    Args:
        x: `(N,)` or `(B, N)`.
        y: `(N,)` or `(B, N)`.
        weights: `(B, N)`.
    """
    total = weights.sum(axis=1, keepdims=True)
    x = x - (weights * x).sum(axis=1, keepdims=True) / total
    y = y - (weights * y).sum(axis=1, keepdims=True) / total
    weighted = weights * x
    xx, xy, yy = (weighted * x).sum(axis=1), (weighted * y).sum(axis=1), (weights * y * y).sum(axis=1)
    varies = (xx > ROUNDING * total[:, 0]) & (yy > ROUNDING * total[:, 0])
    xx, yy = np.where(varies, xx, np.nan), np.where(varies, yy, np.nan)
    return xy / xx, xy / np.sqrt(xx * yy)


def _ties(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order of the values, where in it each distinct value starts, and which distinct value each one is."""
    distinct, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    return order, np.searchsorted(place[order], np.arange(len(distinct))), place


def _midranks(ties: tuple[np.ndarray, np.ndarray, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """`(B, N)` ranks in samples that hold each value as often as its weight says; equal values share their mean rank."""
    order, starts, place = ties
    held = np.add.reduceat(weights[:, order], starts, axis=1)
    return (held.cumsum(axis=1) - held / 2 + 0.5)[:, place]


def _percentiles(estimate: float, resampled: np.ndarray) -> tuple[Interval, float]:
    """The percentile interval and its p value; resamples without a figure are left out."""
    resampled = resampled[np.isfinite(resampled)]
    if not len(resampled):
        return Interval(float(estimate), -np.inf, np.inf), np.nan
    low, high = np.percentile(resampled, (2.5, 97.5))
    beyond = min((resampled <= 0).sum(), (resampled >= 0).sum())
    p = min(1.0, 2 * (beyond + 1) / (len(resampled) + 1))
    return Interval(float(estimate), float(low), float(high)), float(p)
