"""Reads the rows of a streamed text-preference data set. Knows nothing of batches or models."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import datasets
import torch

from ..errors import UserError
from .reader import Example, Problems, RowReader, Sees, none_usable
from .rows import EMPTY, read_on, split_columns


AT_ONCE = 32  # rows that are read together


class StreamedTextPreferences(torch.utils.data.IterableDataset):
    """Streamed rows, shuffled within a buffer; a row is known by its place in the shuffled stream."""

    def __init__(self, rows: datasets.IterableDataset, reader: RowReader, shuffle_buffer: int = 1000):
        if rows.column_names:  # where a stream does not tell them, nothing is decoded
            rows = rows.select_columns(reader.used(rows.column_names))
        rows = rows.cast_column(reader.columns.image, datasets.Image(decode=False))
        self.rows = rows.shuffle(seed=reader.seed, buffer_size=shuffle_buffer).batch(AT_ONCE)
        self.reader = reader
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int, used: int = 0, rows_of_batch: int = 1) -> None:
        """Shuffles anew, as [`~diffusers_tpo.data.dataset.TextPreferenceDataset.begin_epoch`].

        Args:
            used: batches that have been used. The stream still gives them, because its shuffled buffer is made of it up to
                there, but as `None` where it can tell, so that no image is decoded in vain. (`skip` of `datasets` reads as
                much, and its `state_dict` does without the content of the buffer, so that other rows would come.)
            rows_of_batch: of all processes.
        """
        self.epoch, self.used, self.rows_of_batch = epoch, used, rows_of_batch
        self.rows.set_epoch(epoch)

    def tell_apart(self, sees: Sees) -> None:
        """Skips, or refuses, rows with a mismatched prompt that a model cannot tell from their prompt, as they come.

        Args:
            sees: what the model is given of each of some prompts.
        """
        self.reader.sees = sees

    def _rows_used(self, number: int, workers: int) -> int:
        """How many rows of a data worker have been used at least.

        Workers take turns with batches, and one whose files end early leaves its turns to the others. Where bad rows are
        skipped, only decoding shows which rows were used.
        """
        turns = (self.used + workers - 1 - number) // workers
        return 0 if self.reader.on_bad_row == "skip" else turns * self.rows_of_batch

    def __iter__(self) -> Iterator[Example | None]:
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        used = self._rows_used(number, workers)
        index, last = -1, None
        skipped: Problems = {}
        rows = itertools.chain.from_iterable(map(split_columns, read_on(self.rows)))
        for index, row in enumerate(rows):
            if index < used:
                yield None
                continue
            row_id = index * workers + number
            with self.reader.skipping(row_id, skipped):
                self.reader.check(row, row_id)
                self.reader.check_seen([(row_id, row)], skipped)
                read = None if row_id in skipped else self.reader.read(row, row_id, self.epoch)
            if row_id in skipped:
                continue
            if last is not None:
                yield replace(last, skipped=skipped)
                skipped = {}
            last = read
        if index < 0 and number == 0:  # other workers may have no shard
            raise UserError(EMPTY)
        if last is not None:
            yield replace(last, skipped=skipped)
        elif skipped:
            raise none_usable(skipped)
