"""Counts in a row what should worry: matched prompts that get worse, and steps that are skipped. Ends nothing by itself."""

import logging
from dataclasses import dataclass

from .session import Ending
from .step import StepResult


logger = logging.getLogger(__name__)


@dataclass
class CollapseAlarm:
    """Goes off when the matched reward, as a share of the reference's error, stays below `-bound` for `patience` steps."""

    bound: float
    patience: int
    in_a_row: int = 0

    def update(self, relative_reward: float) -> bool:
        """Counts one step; True at the step on which the alarm goes off. A patience of 0 switches it off."""
        self.in_a_row = self.in_a_row + 1 if relative_reward < -self.bound else 0
        return 0 < self.patience == self.in_a_row

    def __str__(self) -> str:
        return (
            f"Collapse: for {self.patience} steps the matched error lies over {self.bound:.0%} above the reference's; lower "
            "--learning_rate or --mismatched_clip, or raise --anchor_weight"
        )


@dataclass
class FaultAlarm:
    """Goes off when the loss or the gradient is not finite for `patience` steps in a row."""

    patience: int
    in_a_row: int = 0

    def update(self, is_fault: bool) -> bool:
        """Counts one step; True at the step on which the alarm goes off. A patience of 0 switches it off."""
        self.in_a_row = self.in_a_row + 1 if is_fault else 0
        return 0 < self.patience == self.in_a_row

    def __str__(self) -> str:
        return (
            f"Not finite: the last {self.patience} steps were skipped, because their loss or gradient was infinite or no "
            "number; lower --learning_rate, or use --mixed_precision bf16 or no"
        )


@dataclass
class Alarms:
    """Both alarms of a run.

    Attributes:
        stops_at_collapse: whether a collapse ends the run; else it is only said.
    """

    collapse: CollapseAlarm
    faults: FaultAlarm
    stops_at_collapse: bool = False

    def hear(self, step: int, result: StepResult) -> Ending | None:
        """Counts the optimizer step of number `step`; says it if it was skipped.

        Returns:
            Why the run should end, `None` if it may go on.
        """
        if result.fault:
            logger.warning(f"Step {step} is skipped: {result.fault}")
        ending = Ending(str(self.faults)) if self.faults.update(result.fault is not None) else None
        if self.collapse.update(result.metrics.get("reward/matched_relative", 0.0)):
            logger.warning(self.collapse)
            ending = Ending(str(self.collapse)) if self.stops_at_collapse else ending
        return ending

    def state(self) -> dict:
        """What a checkpoint needs; JSON."""
        return {"collapse": self.collapse.in_a_row, "faults": self.faults.in_a_row}

    def load(self, state: dict) -> None:
        """Goes on from a [`~Alarms.state`]."""
        self.collapse.in_a_row, self.faults.in_a_row = state["collapse"], state["faults"]
