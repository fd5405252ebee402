"""Compares models prompt by prompt: means, win rates with ties, paired differences, best guidance. Knows numbers only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..intervals import Interval, bootstrap_interval, share_interval


@dataclass(frozen=True)
class Comparison:
    """One model against another over the same prompts.

    Attributes:
        difference: mean of the paired differences, with a bootstrap interval over prompts.
        win_rate: share of prompts on which it scores higher, ties counted half.
        ties: share of prompts with equal scores.
        prompts: how many both have a score for.
    """

    difference: Interval
    win_rate: Interval
    ties: float
    prompts: int


def compare(values: ArrayLike, others: ArrayLike, seed: int = 0) -> Comparison:
    """`values` against `others`, `(N,)` each; prompts without a score (nan) in one of them are left out."""
    gains = np.asarray(values, dtype=float) - np.asarray(others, dtype=float)
    gains = gains[~np.isnan(gains)]
    ties = float((gains == 0).mean()) if len(gains) else np.nan
    return Comparison(bootstrap_interval(gains, seed), share_interval((np.sign(gains) + 1) / 2), ties, len(gains))


SHARES = ("implicit/accuracy", "reward/accuracy", "retrieval")  # beginnings of the names of metrics that lie in [0, 1]


def is_share(metric: str) -> bool:
    return metric.startswith(SHARES)


def metric_interval(metric: str, values: ArrayLike) -> Interval:
    """Mean of a metric with its bootstrap interval, which for a share stays in [0, 1]."""
    interval = bootstrap_interval(values)
    return interval.inside(0, 1) if is_share(metric) else interval


def mean_over_prompts(values: ArrayLike) -> np.ndarray:
    """Mean over the last axis without nan; nan where there is nothing."""
    values = np.asarray(values, dtype=float)
    there = ~np.isnan(values)
    count = there.sum(axis=-1)
    return np.where(count > 0, np.where(there, values, 0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def best_scale(values: ArrayLike) -> int:
    """Index of the guidance scale with the highest mean.

    Args:
        values: `(scales, N)`.
    """
    means = mean_over_prompts(values)
    return 0 if np.isnan(means).all() else int(np.nanargmax(means))


def own_best_scales(values: ArrayLike, folds: int = 10) -> np.ndarray:
    """Index of the guidance scale that is best for the model, for every prompt, `(N,)`.

    The scale for each tenth of the prompts is chosen on the other nine, so that the choice flatters nobody.

    Args:
        values: `(scales, N)`.
    """
    values = np.asarray(values, dtype=float)
    number = values.shape[1]
    if number < 2:
        return np.full(number, best_scale(values))
    fold, chosen = np.arange(number) % min(folds, number), np.empty(number, dtype=int)
    for part in range(fold.max() + 1):
        chosen[fold == part] = best_scale(values[:, fold != part])
    return chosen


def at_own_best(values: ArrayLike, folds: int = 10) -> np.ndarray:
    """The score of every prompt at the guidance scale that is best for the model, `(N,)`, see [`own_best_scales`].

    Args:
        values: `(scales, N)`.
    """
    values = np.asarray(values, dtype=float)
    return values[own_best_scales(values, folds), np.arange(values.shape[1])]
