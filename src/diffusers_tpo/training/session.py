"""Where a run runs: its processes, their device and precision, its trackers. Knows nothing of models or data."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import DistributedType, ProjectConfiguration, broadcast_object_list, set_seed


T = TypeVar("T")
TALKATIVE = ("httpx", "httpx2", "matplotlib", "accelerate.accelerator", "accelerate.checkpointing")


@dataclass(frozen=True)
class Ending:
    """Why a run stops before its last step, and the exit code that tells so."""

    reason: str
    exit_code: int = 1


class Session:
    """The processes of a run, as the launcher started them.

    Attributes:
        accelerator: of this process.
    """

    def __init__(
        self,
        output_dir: Path,
        mixed_precision: str = "no",
        accumulation_steps: int = 1,
        seed: int = 0,
        report_to: str = "none",
        logging_dir: str = "logs",
        allow_tf32: bool = False,
    ):
        """
        Args:
            output_dir: whose `logging_dir` the trackers write to.
            mixed_precision: "no", "fp16" or "bf16".
            accumulation_steps: forward passes per optimizer step.
            seed: of the global generators of this process.
            report_to: a tracker of accelerate, "all" or "none".
        """
        self.accelerator = Accelerator(
            mixed_precision=mixed_precision,
            gradient_accumulation_steps=accumulation_steps,
            log_with=None if report_to == "none" else report_to,
            project_config=ProjectConfiguration(str(output_dir), logging_dir=str(Path(output_dir) / logging_dir)),
            dataloader_config=DataLoaderConfiguration(dispatch_batches=False),
        )
        logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        set_seed(seed)
        torch.backends.cuda.matmul.allow_tf32 = allow_tf32

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP splits the weights, so that every pass is one of all processes together."""
        return self.accelerator.distributed_type == DistributedType.FSDP

    def from_main(self, make: Callable[[], T]) -> T:
        """What the main process makes, on every process; call it on every process."""
        return broadcast_object_list([make() if self.accelerator.is_main_process else None])[0]

    def track(self, project: str, config: dict[str, object]) -> None:
        """Opens the trackers and tells them what runs."""
        self.accelerator.init_trackers(project, {name: str(value) for name, value in config.items()})

    def stop(self, step: int, ending: Ending) -> None:
        """Ends the program after a checkpoint has been written; call it on every process."""
        self.accelerator.end_training()
        rest = f"checkpoint-{step} goes on with --resume_from_checkpoint latest"
        self.accelerator.print(f"\nstopped at step {step}: {ending.reason}; {rest}", file=sys.stderr)
        sys.exit(ending.exit_code)

    def leave(self) -> None:
        """The last call of a program: gloo's threads need Python's lock once more, or a run on CPUs can hang here."""
        if self.accelerator.num_processes > 1:
            time.sleep(0.5)
