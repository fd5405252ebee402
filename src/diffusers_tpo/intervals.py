"""Means, shares and paired differences with 95 % intervals. Knows nothing of models."""

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


MOST_DIGITS = 5  # decimals of a figure


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def inside(self, lowest: float, highest: float) -> "Interval":
        """The same within bounds that the true mean cannot leave."""
        return Interval(*(min(max(bound, lowest), highest) for bound in (self.mean, self.low, self.high)))

    def percent(self) -> str:
        if not np.isfinite(self.mean):
            return "-"
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def digits(self) -> int | None:
        """Decimals that show two significant digits of the half width; `None` where there is no width to go by."""
        half = (self.high - self.low) / 2
        if not np.isfinite(self.mean) or not np.isfinite(half) or half <= 0:
            return None
        return max(0, 1 - int(np.floor(np.log10(half))))

    def text(self, digits: int | None) -> str:
        """With so many decimals, at most five: smaller figures are written as powers of ten."""
        if not np.isfinite(self.mean):
            return "-"
        if not np.isfinite(self.high - self.low):
            return f"{self.mean:.4g}" if digits is None or digits > MOST_DIGITS else f"{self.mean:.{digits}f}"
        if digits is None:
            digits = 3
        form = f".{digits}f" if digits <= MOST_DIGITS else ".4g"
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"

    def __str__(self) -> str:
        """With two significant digits of the interval's half width."""
        return self.text(self.digits())


def in_one_column(intervals: list[Interval]) -> list[str]:
    """The intervals as texts with the same number of decimals: as many as the narrowest of them shows."""
    known = [digits for interval in intervals if (digits := interval.digits()) is not None]
    return [interval.text(max(known, default=None)) for interval in intervals]


def mean_interval(values: ArrayLike) -> Interval:
    """Mean of independent values with a t interval over them.

    Args:
        values: `(N,)`, or `(S, N)` for `S` seeds of `N` prompts. The seeds of one prompt are averaged first, because they are
            not independent; nan is left out. One value has no interval and gets an infinite one, none at all gives nan.
    """
    means = np.atleast_2d(np.asarray(values, dtype=float)).mean(axis=0)
    means = means[~np.isnan(means)]
    if len(means) == 0:
        return Interval(np.nan, -np.inf, np.inf)
    mean = float(means.mean())
    if len(means) < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(stats.t.ppf(0.975, len(means) - 1) * stats.sem(means))
    return Interval(mean, mean - half, mean + half)


def share_interval(values: ArrayLike) -> Interval:
    """Mean of independent values between 0 and 1 with Wilson's interval, which stays in these bounds and never has no width.

    Values between 0 and 1 spread less than those of 0 and 1 with the same mean, for which the interval is made: it is wide enough.
    """
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    if len(known) == 0:
        return Interval(np.nan, -np.inf, np.inf)
    mean, z, n = float(known.mean()), stats.norm.ppf(0.975), len(known)
    centre = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    return Interval(mean, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def paired_difference(values: ArrayLike, others: ArrayLike) -> Interval:
    """Mean of `values - others`, both over the same prompts (and seeds), with the interval of the paired difference."""
    return mean_interval(
        np.atleast_2d(np.asarray(values, dtype=float)) - np.atleast_2d(np.asarray(others, dtype=float))
    )


@dataclass(frozen=True)
class SeedSpread:
    """How far the mean of a trained model, over all prompts there are, moves with the seed of its training.

    Attributes:
        variance: of the mean between seeds, without the chance of the prompts at hand.
        degrees: of freedom of this estimate; 0 where nothing is known of it.
    """

    variance: float = 0.0
    degrees: int = 0


def seed_spread(models: Sequence[ArrayLike]) -> SeedSpread:
    """The spread between seeds that several models have in common.

    Two or three seeds of one model say next to nothing of its spread (one or two degrees of freedom), so models that were trained
    alike share one estimate. Prompts and seeds are crossed, with one value in each cell: by analysis of variance it is the variance
    of the seeds' means, less what the cells vary beside the means of prompts and seeds.

    Args:
        models: `(S, N)` each, or `(G, S, N)` for `G` figures of the same seeds and prompts, whose spreads are averaged.
            A model with one seed says nothing, and no more does one with a single prompt.
    """
    variances, degrees = [], []
    for model in models:
        values = np.asarray(model, dtype=float)
        seeds, prompts = values.shape[-2:]
        if min(seeds, prompts) < 2:
            continue
        figures = values.reshape(-1, seeds, prompts)
        variances.append(np.mean([_between_seeds(figure) for figure in figures]))
        degrees.append(seeds - 1)
    if not degrees:
        return SeedSpread()
    return SeedSpread(max(0.0, float(np.average(variances, weights=degrees))), sum(degrees))


def _between_seeds(values: np.ndarray) -> float:
    """Variance component of `S` seeds in `(S, N)`: may be negative by chance, so that an average of several has no bias."""
    seeds, prompts = values.shape
    of_seeds = values.mean(axis=1, keepdims=True)
    rest = values - of_seeds - values.mean(axis=0, keepdims=True) + values.mean()
    left = (rest**2).sum() / ((seeds - 1) * (prompts - 1))
    return float(of_seeds.var(ddof=1) - left / prompts)


def crossed_interval(values: ArrayLike, spread: SeedSpread) -> Interval:
    """Mean over seeds and prompts, with an interval that holds for other prompts and for other seeds of training.

    The half widths of both are added as squares: a t interval over prompts, whose seeds are averaged first, and one over seeds with
    the variance and the degrees of freedom of `spread`.

    Args:
        values: `(S, N)`, such as paired differences.
        spread: of the same kind of values; with no degrees of freedom the interval is over prompts alone.
    """
    table = np.atleast_2d(np.asarray(values, dtype=float))
    over_prompts = mean_interval(table)
    if spread.degrees == 0:
        return over_prompts
    of_seeds = float(stats.t.ppf(0.975, spread.degrees)) * np.sqrt(spread.variance / len(table))
    half = float(np.hypot(over_prompts.high - over_prompts.mean, of_seeds))
    return Interval(over_prompts.mean, over_prompts.mean - half, over_prompts.mean + half)


def bootstrap_interval(values: ArrayLike, seed: int = 0, resamples: int = 2000) -> Interval:
    """Mean of independent values, such as paired differences, with a bootstrap interval (BCa, https://doi.org/10.2307/2289144).

    Args:
        values: `(N,)`; nan is left out. One value has no interval and gets an infinite one, none at all gives nan. Equal values
            give an interval without width; where nearly all are equal, plain percentiles are taken.
    """
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    if len(known) < 2:
        return mean_interval(known)
    if np.ptp(known) == 0:
        return Interval(float(known[0]), float(known[0]), float(known[0]))
    return _bootstrap(known.tobytes(), seed, resamples)


@functools.lru_cache(maxsize=4096)
def _bootstrap(content: bytes, seed: int, resamples: int) -> Interval:
    """Of the bytes of at least two different float64 values: a page asks about the same ones in several places."""
    known = np.frombuffer(content)
    options = {"n_resamples": resamples, "batch": 256}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the values are too even for the corrections of BCa
        bounds = stats.bootstrap((known,), np.mean, method="BCa", rng=np.random.default_rng(seed), **options)
    if np.isnan(bounds.confidence_interval.low):
        bounds = stats.bootstrap((known,), np.mean, method="percentile", rng=np.random.default_rng(seed), **options)
    interval = bounds.confidence_interval
    return Interval(float(known.mean()), float(interval.low), float(interval.high))
