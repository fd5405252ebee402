"""Turns the rows of a text-preference data set into batches. Knows nothing of models."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from torch import Tensor

from .buckets import BucketBatches, choose_bucket, image_sizes
from .errors import UserError
from .images import Crop, EncodedCrop, decode_image, is_mirrored, transform_image
from .negatives.principles import PRINCIPLES
from .noising import Draw
from .rows import EMPTY, Columns, allowed_mismatched, check_text


@dataclass(frozen=True)
class Row:
    """One use of one image: its crop and its prompts, matched and mismatched."""

    draw: Draw
    crop: Crop | EncodedCrop
    prompts: list[str]
    is_matched: list[bool]


def choose_mismatched(row: dict, columns: Columns, draw: Draw, count: int, principles: tuple[str, ...]) -> list[str]:
    """Draws `count` of a row's mismatched prompts that follow one of `principles`, again from the start if too few.

    Raises:
        UserError: if the row has none.
    """
    allowed = allowed_mismatched(row, columns, principles)
    if not allowed:
        raise UserError(f"row {draw.row}: no mismatched prompt follows {', '.join(principles)}; widen --principles")
    order = torch.randperm(len(allowed), generator=draw.generator("mismatched")).tolist()
    return [allowed[order[index % len(order)]] for index in range(count)]


@dataclass
class RowReader:
    """Turns a raw data set row into a [`Row`]: the same for a map-style and a streamed data set.

    `buckets` are heights and widths, of which each image gets the nearest; `None` means a square of `resolution`.
    """

    columns: Columns
    loss_type: str
    unpaired: bool
    seed: int
    resolution: int = 512
    center_crop: bool = False
    random_flip: bool = False
    num_mismatched: int = 1
    principles: tuple[str, ...] = tuple(PRINCIPLES)
    proportion_empty_prompts: float = 0.0
    buckets: list[tuple[int, int]] | None = None

    def size_of_crop(self, height: int, width: int) -> tuple[int, int]:
        return choose_bucket((height, width), self.buckets) if self.buckets else (self.resolution, self.resolution)

    def is_mirrored(self, draw: Draw) -> bool:
        return self.random_flip and is_mirrored(draw)

    def crop(self, row: dict, draw: Draw, mirror: bool) -> Crop:
        image = decode_image(row[self.columns.image], draw.row)
        size = self.size_of_crop(image.height, image.width)
        return transform_image(image, draw, size, self.center_crop, mirror)

    def read(self, row: dict, row_id: int, number: int, encoded: EncodedCrop | None = None) -> Row:
        """One use of a row; `encoded` takes the place of its image.

        Raises:
            UserError: naming the row and what is wrong with it.
        """
        check_text(row, row_id, self.columns, self.loss_type, self.unpaired)
        draw = Draw(self.seed, row_id, number)
        crop = self.crop(row, draw, self.is_mirrored(draw)) if encoded is None else encoded
        prompt = row[self.columns.prompt]
        if self.unpaired:
            return Row(draw, crop, [prompt], [bool(row[self.columns.label])])
        if self.loss_type == "sft":
            is_empty = torch.rand((), generator=draw.generator("empty")) < self.proportion_empty_prompts
            return Row(draw, crop, ["" if is_empty else prompt], [True])
        mismatched = choose_mismatched(row, self.columns, draw, self.num_mismatched, self.principles)
        return Row(draw, crop, [prompt, *mismatched], [True] + [False] * len(mismatched))


def image_digests(rows: datasets.Dataset, image_column: str) -> list[str]:
    """A digest of the content of every undecoded image."""
    digests = []
    for cell in rows[image_column]:
        content = cell["bytes"] if cell.get("bytes") else Path(cell["path"]).read_bytes()
        digests.append(hashlib.sha256(content).hexdigest()[:32])
    return digests


class TextPreferenceDataset(torch.utils.data.Dataset):
    """Map-style rows in an order that depends on the seed and the epoch alone."""

    def __init__(self, rows: datasets.Dataset, reader: RowReader):
        """Raises [`UserError`] for an empty data set or a row with wrong text."""
        if len(rows) == 0:
            raise UserError(EMPTY)
        self.texts = rows.select_columns([c for c in rows.column_names if c != reader.columns.image])
        for index, row in enumerate(self.texts):
            check_text(row, index, reader.columns, reader.loss_type, reader.unpaired)
        self.rows = rows.cast_column(reader.columns.image, datasets.Image(decode=False))
        self.reader = reader
        self.encoded = None
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Shuffles anew; rows of this epoch draw their own noise, crop and mismatched prompts.

        The name is not `set_epoch`, which accelerate's data loaders call on their own with a count that ignores resuming.
        """
        self.epoch = epoch
        generator = Draw(self.reader.seed, "order", epoch).generator("shuffle")
        self.order = torch.randperm(len(self.rows), generator=generator)

    def bucket_batches(self, batch_size: int) -> BucketBatches:
        """Batches of images of one size, see [`BucketBatches`]; the first call reads the headers of all images."""
        sizes = image_sizes(self.rows, self.reader.columns.image)
        return BucketBatches(self, [self.reader.size_of_crop(*size) for size in sizes], batch_size)

    def prompts(self) -> list[str]:
        """Every text that a step may ask for, once."""
        reader, columns = self.reader, self.reader.columns
        texts = [[""]] if reader.proportion_empty_prompts else []
        for row in self.texts:
            paired = not (reader.unpaired or reader.loss_type == "sft")
            texts.append(
                [row[columns.prompt], *(allowed_mismatched(row, columns, reader.principles) if paired else [])]
            )
        return list(dict.fromkeys(text for part in texts for text in part))

    def crops(self) -> list[tuple[str, int, bool]]:
        """Every crop that a step may ask for if crops are central: its key, its row and whether it is mirrored.

        The key changes with the content of the image, the size of the crop and the mirror.
        """
        mirrors = (False, True) if self.reader.random_flip else (False,)
        return [(f"{key}-{mirror:d}", row, mirror) for row, key in enumerate(self._image_keys()) for mirror in mirrors]

    def crop(self, row_id: int, mirror: bool) -> Crop:
        return self.reader.crop(self.rows[row_id], Draw(self.reader.seed, row_id), mirror)

    def use_encoded(self, encoded: Mapping[str, dict[str, Tensor]], crops: list[tuple[str, int, bool]]) -> None:
        """Reads `mean`, `std` and `sizes` of what [`~TextPreferenceDataset.crops`] gave by key from now on, and no image."""
        self.encoded, self.keys = encoded, [key for key, _, mirror in crops if not mirror]

    def _image_keys(self) -> list[str]:
        reader, column = self.reader, self.reader.columns.image
        sizes = (
            image_sizes(self.rows, column) if reader.buckets else [(reader.resolution, reader.resolution)] * len(self)
        )
        digests = image_digests(self.rows, column)
        crops = [reader.size_of_crop(*size) for size in sizes]
        return [f"{digest}-{height}x{width}" for digest, (height, width) in zip(digests, crops, strict=True)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        row_id = int(self.order[index])
        if self.encoded is None:
            return self.reader.read(self.rows[row_id], row_id, self.epoch)
        mirror = self.reader.is_mirrored(Draw(self.reader.seed, row_id, self.epoch))
        entry = self.encoded[f"{self.keys[row_id][:-1]}{mirror:d}"]
        encoded = EncodedCrop(entry["mean"], entry["std"], tuple(entry["sizes"].tolist()))
        return self.reader.read(self.texts[row_id], row_id, self.epoch, encoded)


class StreamedTextPreferences(torch.utils.data.IterableDataset):
    """Streamed rows, shuffled within a buffer; a row is known by its place in the shuffled stream."""

    def __init__(self, rows: datasets.IterableDataset, reader: RowReader, shuffle_buffer: int = 1000):
        rows = rows.cast_column(reader.columns.image, datasets.Image(decode=False))
        self.rows = rows.shuffle(seed=reader.seed, buffer_size=shuffle_buffer)
        self.reader = reader
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.rows.set_epoch(epoch)

    def __iter__(self) -> Iterator[Row]:
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        index = -1
        for index, row in enumerate(self.rows):
            yield self.reader.read(row, index * workers + number, self.epoch)
        if index < 0 and number == 0:  # other workers may have no shard
            raise UserError(EMPTY)


def as_torch_dataset(rows, reader: RowReader, max_samples: int | None = None):
    """A [`TextPreferenceDataset`] or, for a streamed data set, [`StreamedTextPreferences`], of the first `max_samples` rows."""
    if isinstance(rows, datasets.IterableDataset):
        return StreamedTextPreferences(rows if max_samples is None else rows.take(max_samples), reader)
    chosen = rows if max_samples is None else rows.select(range(min(max_samples, len(rows))))
    return TextPreferenceDataset(chosen, reader)


@dataclass(frozen=True)
class Batch:
    """`B` images as pixels or as mean and standard deviation of their latents, their [`~diffusers_tpo.images.Crop`]s' sizes `(B, 6)`, and the prompts of all rows, in blocks: prompt 1 of every
    image, then prompt 2 of every image, ..."""

    pixels: Tensor | None
    encoded: tuple[Tensor, Tensor] | None
    sizes: Tensor
    draws: list[Draw]
    prompts: list[str]
    is_matched: Tensor

    @property
    def prompts_per_image(self) -> int:
        return len(self.prompts) // len(self.draws)


def collate(rows: list[Row]) -> Batch:
    """Joins rows with the same number of prompts into a [`Batch`]."""
    crops, is_encoded = [row.crop for row in rows], isinstance(rows[0].crop, EncodedCrop)
    latents = tuple(torch.stack([getattr(c, name) for c in crops]) for name in ("mean", "std")) if is_encoded else None
    return Batch(
        pixels=None if is_encoded else torch.stack([crop.pixels for crop in crops]),
        encoded=latents,
        sizes=torch.tensor([crop.sizes for crop in crops], dtype=torch.float32),
        draws=[row.draw for row in rows],
        prompts=[prompt for block in zip(*(row.prompts for row in rows), strict=True) for prompt in block],
        is_matched=torch.tensor(
            [flag for block in zip(*(row.is_matched for row in rows), strict=True) for flag in block]
        ),
    )


def batches_from(place: dict[str, int], dataset, loader, accelerator) -> Iterator[tuple[dict[str, int], Batch]]:
    """Batches without end from a place on, each with the place that follows it.

    Args:
        place: `epoch`, and how many `batches` of it are used up.
        dataset: [`TextPreferenceDataset`] or [`StreamedTextPreferences`], in a `loader` that `accelerator` has prepared.
    """
    used = place["batches"]
    for epoch in itertools.count(place["epoch"]):
        dataset.begin_epoch(epoch)
        for batch in accelerator.skip_first_batches(loader, used) if used else loader:
            used += 1
            yield {"epoch": epoch, "batches": used}, batch
        if used == 0:
            raise UserError("dataset_name streams fewer rows than train_batch_size times processes; lower it")
        used = 0
