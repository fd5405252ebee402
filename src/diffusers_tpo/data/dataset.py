"""Turns the rows of a text-preference data set into batches. Knows nothing of models."""

import hashlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import datasets
import numpy as np
import torch
from torch import Tensor

from ..decoding import read_bytes, upright_size
from ..errors import BadRow, UserError
from ..noising import Draw
from ..show import harmless
from .buckets import BucketBatches, Size, image_sizes
from .crops import Crop, Crops, EncodedCrop
from .mix import Mix, joined
from .reader import Example, Problems, RowReader, Sees, none_usable
from .rows import EMPTY, split_columns
from .streaming import StreamedTextPreferences
from .texts import allowed_mismatched


logger = logging.getLogger(__name__)
TEXTS_AT_ONCE, IMAGES_AT_ONCE = 1000, 16  # rows that are read together


class Kept(Protocol):
    """Encoded crops by key, and which of some keys are lacking."""

    def __getitem__(self, key: str) -> dict[str, Tensor]: ...

    def lacking(self, keys: Sequence[str]) -> Sequence[int]: ...


class TextPreferenceDataset(torch.utils.data.Dataset):
    """Map-style rows in an order that depends on the seed and the epoch alone.

    Where bad rows are skipped, those whose fault shows before training are left out. In the place of one whose image turns
    out to be unreadable comes the next usable row of the order, so that batches stay as they are; see [`Example`].
    """

    def __init__(self, rows: datasets.Dataset, reader: RowReader, mix: Mix | None = None):
        """
        Args:
            mix: of the data sets that the rows come from; `None` takes every row once in an epoch.

        Raises:
            UserError: for an empty data set or a row with wrong text.
        """
        if len(rows) == 0:
            raise UserError(EMPTY)
        used = reader.used(rows.column_names)
        rows = rows.with_format(None).select_columns(used)
        self.texts = rows.select_columns([name for name in used if name != reader.columns.image])
        self.rows = rows.cast_column(reader.columns.image, datasets.Image(decode=False))
        self.reader = reader
        self.encoded: tuple[Kept, Crops] | None = None
        self.shapes: list[Size | None] | None = None
        self.skipped: Problems = {}
        self.usable = np.arange(len(rows))
        self.mix = mix
        self.epoch = 0
        skipped: Problems = {}
        for row_id, row in self._in_turn(self.texts, TEXTS_AT_ONCE):
            with reader.skipping(row_id, skipped):
                reader.check(self.text(row_id) if row is None else row, row_id)
        self.leave_out(skipped)
        if reader.sees:
            self.tell_apart(reader.sees)

    def tell_apart(self, sees: Sees) -> None:
        """Leaves out, or refuses, rows with a mismatched prompt that a model cannot tell from their prompt.

        Args:
            sees: what the model is given of each of some prompts.

        Raises:
            UserError: naming such a row, unless bad rows are skipped.
        """
        self.reader.sees = sees
        skipped: Problems = {}
        read = self._in_turn(self.texts, TEXTS_AT_ONCE)
        rows = ((row_id, self.text(row_id) if row is None else row) for row_id, row in read)
        while part := list(itertools.islice(rows, TEXTS_AT_ONCE)):
            self.reader.check_seen(part, skipped)
        self.leave_out(skipped)

    def _in_turn(self, rows: datasets.Dataset, number: int) -> Iterator[tuple[int, dict | None]]:
        """Every usable row, read `number` at a time; `None` for one that must be read alone, for its error."""
        usable = np.zeros(len(rows), bool)
        usable[self.usable] = True
        for start in range(0, len(rows), number):
            part = range(start, min(start + number, len(rows)))
            try:
                read = split_columns(rows[start : part.stop])
            except UnicodeDecodeError:
                read = [None] * len(part)
            yield from ((row_id, row) for row_id, row in zip(part, read, strict=True) if usable[row_id])

    def leave_out(self, skipped: Problems) -> None:
        """Takes rows out of the order.

        Raises:
            UserError: if none is left.
        """
        if skipped:
            first = "; ".join(list(skipped.values())[:3])
            logger.warning(harmless(f"{len(skipped)} of {len(self.rows)} rows are skipped: {first}"))
        self.skipped |= skipped
        self.usable = self.usable[~np.isin(self.usable, list(skipped))]
        if not len(self.usable):
            raise none_usable(self.skipped)
        self.begin_epoch(self.epoch)

    def begin_epoch(self, epoch: int, used: int = 0, rows_of_batch: int = 1) -> None:
        """Shuffles anew; rows of this epoch draw their own noise, crop and mismatched prompts.

        The name is not `set_epoch`, which accelerate's data loaders call on their own with a count that ignores resuming.

        Args:
            used: batches that have been used, which [`~TextPreferenceDataset.batches`] leaves out.
            rows_of_batch: of all processes.
        """
        self.epoch, self.skip = epoch, used * rows_of_batch
        generator = Draw(self.reader.seed, "order", epoch).generator("shuffle")
        order = torch.from_numpy(self.usable)[torch.randperm(len(self.usable), generator=generator)]
        self.order = self.mix.take(order) if self.mix else order

    def text(self, row_id: int) -> dict:
        """A row without its image.

        Raises:
            BadRow: if it holds what is no text in its encoding.
        """
        try:
            return self.texts[row_id]
        except UnicodeDecodeError as error:
            raise BadRow(f"row {row_id}: its text is not encoded in UTF-8 ({error})") from error

    def candidates(self, row_id: int) -> list[str]:
        """The prompt of a row, and every mismatched prompt that may be drawn for it."""
        row, reader = self.text(row_id), self.reader
        return [row[reader.columns.prompt], *allowed_mismatched(row, reader.columns, reader.principles)]

    def cell(self, row_id: int) -> dict:
        """The undecoded image of a row."""
        return self.rows[row_id][self.reader.columns.image]

    def batches(self, batch_size: int) -> BucketBatches:
        """Batches of images of one size, see [`BucketBatches`]; with buckets, the first call reads the headers of all images."""
        self.shapes = shapes = self._shapes()
        return BucketBatches(self, shapes, batch_size)

    def prompts(self) -> list[str]:
        """Every text that a step may ask for, once."""
        reader, columns = self.reader, self.reader.columns
        texts: dict[str, None] = {"": None} if reader.proportion_empty_prompts else {}
        for row_id, row in self._in_turn(self.texts, TEXTS_AT_ONCE):
            row = self.text(row_id) if row is None else row
            mismatched = allowed_mismatched(row, columns, reader.principles) if reader.paired else []
            texts |= dict.fromkeys([row[columns.prompt], *mismatched])
        return list(texts)

    def crops(self) -> Crops:
        """Reads every image once; see [`Crops`]."""
        shapes, digests = self._shapes(), np.zeros((len(self.rows), 16), np.uint8)
        skipped: Problems = {}
        image = self.reader.columns.image
        for row_id, row in self._in_turn(self.rows.select_columns(image), IMAGES_AT_ONCE):
            with self.reader.skipping(row_id, skipped):
                cell = self.cell(row_id) if row is None else row[image]
                digests[row_id] = np.frombuffer(
                    hashlib.sha256(read_bytes(cell, row_id, self.reader.files)).digest()[:16], np.uint8
                )
        self.leave_out(skipped)
        return Crops(self.usable, digests, shapes, (False, True) if self.reader.random_flip else (False,))

    def crop(self, row_id: int, mirror: bool) -> Crop | None:
        """A crop without its prompts; `None` if its image cannot be read and its row is skipped."""
        with self.reader.skipping(row_id, {}):
            return self.reader.crop(self.rows[row_id], Draw(self.reader.seed, row_id), mirror)
        return None

    def use_encoded(self, cache: Kept, crops: Crops) -> None:
        """Reads `mean`, `std` and `sizes` of `crops` by key from now on, and no image.

        A row one of whose crops is lacking is left out.
        """
        self.encoded = cache, crops
        rows = sorted({crops.row_and_mirror(index)[0] for index in cache.lacking(crops)})
        self.leave_out({row_id: f"row {row_id}: its image cannot be read" for row_id in rows})

    def _shapes(self) -> list[Size | None]:
        """Height and width of the crop of every row, `None` where it is left out, as it is if its image cannot be read."""
        reader = self.reader
        if not reader.buckets:
            return [(reader.resolution, reader.resolution)] * len(self.rows)
        sizes = image_sizes(self.rows, reader.columns.image, reader.files)
        shapes: list[Size | None] = [None] * len(self.rows)
        skipped: Problems = {}
        for row_id in self.usable.tolist():
            with reader.skipping(row_id, skipped):
                shapes[row_id] = reader.size_of_crop(
                    *(sizes[row_id] or upright_size(self.cell(row_id), row_id, reader.files))
                )
        self.leave_out(skipped)
        return shapes

    def __len__(self) -> int:
        """Rows of an epoch."""
        return len(self.order)

    def __getitem__(self, index: int) -> Example:
        skipped: Problems = {}
        for row_id in self.standing_in(index):
            with self.reader.skipping(row_id, skipped):
                return replace(self.example(row_id), skipped=skipped)
        raise none_usable(skipped)

    def standing_in(self, index: int) -> Iterator[int]:
        """The row at a position of the order, and those that take its place one after the other if it cannot be used."""
        own = int(self.order[index])
        for step in range(len(self)):
            row_id = int(self.order[(index + step) % len(self)])
            if self.shapes is None or self.shapes[row_id] == self.shapes[own]:
                yield row_id

    def prompts_of(self, row_id: int) -> list[str]:
        """The prompts of a row in this epoch."""
        return self.reader.prompts(self.text(row_id), Draw(self.reader.seed, row_id, self.epoch))[0]

    def example(self, row_id: int) -> Example:
        """What this epoch makes of a row.

        Raises:
            BadRow: if its image cannot be read, or is no more that whose size was read before.
        """
        if self.encoded is None:
            example = self.reader.read(self.rows[row_id], row_id, self.epoch)
            if self.shapes is not None and self.shapes[row_id] != example.crop.sizes[4:]:
                raise BadRow(
                    f"row {row_id}: its image has changed since the run began; leave the files alone and resume"
                )
            return example
        cache, crops = self.encoded
        entry = cache[crops.key(row_id, self.reader.is_mirrored(self.reader.draw(row_id, self.epoch)))]
        encoded = EncodedCrop(entry["mean"], entry["std"], tuple(entry["sizes"].tolist()))
        return self.reader.read(self.texts[row_id], row_id, self.epoch, encoded)


def as_torch_dataset(
    rows: datasets.Dataset | datasets.IterableDataset, reader: RowReader, max_samples: int | None = None
) -> TextPreferenceDataset | StreamedTextPreferences:
    """A [`TextPreferenceDataset`] or, for a streamed data set, [`StreamedTextPreferences`], of the first `max_samples` rows."""
    if isinstance(rows, datasets.IterableDataset):
        return StreamedTextPreferences(rows if max_samples is None else rows.take(max_samples), reader)
    chosen = rows if max_samples is None else rows.select(range(min(max_samples, len(rows))))
    return TextPreferenceDataset(chosen, reader)


def mixed_dataset(
    parts: Sequence[datasets.Dataset],
    names: Sequence[str],
    reader: RowReader,
    max_samples: int | None = None,
    weights: Sequence[float] = (),
) -> TextPreferenceDataset:
    """The rows of several data sets as one.

    Args:
        names: of the data sets, for messages.
        reader: whose `files` are [`~diffusers_tpo.image_files.PartFiles`] of them.
        max_samples: only the first rows of each.
        weights: see [`Mix`].

    Raises:
        UserError: naming a data set that is empty or does not go with the first.
    """
    if max_samples is not None:
        parts = [rows.select(range(min(max_samples, len(rows)))) for rows in parts]
    columns = reader.used(parts[0].column_names)
    rows = joined(parts, names, columns, reader.columns.image)
    return TextPreferenceDataset(rows, reader, Mix(tuple(map(len, parts)), tuple(weights)))
