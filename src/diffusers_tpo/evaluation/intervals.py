"""Means and paired differences with 95 % intervals. Knows nothing of models."""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def percent(self) -> str:
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean_interval(values) -> Interval:
    """Mean of independent values with a t interval over them.

    Args:
        values: `(N,)`, or `(S, N)` for `S` seeds of `N` prompts. The seeds of one prompt are averaged first, because they are
            not independent; one value has no interval and gets an infinite one.
    """
    values = np.atleast_2d(np.asarray(values, dtype=float)).mean(axis=0)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def paired_difference(values, others) -> Interval:
    """Mean of `values - others`, both over the same prompts (and seeds), with the interval of the paired difference."""
    return mean_interval(
        np.atleast_2d(np.asarray(values, dtype=float)) - np.atleast_2d(np.asarray(others, dtype=float))
    )
