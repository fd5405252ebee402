"""One optimizer step from the gradients of its forward passes: clipped, taken or skipped. Knows nothing of losses or data."""

import math
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from ..metrics import mean_over_processes, read
from ..models.adapters import whole
from ..models.text_encoders import TrainedTextEncoders


@dataclass(frozen=True)
class Pass:
    """One forward pass: its metrics, with `loss`, and the rows of the data set that it saw."""

    metrics: dict[str, Tensor]
    rows: list[int]


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did.

    Attributes:
        metrics: means over passes and processes, with the gradient's norm before clipping; those that are finite.
        fault: why the step was skipped, with the rows concerned; `None` if it was taken.
        is_asked_to_stop: whether a signal came to some process.
    """

    metrics: dict[str, float]
    fault: str | None
    is_asked_to_stop: bool


@dataclass
class Stepper:
    """Takes optimizer steps, and skips those whose loss or gradient is not finite on some process.

    Attributes:
        parameters: that are trained, as the accelerator has prepared them.
        optimizer: of these, prepared too.
        schedule: of its learning rate.
        max_grad_norm: gradients are clipped to this norm; 0 leaves them as they are.
        average: of the parameters, `None` without one.
        text: text encoders whose gradients no wrapper averages over processes; `None` if none is trained.
        skipped_steps: in the whole run.
        passes: of this process since the last step.
    """

    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    accelerator: Accelerator
    max_grad_norm: float = 1.0
    average: EMAModel | None = None
    text: TrainedTextEncoders | None = None
    skipped_steps: int = 0
    passes: list[Pass] = field(default_factory=list)

    def backward(self, loss: Tensor, metrics: dict[str, Tensor], rows: list[int]) -> None:
        """The backward pass of one forward pass, inside of `accelerator.accumulate`.

        Args:
            rows: of the data set, to be named if something is not finite.
        """
        self.passes.append(Pass(metrics, rows))
        self.accelerator.backward(loss)

    def step(self, is_asked_to_stop: bool = False) -> StepResult:
        """Clips and steps, unless that would put numbers that are not finite into the weights; call it on every process.

        The host waits for the device here, once.

        Args:
            is_asked_to_stop: whether this process is; some process is enough.
        """
        if self.text:
            self.text.average_gradients()
        self._weigh_passes()
        (norm,) = whole([self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm or math.inf)])
        own = {"grad_norm": norm, "signals": torch.tensor(float(is_asked_to_stop))}
        means = mean_over_processes(read([one.metrics | own for one in self.passes]))
        signals = means.pop("signals")
        fault = self._fault(means)
        if fault is None:
            self.optimizer.step()
        elif self.accelerator.scaler:
            self.accelerator.scaler.update()  # to a smaller scale
        self.optimizer.zero_grad()
        rate = float(self.schedule.get_last_lr()[0])
        self.schedule.step()
        if fault is None and self.average:
            self.average.step(self.parameters)
        self.skipped_steps += fault is not None
        self.passes = []
        row: dict[str, float] = {"lr": rate, **means, "skipped_steps": self.skipped_steps}
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        return StepResult(finite, fault, signals > 0)

    def _weigh_passes(self) -> None:
        """Makes the gradient the mean over the passes that there were: an epoch may end before the last of them is full."""
        expected = self.accelerator.gradient_accumulation_steps
        if len(self.passes) < expected:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(expected / len(self.passes))

    def _fault(self, means: dict[str, float]) -> str | None:
        """What is not finite, on every process the same; `None` if all is."""
        if math.isfinite(means["loss"]) and math.isfinite(means["grad_norm"]):
            return None
        return f"loss {means['loss']}, gradient norm {means['grad_norm']}, rows {offending_rows(self.passes)}"

    def state(self) -> dict:
        """What a checkpoint needs besides weights and optimizer; JSON."""
        return {"schedule": self.schedule.state_dict(), "skipped_steps": self.skipped_steps}

    def load(self, state: dict) -> None:
        """Goes on from a [`~Stepper.state`]."""
        self.schedule.load_state_dict(state["schedule"])
        self.skipped_steps = state["skipped_steps"]


def offending_rows(passes: list[Pass]) -> list[int]:
    """Rows, on all processes, whose forward pass gave no finite loss; all rows if only the gradient is at fault."""
    gathered = gather_object([(bool(one.metrics["loss"].isfinite()), one.rows) for one in passes])
    guilty = [rows for is_finite, rows in gathered if not is_finite] or [rows for _, rows in gathered]
    return sorted({row for rows in guilty for row in rows})
