"""Keeps numbers that are not finite from the weights, and counts in a row what should worry: those, and worse matched prompts."""

import math
from dataclasses import dataclass

from accelerate.utils import gather_object
from torch import Tensor

from ..metrics import mean_over_processes, read
from ..models.adapters import whole
from .interrupts import StopRequest


@dataclass
class CollapseAlarm:
    """Goes off when the matched reward, as a share of the reference's error, stays below `-bound` for `patience` steps."""

    bound: float
    patience: int
    steps_below: int = 0

    def update(self, relative_reward: float) -> bool:
        """Counts one step; True at the step on which the alarm goes off. A patience of 0 switches it off."""
        self.steps_below = self.steps_below + 1 if relative_reward < -self.bound else 0
        return 0 < self.patience == self.steps_below

    def __str__(self) -> str:
        return (
            f"Collapse: for {self.patience} steps the matched error lies over {self.bound:.0%} above the reference's; lower "
            "learning_rate or mismatched_clip, or raise anchor_weight"
        )


@dataclass
class FaultAlarm:
    """Goes off when the loss or the gradient is not finite for `patience` steps in a row.

    Attributes:
        in_a_row: such steps up to now.
        total: such steps in the whole run.
    """

    patience: int
    in_a_row: int = 0
    total: int = 0

    def update(self, is_fault: bool) -> bool:
        """Counts one step; True at the step on which the alarm goes off. A patience of 0 switches it off."""
        self.in_a_row = self.in_a_row + 1 if is_fault else 0
        self.total += is_fault
        return 0 < self.patience == self.in_a_row

    def __str__(self) -> str:
        return (
            f"Not finite: the last {self.patience} steps were skipped, because their loss or gradient was infinite or no "
            "number; lower learning_rate, or use mixed_precision bf16 or no"
        )


def offending_rows(passes: list[tuple[dict[str, Tensor], list[int]]]) -> list[int]:
    """Ids of the rows, on all processes, whose forward pass gave no finite loss; of all rows if only the gradient is at fault.

    Args:
        passes: the metrics of each forward pass of this process, with `loss`, and the ids of its rows.
    """
    gathered = gather_object([(bool(metrics["loss"].isfinite()), ids) for metrics, ids in passes])
    guilty = [ids for is_finite, ids in gathered if not is_finite] or [ids for _, ids in gathered]
    return sorted({row for ids in guilty for row in ids})


def finite_step(
    accelerator,
    optimizer,
    trainable: list[Tensor],
    max_norm: float,
    waiting: list[tuple[dict, list[int]]],
    request: StopRequest,
) -> tuple[dict, bool, bool]:
    """Clips the gradients and steps, unless loss or gradient are not finite on some process.

    Args:
        waiting: metrics, with `loss`, and row ids of each forward pass since the last step.

    Returns:
        The means of the metrics over passes and processes, with the norm before clipping; whether it stepped; and whether
        some process is asked to stop.
    """
    (norm,) = whole([accelerator.clip_grad_norm_(trainable, max_norm)])
    rows = read([metrics | {"grad_norm": norm} for metrics, _ in waiting])
    row = mean_over_processes([metrics | {"signals": float(request.number is not None)} for metrics in rows])
    must_stop = row.pop("signals") > 0
    is_finite = math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])
    if is_finite:
        optimizer.step()
    elif accelerator.scaler:
        accelerator.scaler.update()  # to a smaller scale
    return row, is_finite, must_stop
