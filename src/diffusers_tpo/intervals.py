"""Means, shares and paired differences with 95 % intervals. Knows nothing of models."""

import functools
import warnings
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
