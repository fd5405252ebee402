"""Several data sets as one: their rows one after the other, and how much of each an epoch takes. Knows nothing of batches or models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow
import torch
from torch import Tensor

from ..errors import UserError, reason
from ..image_files import PartFiles


ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Mix:
    """What the rows of several data sets are taken in.

    Attributes:
        sizes: rows of each, in order.
        weights: the shares of an epoch relative to one another; none takes all rows of all.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def take(self, order: Tensor) -> Tensor:
        """Those rows of a shuffled order that belong to an epoch, still in this order.

        The data set with the fewest rows for its weight is taken as a whole, of the others as many as their weights ask for, which
        are others in each epoch.

        Args:
            order: numbers of rows, `(N,)`.

        Raises:
            UserError: if a data set has no row in it.
        """
        if not self.weights:
            return order
        part = np.searchsorted(np.cumsum(self.sizes), order.numpy(), side="right")
        counts = np.bincount(part, minlength=len(self.sizes))
        if not counts.all():
            raise UserError(f"--dataset_name holds no row that can be used in its data set {int(counts.argmin()) + 1}")
        once = min(count / weight for count, weight in zip(counts, self.weights, strict=True))
        taken = [
            np.flatnonzero(part == number)[: max(1, math.floor(once * weight + 1e-9))]
            for number, weight in enumerate(self.weights)
        ]
        return order[torch.from_numpy(np.sort(np.concatenate(taken)))]


def joined(
    parts: Sequence[datasets.Dataset], names: Sequence[str], columns: Sequence[str], image: str
) -> datasets.Dataset:
    """The rows of several data sets one after the other, images undecoded.

    Args:
        names: of the data sets, for messages.
        columns: that are read, of the first data set; all must have them, in the same form.
        image: the column of the images. Where cells name files, [`PartFiles`] must be given to read them.

    Raises:
        UserError: naming a data set that does not go with the first.
    """
    alike: list[datasets.Dataset] = []
    for number, (rows, name) in enumerate(zip(parts, names, strict=True)):
        if lacking := [column for column in columns if column not in rows.column_names]:
            raise UserError(
                f"--dataset_name {name!r} has no column {lacking[0]}, which {names[0]!r} has; give data sets with the same columns"
            )
        rows = rows.with_format(None).select_columns(list(columns)).cast_column(image, datasets.Image(decode=False))
        try:
            if alike and rows.features != alike[0].features:
                rows = rows.cast(alike[0].features)
            alike.append(_naming_its_part(rows, image, number))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, TypeError, ValueError) as error:
            raise UserError(
                f"--dataset_name {name!r} has columns of other kinds than {names[0]!r} ({reason(error)}); give data sets of one form"
            ) from error
    return datasets.concatenate_datasets(alike)


def _naming_its_part(rows: datasets.Dataset, image: str, number: int) -> datasets.Dataset:
    """The rows with the number of their data set before each path that a cell names in the place of bytes."""

    def name_part(table: pyarrow.Table) -> pyarrow.Table:
        cells = table[image].to_pylist()
        named = [
            cell | {"path": PartFiles.path(number, cell["path"])}
            if cell and cell.get("bytes") is None and cell.get("path")
            else cell
            for cell in cells
        ]
        place = table.column_names.index(image)
        return table.set_column(place, image, pyarrow.array(named, type=table[image].type))

    if not _names_files(rows, image):
        return rows
    options = {"batched": True, "batch_size": ROWS_AT_ONCE, "features": rows.features, "keep_in_memory": True}
    return rows.with_format("arrow").map(name_part, **options).with_format(None)


def _names_files(rows: datasets.Dataset, image: str) -> bool:
    """Whether a cell names a file in the place of bytes."""
    for batch in rows.select_columns([image]).with_format("arrow").iter(ROWS_AT_ONCE):
        cells = batch[image].combine_chunks()
        if cells.field("bytes").null_count > cells.null_count:
            return True
    return False
