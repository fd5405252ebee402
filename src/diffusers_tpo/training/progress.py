"""How far a run is: where it begins or goes on, its log, its checkpoints. Knows nothing of what its parts do."""

import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from tqdm.auto import tqdm

from ..data.batch import Batch
from ..models.checkpoints import (
    check_length,
    load_state,
    read_state,
    save_checkpoint,
)
from ..models.recipe import ModelRecipe
from ..publish.model_card import training_facts
from .folder import LOG
from .identity import Identity
from .loader import Place, PlacedLoader
from .log import TrainingLog


logger = logging.getLogger(__name__)
TIMED = (3, 13)  # steps after the first between which the time of a step is measured: the first few are slower
SHOWN = ("preference_loss", "anchor", "reward/matched", "reward/margin", "reward/accuracy")
SHOWN_OF_SFT = ("loss",)


class Part(Protocol):
    """What of a run a checkpoint keeps as JSON, besides weights, optimizer and random numbers."""

    def state(self) -> dict: ...

    def load(self, state: dict) -> None: ...


class Progress:
    """The steps of a run, from the start or from a checkpoint on.

    Attributes:
        step: optimizer steps up to now; `last_step` is the one that ends the run.
        place: in the data.
        checkpoint: from which it goes on, `None` if it begins at the start.
        log: `training_log.jsonl`, a row for each step.
    """

    def __init__(
        self,
        output_dir: Path,
        checkpoint: Path | None,
        identity: Identity,
        recipe: ModelRecipe,
        accelerator: Accelerator,
        checkpoints_limit: int | None = None,
    ):
        """Finds out where to begin; nothing is loaded yet.

        Args:
            checkpoint: to go on from, `None` to begin at the start.
            checkpoints_limit: how many checkpoints are kept.

        Raises:
            UserError: if another run wrote the checkpoint.
        """
        self.output_dir, self.last_step = Path(output_dir), 0
        self.identity, self.recipe, self.accelerator = identity, recipe, accelerator
        self.limit = checkpoints_limit
        self.parts: dict[str, Any] = {}
        self.step, self.place = 0, Place()
        self.checkpoint = checkpoint
        if checkpoint:
            state = read_state(checkpoint)
            self._refuse_other(checkpoint.name, state["identity"])
            self.step, self.place = state["step"], Place(state["epoch"], state["batches"])
        self.first_step = self.step

    def aim_at(self, last_step: int, lr_scheduler: str) -> None:
        """Sets the step that ends the run.

        Args:
            lr_scheduler: name of the schedule: one that decays must go on to the same last step.

        Raises:
            UserError: if it would go on to another one.
        """
        if self.checkpoint:
            check_length(read_state(self.checkpoint), lr_scheduler, last_step)
        self.last_step = last_step

    def _refuse_other(self, name: str, written: dict) -> None:
        self.identity.refuse_other(written, f"--resume_from_checkpoint {name}")
        if others := self.identity.other_versions(written):
            logger.warning(f"{name} goes on with other packages, which may change last digits: {others}")

    @property
    def is_done(self) -> bool:
        return self.step >= self.last_step

    def begin(self, **parts: Part) -> None:
        """Loads the checkpoint, if there is one, and opens the log; call it on every process, after the models are prepared.

        Args:
            parts: of the run, by the names that checkpoints give them.
        """
        self.parts = parts
        if self.checkpoint:
            load_state(self.checkpoint, self.accelerator)
            state = read_state(self.checkpoint)
            for name, part in parts.items():
                part.load(state[name])
            logger.info(f"Resuming from {self.checkpoint.name}")
        self.log = TrainingLog(self.output_dir / LOG, self.step, self.accelerator.is_main_process)
        hidden = not self.accelerator.is_main_process
        self.bar = tqdm(initial=self.step, total=self.last_step, desc=self.identity.parts["loss_type"], disable=hidden)
        self.began = time.monotonic()

    def batches(self, loader: PlacedLoader) -> Iterator[Batch]:
        """The batches that are due, until the last step is made."""
        coming = loader.after(self.place)
        while not self.is_done:
            batch, self.place = next(coming)
            yield batch

    def advance(self) -> None:
        """Counts an optimizer step."""
        self.step += 1
        self.bar.update()
        self._time(self.step - self.first_step)

    def _time(self, made: int) -> None:
        """Says once how long the rest will take, by the steps that this run has made until then."""
        begin, end = TIMED
        if made == begin:
            self.timed = time.monotonic()
        left = self.last_step - self.step
        if made == end and left > end:
            seconds = (time.monotonic() - self.timed) / (end - begin)
            if self.accelerator.is_main_process:
                rest = timedelta(seconds=round(seconds * left))
                logger.info(f"{seconds:.3g} s a step: about {rest} (h:mm:ss) for the other {left:,} steps")

    def write(self, row: dict[str, float]) -> None:
        """Writes the metrics of this step to the log."""
        self.log.append(self.step, row)
        self.bar.set_postfix(shown(row), refresh=False)

    def save(self, keep: str | None = None) -> None:
        """Writes a checkpoint of this step; call it on every process.

        Args:
            keep: name of a checkpoint that stays beyond the limit.

        Raises:
            UserError: if it cannot be written; the earlier ones are as they were.
        """
        self.log.sync()
        state = {
            "step": self.step,
            "epoch": self.place.epoch,
            "batches": self.place.batches,
            "identity": self.identity.state(),
            "model": self.recipe.as_dict(),
            "length": self.last_step,
            **{name: part.state() for name, part in self.parts.items()},
        }
        save_checkpoint(self.output_dir, state, self.accelerator, limit=self.limit, keep=keep)

    def return_to(self, name: str) -> int:
        """Loads the weights of an earlier checkpoint of this run, and returns its step; call it on every process."""
        load_state(self.output_dir / name, self.accelerator)
        return int(name.removeprefix("checkpoint-"))

    def told(self, weights_of: int) -> dict[str, object]:
        """How long the run was, for a card; `weights_of` is the step whose weights it ends with."""
        return training_facts(self.first_step, self.step, time.monotonic() - self.began, weights_of)


def shown(row: dict[str, float]) -> dict[str, str]:
    """What the progress bar shows of a step's metrics: the preference loss apart from the anchor, which is usually larger."""
    names = SHOWN if "preference_loss" in row else SHOWN_OF_SFT
    return {name: f"{row[name]:.4g}" for name in names if name in row}
