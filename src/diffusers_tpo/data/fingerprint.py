"""What the rows of a data set are, whatever they are called and wherever they lie. Knows nothing of models."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import datasets

from ..image_files import ImageFiles, LocalFiles, PartFiles
from .dataset import TextPreferenceDataset
from .rows import split_columns
from .streaming import StreamedTextPreferences


TEXTS_AT_ONCE, IMAGES_AT_ONCE = 1000, 64  # rows that are read together
PART = 4096  # bytes of the beginning, the middle and the end of an image file or a data file that count


def fingerprint_rows(
    dataset: TextPreferenceDataset | StreamedTextPreferences, source: str, commit: str | None = None
) -> dict[str, Any]:
    """Changes with what a run learns from, and with nothing else: a folder may be moved or renamed.

    Of an image count its size in bytes and [`PART`] bytes each of its beginning, middle and end, so that a large set is not
    read twice; a changed picture changes these in every compressed format.

    Args:
        source: Hub id or folder that the rows come from, and all that can tell of a stream.
        commit: of the Hub id.

    Returns:
        The number of rows and a digest for each column that is there, by what it holds: "captions", "mismatched prompts",
        "principles of rows", "labels", "images". Of a stream: "data files".
    """
    if isinstance(dataset, StreamedTextPreferences):
        return {"data files": fingerprint_files(Path(source)) if Path(source).is_dir() else f"{source}@{commit}"}
    columns = dataset.reader.columns
    found: dict[str, Any] = {"rows": len(dataset.rows)}
    if dataset.mix:
        found["rows of data sets"] = list(dataset.mix.sizes)
    for what, column in {
        "captions": columns.prompt,
        "mismatched prompts": columns.mismatched,
        "principles of rows": columns.principles,
        "labels": columns.label,
    }.items():
        if column in dataset.rows.column_names:
            found[what] = digest(map(as_bytes, values_of(dataset.rows, column, TEXTS_AT_ONCE)))
    cells = values_of(dataset.rows, columns.image, IMAGES_AT_ONCE)
    found["images"] = digest(part_of_image(cell, dataset.reader.files) for cell in cells)
    return found


def digest(parts: Iterable[bytes]) -> str:
    """Of all parts in order, each with its length, so that none runs into the next."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()[:16]


def values_of(rows: datasets.Dataset, column: str, number: int) -> Iterator[Any]:
    """The cells of a column in order, read `number` at a time; `None` for what is no text in its encoding."""
    rows = rows.select_columns([column])
    for start in range(0, len(rows), number):
        part = range(start, min(start + number, len(rows)))
        try:
            cells = [row[column] for row in split_columns(rows[start : part.stop])]
        except UnicodeDecodeError:
            cells = [_alone(rows, row_id, column) for row_id in part]
        yield from cells


def _alone(rows: datasets.Dataset, row_id: int, column: str) -> Any:
    try:
        return rows[row_id][column]
    except UnicodeDecodeError:
        return None


def as_bytes(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode(errors="surrogatepass")


def part_of_image(cell: Any, files: ImageFiles) -> bytes:
    """What counts of an undecoded image: of a file that is not on this machine its name, of one that cannot be read too."""
    if not isinstance(cell, dict):
        return as_bytes(cell)
    if cell.get("bytes") is not None:
        return part_of_file(io.BytesIO(cell["bytes"]))
    path = str(cell.get("path"))
    if isinstance(files, PartFiles):
        files, path = files.resolve(path)
    if isinstance(files, LocalFiles):
        with contextlib.suppress(Exception), files.open(path) as file:  # archives raise many kinds
            return part_of_file(file)
    return as_bytes(Path(path).name)


def part_of_file(file: BinaryIO) -> bytes:
    """Size, beginning, middle and end of what is in a file."""
    size = file.seek(0, os.SEEK_END)
    parts = [size.to_bytes(8, "little")]
    for start in (0, max(0, size // 2 - PART // 2), max(0, size - PART)):
        file.seek(start)
        parts.append(file.read(PART))
    return b"".join(parts)


def part_of_named(name: Path, path: Path) -> bytes:
    """The same of a file on the disk, and its name."""
    with path.open("rb") as file:
        return as_bytes(name.as_posix()) + part_of_file(file)


def fingerprint_files(folder: Path) -> str:
    """Of the names and, in the same parts, the contents of all files below a folder, but for hidden ones."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())  # a pipe would wait for ever
    named = ((path.relative_to(folder), path) for path in files)
    shown = ((name, path) for name, path in named if not any(part.startswith(".") for part in name.parts))
    return digest(part_of_named(name, path) for name, path in shown)
