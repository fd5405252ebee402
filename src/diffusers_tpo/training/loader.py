"""Batches that know their place in a run. Knows nothing of models or losses."""

import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from ..data.batch import Batch, collate
from ..data.dataset import TextPreferenceDataset
from ..data.streaming import StreamedTextPreferences
from ..errors import UserError
from .interrupts import IS_LEAVING, outlive_signals


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a run is in its data: the epoch, and how many of its batches each process has used."""

    epoch: int = 0
    batches: int = 0


class PlacedLoader:
    """The batches of a data set, epoch after epoch, from any place on: a run that goes on gets the rows that are due.

    Attributes:
        steps_per_epoch: optimizer steps of an epoch; `None` for a stream, whose length nobody knows.
    """

    def __init__(
        self,
        dataset: TextPreferenceDataset | StreamedTextPreferences,
        batch_size: int,
        accumulation_steps: int,
        accelerator: Accelerator,
        workers: int = 0,
        empty_share: float = 0.0,
    ):
        """
        Args:
            batch_size: images per process and forward pass.
            accumulation_steps: forward passes per optimizer step.
            workers: processes that read images.
            empty_share: of the images are asked about the empty prompt too.

        Raises:
            UserError: naming `train_batch_size`, if no process gets a batch.
        """
        self.dataset, self.accelerator, self.accumulation_steps = dataset, accelerator, accumulation_steps
        self.is_streamed = isinstance(dataset, StreamedTextPreferences)
        # A pass over the data must not draw from the global generator, or dropout would differ after resuming.
        options = {
            "collate_fn": partial(collate, empty_share=empty_share),
            "num_workers": workers,
            "worker_init_fn": partial(outlive_signals, IS_LEAVING),
            "generator": torch.Generator(),
            "pin_memory": accelerator.device.type == "cuda",
        }
        if isinstance(dataset, StreamedTextPreferences):
            loader = DataLoader(dataset, batch_size, drop_last=True, **options)
        else:
            with accelerator.main_process_first():  # which reads the sizes of all images
                self.batches = dataset.batches(batch_size)
            if self.batches.left_out:
                logger.info(
                    f"{self.batches.left_out} rows lie in buckets with fewer rows than a batch and are left out"
                )
            loader = DataLoader(dataset, batch_sampler=self.batches, **options)
        self.loader = accelerator.prepare(loader)
        self.rows_of_batch = batch_size * accelerator.num_processes
        self.steps_per_epoch = None
        if isinstance(dataset, TextPreferenceDataset):
            if len(self.loader) == 0:
                raise UserError(f"--train_batch_size times processes exceeds the {len(dataset)} rows; lower it")
            self.steps_per_epoch = math.ceil(len(self.loader) / accumulation_steps)

    def after(self, place: Place) -> Iterator[tuple[Batch, Place]]:
        """Batches without end, each with the place that follows it.

        Raises:
            UserError: if the stream has fewer rows than a batch.
        """
        used = place.batches
        for epoch in itertools.count(place.epoch):
            self.dataset.begin_epoch(epoch, used, self.rows_of_batch)
            for batch in self._rest_of_epoch(used):
                used += 1
                yield batch, Place(epoch, used)
            if used == 0:
                raise UserError("--dataset_name streams fewer rows than --train_batch_size times processes; lower it")
            used = 0

    def _rest_of_epoch(self, used: int) -> Iterable[Batch]:
        """A data set leaves out by itself what has been used of the epoch; of a stream it is skipped."""
        if used and self.is_streamed:
            return self.accelerator.skip_first_batches(self.loader, used)
        return self.loader

    def epochs(self, first: int, steps: int) -> Iterator[tuple[int, Iterable[list[int]]]]:
        """The epochs of a run from `first` on, each with those of its batches that `steps` optimizer steps take.

        A batch is a list of positions in the data set's order, of all processes together.
        """
        return epochs_of(self.batches, first, steps, self.accumulation_steps, self.accelerator.num_processes)


class BatchSampler(Sized, Iterable[list[int]], Protocol):
    """Batches of positions, and how many there are."""


def epochs_of(
    batch_sampler: BatchSampler, first: int, steps: int, accumulation_steps: int, processes: int
) -> Iterator[tuple[int, Iterable[list[int]]]]:
    """The epochs of a run, each with those of its batches that the run takes; see [`PlacedLoader.epochs`].

    Args:
        batch_sampler: of all processes together.
        first: epoch.
        steps: optimizer steps of the whole run.
        accumulation_steps: batches per optimizer step and process.
    """
    per_epoch = math.ceil(math.ceil(len(batch_sampler) / processes) / accumulation_steps)
    for epoch in range(first, math.ceil(steps / per_epoch)):
        yield epoch, first_of(batch_sampler, (steps - epoch * per_epoch) * accumulation_steps * processes)


def first_of(batches: Iterable[list[int]], number: int) -> Iterator[list[int]]:
    """The first batches of an epoch, which is asked for them when the first is taken, and may have begun by then."""
    yield from itertools.islice(batches, number)
