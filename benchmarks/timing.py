"""Times functions in turn and compares their medians. Knows nothing of models."""

import operator
import time
from collections.abc import Callable

import numpy as np
import torch


def in_turn(functions: dict[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each call, by name: every round calls each once, so that a change of the machine's speed hits all alike.

    Args:
        warmup: rounds before the first that is counted.
    """
    times = {name: [] for name in functions}
    for index in range(warmup + rounds):
        for name, function in functions.items():
            seconds = timed(function)
            if index >= warmup:
                times[name].append(seconds)
    return times


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call, with all it has asked of a GPU."""
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(
    name: str,
    ours: list[float],
    rivals: list[float],
    target: str | None,
    rival: str,
    average=np.median,
) -> dict:
    """A figure: the ratio of the medians of two lists of numbers of the same rounds, with a 95 % bootstrap interval.

    Rounds are drawn again whole, so what made one round slow for both does not widen the interval.

    Args:
        target: of the ratio, such as "<= 2.1"; `None` where nothing is promised.
        rival: what it is measured against.
        average: `np.mean` where rare large numbers count.

    Returns:
        `name`, `ratio`, `low`, `high`, `target` and `rival`.
    """
    ours, rivals = np.asarray(ours, dtype=float), np.asarray(rivals, dtype=float)
    chosen = np.random.default_rng(0).integers(len(ours), size=(2000, len(ours)))
    spread = average(ours[chosen], axis=1) / average(rivals[chosen], axis=1)
    low, high = np.quantile(spread, [0.025, 0.975])
    numbers = {"ratio": average(ours) / average(rivals), "low": low, "high": high}
    return {"name": name, **{key: float(value) for key, value in numbers.items()}, "target": target, "rival": rival}


def is_met(figure: dict) -> bool | None:
    """Whether the ratio is within its target; `None` without one."""
    if figure["target"] is None:
        return None
    bound, number = figure["target"].split()
    return {"<=": operator.le, "<": operator.lt, ">=": operator.ge}[bound](figure["ratio"], float(number))
