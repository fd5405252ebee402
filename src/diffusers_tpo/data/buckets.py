"""Sorts images into buckets of one height and width, and makes batches of one bucket. Knows nothing of prompts or models."""

import math
import os
import warnings
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import datasets
import numpy as np
import torch
from diffusers.training_utils import find_nearest_bucket, generate_aspect_ratio_buckets, parse_buckets_string
from torch import Tensor

from ..decoding import upright_size
from ..errors import BadRow, UserError
from ..image_files import EMBEDDED, ImageFiles


Size = tuple[int, int]
STATES_AT_ONCE = 1000  # rows whose files are looked at together


def parse_buckets(text: str) -> list[Size]:
    """Heights and widths from text such as `"1024,1024;768,1360"`, see [`check_sides`] for what the model needs.

    Raises:
        UserError: naming `aspect_ratio_buckets`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sides, which `check_sides` knows better
            return sorted(set(parse_buckets_string(text)))
    except ValueError as error:
        wanted = "must be heights and widths such as '1024,1024;768,1360'"
        raise UserError(f"--aspect_ratio_buckets {wanted}, got {text!r} ({str(error).rstrip('.')})") from error


def default_buckets(resolution: int, multiple: int) -> list[Size]:
    """Heights and widths from 2:1 to 1:2 with about `resolution ** 2` pixels, all sides multiples of `multiple`.

    Raises:
        UserError: naming `resolution`, if it is less than one such multiple.
    """
    if resolution < multiple:
        raise UserError(f"--resolution must be at least {multiple} for aspect-ratio buckets, got {resolution}")
    return sorted(set(generate_aspect_ratio_buckets(resolution, multiple)))


def check_sides(sizes: list[Size], multiple: int, argument: str = "resolution") -> None:
    """Checks that a model can take images of these heights and widths.

    Args:
        multiple: of which every side must be one, in pixels.
        argument: to name, `resolution` or `aspect_ratio_buckets`.

    Raises:
        UserError: naming the argument and the nearest value that can be used.
    """
    for height, width in sizes:
        if height % multiple or width % multiple or min(height, width) < multiple:
            nearest = [max(1, math.floor(side / multiple + 0.5)) * multiple for side in (height, width)]
            square = argument == "resolution"
            got, use = (height, nearest[0]) if square else (f"{height},{width}", f"{nearest[0]},{nearest[1]}")
            raise UserError(f"--{argument} must be a multiple of {multiple} for this model, got {got}; use {use}")


def choose_bucket(size: Size, buckets: list[Size]) -> Size:
    """The bucket with the most similar shape to an image of this height and width, whatever the buckets' order."""
    options = sorted(set(buckets))
    return options[find_nearest_bucket(*size, options)]


def size_of_row(cell: dict, row_id: int, files: ImageFiles, state: str) -> dict[str, int]:
    try:
        height, width = upright_size(cell, row_id, files)
    except BadRow:
        height, width = 0, 0
    return {"height": height, "width": width}


def state_of_files(rows: datasets.Dataset, image_column: str, files: ImageFiles) -> str:
    """Changes with the files that the cells name, as far as their sizes and times tell; `""` if they name none."""
    state = sha256()
    for batch in rows.select_columns([image_column]).with_format("arrow").iter(STATES_AT_ONCE):
        cells = batch[image_column].combine_chunks()
        paths = cells.field("path").filter(cells.field("bytes").is_null()).to_pylist()
        state.update(repr([files.state(path) for path in paths if path]).encode() if any(paths) else b"")
    return "" if state.digest() == sha256().digest() else state.hexdigest()


def image_sizes(rows: datasets.Dataset, image_column: str, files: ImageFiles = EMBEDDED) -> list[Size | None]:
    """Heights and widths of undecoded images, `None` where one cannot be read.

    `datasets` keeps them on disk beside the rows where it may write there, until a file that a cell names changes.

    Args:
        files: that the cells may name.
    """
    read_only = not all(os.access(Path(file["filename"]).parent, os.W_OK) for file in rows.cache_files)
    told = {"files": files, "state": state_of_files(rows, image_column, files)}
    options = {"input_columns": image_column, "with_indices": True, "remove_columns": image_column}
    options |= {"keep_in_memory": read_only, "fn_kwargs": told, "desc": "Reading image sizes"}
    sizes = rows.select_columns([image_column]).map(size_of_row, **options)
    return [size if all(size) else None for size in zip(sizes["height"], sizes["width"], strict=True)]


class Ordered(Protocol):
    """A data set whose position `i` holds row `order[i]` in this epoch, of which `skip` positions have been used."""

    order: Tensor
    skip: int


def choose_buckets(given: str | None, resolution: int, multiple: int) -> list[tuple[int, int]]:
    """The sizes that `aspect_ratio_buckets` names, or those made from `resolution`; see [`check_sides`]."""
    if not given:
        return default_buckets(resolution, multiple)
    buckets = parse_buckets(given)
    check_sides(buckets, multiple, "aspect_ratio_buckets")
    return buckets


class BucketBatches(torch.utils.data.Sampler[list[int]]):
    """Batches of positions in a data set's order, each of rows in one bucket; for `DataLoader(batch_sampler=...)`.

    A batch comes when its bucket is full, and what is not full at the end of an epoch is dropped.

    Attributes:
        left_out: number of rows that are never in a batch, because their bucket holds fewer rows than a batch.
        drop_last: True, which tells accelerate that no batch may be made up from the first ones.
    """

    drop_last = True

    def __init__(self, dataset: Ordered, buckets: list[Size | None], batch_size: int):
        """
        Args:
            buckets: of every row, `None` for one that the order leaves out.

        Raises:
            UserError: naming `train_batch_size`, if no bucket holds a batch.
        """
        self.dataset, self.batch_size = dataset, batch_size
        numbers = {bucket: number for number, bucket in enumerate(dict.fromkeys(buckets))}
        self.numbers = np.fromiter((numbers[bucket] for bucket in buckets), np.int16, len(buckets))
        counts = np.bincount(self.numbers[dataset.order.numpy()])
        self.left_out = int(counts[counts < batch_size].sum())
        self.length = int((counts // batch_size).sum())
        if self.length == 0:
            fullest, fewer = (
                (" of the fullest bucket", " or give fewer --aspect_ratio_buckets") if len(counts) > 1 else ("", "")
            )
            got = f"--train_batch_size {batch_size} exceeds the {counts.max()} rows{fullest}"
            raise UserError(f"{got}; lower it{fewer}")

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[int]]:
        numbers = self.numbers[self.dataset.order.numpy()]  # of the epoch in which the first batch is asked for
        positions = np.argsort(numbers, kind="stable")
        buckets = np.split(positions, np.cumsum(np.bincount(numbers))[:-1])
        full = [bucket[: len(bucket) // self.batch_size * self.batch_size] for bucket in buckets]
        batches = np.concatenate(full).reshape(-1, self.batch_size)
        batches = batches[np.argsort(batches[:, -1])]
        yield from map(np.ndarray.tolist, batches[self.dataset.skip // self.batch_size :])
