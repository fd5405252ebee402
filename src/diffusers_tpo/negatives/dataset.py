"""Reads captions and writes shards of mismatched prompts with the `datasets` library, and joins them to images by key."""

import glob
import json
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import datasets
import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Image, IterableDataset, List, Value
from pyarrow.parquet import ParquetFile

from ..decoding import decode_image, read_bytes, upright_size
from ..errors import BadRow, UserError, reason
from ..files import publish_file
from ..image_files import EMBEDDED, ImageFiles
from .language.words import folded
from .splits import SPLITS, Shares
from .work import Result


TEXT_FEATURES = {
    "key": Value("string"),
    "prompt": Value("string"),
    "negative_prompts": List(Value("string")),
    "principles": List(Value("string")),
    "num_edits": List(Value("int32")),
    "editor": Value("string"),
}
VERDICT_FEATURES = {  # of a set that judges have looked at
    "verdicts": List(Value("string")),
    "prompt_verdict": Value("string"),
    "verifier": Value("string"),
}
FILE_LOADERS = {".txt": "text", ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
READ_OPTIONS: dict[
    str, dict[str, Any]
] = {  # a byte order mark is no part of a caption, and a caption may be "NA" or "None"
    "text": {"encoding": "utf-8-sig"},
    "json": {"encoding": "utf-8-sig"},
    "csv": {"encoding": "utf-8-sig", "keep_default_na": False, "na_values": [""]},
    "parquet": {},
}
OWN_NUMBER = "number of the row"  # column of rows that were chosen from others
READ_BATCH = 10_000  # captions that are in memory at once
WRITE_BATCH = 100  # rows with images that are in memory at once
CHECK_BATCH = 1000  # rows whose files are looked at together


def load_captions_file(path: str) -> Dataset:
    """Reads a file of captions: text with one caption a line, CSV, JSON lines or parquet; text has the column `text`.

    Raises:
        UserError: if there is no such file, or it cannot be read.
    """
    loader = FILE_LOADERS.get(Path(path).suffix)
    if loader is None or not Path(path).is_file():
        raise UserError(f"--captions_file {path!r} must be an existing file that ends in {', '.join(FILE_LOADERS)}")
    if not Path(path).stat().st_size:
        raise UserError(f"--captions_file {path!r} is empty; give one that holds captions")
    try:
        return datasets.load_dataset(loader, data_files=glob.escape(path), split="train", **READ_OPTIONS[loader])
    except (ValueError, OSError, datasets.exceptions.DatasetGenerationError) as error:
        raise UserError(f"--captions_file {path!r} cannot be read ({reason(error.__cause__ or error)})") from error


@dataclass(frozen=True)
class Source:
    """Captions, and images if there are any; neither is ever changed.

    Args:
        rows: with a column of captions.
        caption_column: its name.
        image_column: its name, or `None`.
        key_column: what names a row, unchanged, in the result; the row's number if `None`.
        files: that the cells of the image column may name, see [`~diffusers_tpo.image_files.files_of`].

    Raises:
        UserError: naming a column that is missing or holds the wrong type, or a row whose image is missing or none.
    """

    rows: Dataset
    caption_column: str
    image_column: str | None = None
    key_column: str | None = None
    files: ImageFiles = EMBEDDED

    def __post_init__(self) -> None:
        columns = {"caption_column": self.caption_column, "image_column": self.image_column}
        for flag, column in (columns | {"key_column": self.key_column}).items():
            if column is not None and column not in self.rows.column_names:
                there = ", ".join(self.rows.column_names)
                raise UserError(f"--{flag} {column!r} is not a column of the data set; it has {there}")
        feature = self.rows.features[self.caption_column]
        if not isinstance(feature, Value) or feature.dtype not in ("string", "large_string"):
            raise UserError(f"--caption_column {self.caption_column!r} must hold strings, it holds {feature}")
        if len(self.rows) == 0:
            raise UserError("the data set of captions holds no rows; give one that does")
        if self.image_column is not None:
            check_images(self.rows, self.image_column, self.files)

    def captions(self, start: int, stop: int) -> list[str]:
        """Raises [`UserError`] if one is not encoded in UTF-8."""
        return self._captions(range(start, stop))

    def _captions(self, numbers: range) -> list[str]:
        try:
            captions = self.rows.select_columns([self.caption_column]).select(numbers)[self.caption_column]
            return [caption or "" for caption in captions]
        except UnicodeDecodeError as error:
            raise UserError(
                f"--caption_column {self.caption_column!r} is not encoded in UTF-8 in rows {numbers[0]} to {numbers[-1]} "
                f"({error}); write it anew in UTF-8"
            ) from error

    def key(self, row: int) -> str:
        return (
            str(row)
            if self.key_column is None
            else str(self.rows.select_columns([self.key_column])[row][self.key_column])
        )

    def picture(self, row: int) -> PIL.Image.Image:
        """The image of a row, upright and in sRGB. Raises [`BadRow`] if it cannot be read."""
        return decode_image(self.images([row])[0]["image"], row, self.files)

    def keys(self, numbers: Sequence[int]) -> list[str]:
        if self.key_column is None:
            return list(map(str, numbers))
        return list(map(str, self.rows.select_columns([self.key_column]).select(numbers)[self.key_column]))

    def images(self, numbers: Sequence[int]) -> Dataset:
        """The images of some rows as they are stored, not decoded."""
        assert self.image_column is not None  # who asks has seen that there are some
        return stored_images(self.rows.select(numbers), self.image_column)

    def without(self, rows: Collection[int]) -> "Source":
        """The other rows; each keeps the name that it has here."""
        gone = set(rows)
        left = [row for row in range(len(self.rows)) if row not in gone]
        chosen = self.rows.select(left)
        if self.key_column is not None:
            return replace(self, rows=chosen)
        return replace(self, rows=chosen.add_column(OWN_NUMBER, list(map(str, left))), key_column=OWN_NUMBER)

    def sample(self, size: int) -> list[str]:
        """Captions at even distances."""
        step = max(1, len(self.rows) // size)
        return self._captions(range(0, len(self.rows), step)[:size])

    def fingerprints(self) -> dict[str, str | None]:
        """Names captions, keys and images by what they are, wherever they lie; of an image, its number of bytes.

        Raises:
            UserError: if a caption is not encoded in UTF-8.
        """
        names = {"captions": self._fingerprint(self.captions, READ_BATCH), "keys": None, "images": None}
        if self.key_column is not None:
            names["keys"] = self._fingerprint(lambda start, stop: self.keys(range(start, stop)), READ_BATCH)
        if self.image_column is not None:
            names["images"] = self._fingerprint(
                lambda start, stop: stored_sizes(self.images(range(start, stop))), WRITE_BATCH
            )
        return names

    def _fingerprint(self, read: Callable[[int, int], list], size: int) -> str:
        """Of what `read` gives of the rows `[start, stop)`, so many at a time."""
        digest = sha256()
        for start in range(0, len(self.rows), size):
            digest.update(json.dumps(read(start, min(len(self.rows), start + size))).encode())
        return digest.hexdigest()[:16]


def stored_images(rows: Dataset, column: str) -> Dataset:
    """Only the images of some rows, as they are stored, not decoded, in a column `image`.

    Raises:
        UserError: if the column holds no images.
    """
    try:
        rows = rows.select_columns([column]).cast_column(column, Image(decode=False))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"--image_column {column!r} holds no images but {rows.features[column]}") from error
    return rows if column == "image" else rows.rename_column(column, "image")


def stored_sizes(images: Dataset) -> list[int | None]:
    """Bytes of each of the [`stored_images`], of which none is read; `None` where there is none."""
    sizes: list[int | None] = []
    for cells in images.with_format("arrow")[:]["image"].chunks:
        stored, paths = pc.binary_length(cells.field("bytes")).to_pylist(), cells.field("path").to_pylist()
        for size, path in zip(stored, paths, strict=True):
            is_file = not size and path is not None and Path(path).is_file()
            sizes.append(Path(path).stat().st_size if is_file else size)
    return sizes


def check_images(rows: Dataset, column: str, files: ImageFiles) -> None:
    """Looks at the files that image cells name, before any work is done for their rows.

    Raises:
        UserError: naming a row whose file is missing, no image, or none that its data set may name.
    """
    row_id = 0
    for batch in stored_images(rows, column).with_format("arrow").iter(CHECK_BATCH):
        for held, path in zip(
            *(batch["image"].combine_chunks().field(name) for name in ("bytes", "path")), strict=True
        ):
            if not held.is_valid and path.is_valid:
                upright_size({"bytes": None, "path": path.as_py()}, row_id, files)
            row_id += 1


def with_content(cell: dict | None, key: str, files: ImageFiles) -> dict | None:
    """A cell with the content of the file that it names, which must be an image, and the bare name of that file."""
    if cell is None:
        return None
    name = Path(cell["path"].partition("::")[0]).name if cell["path"] else None
    if cell["bytes"] or not name:
        return {"bytes": cell["bytes"], "path": name}
    upright_size(cell, key, files)
    return {"bytes": read_bytes(cell, key, files), "path": name}


def write_rows(path: Path, texts: dict[str, list], images: Dataset | None, files: ImageFiles = EMBEDDED) -> None:
    """Writes one parquet file whole or not at all; files that images lie in are copied into it byte by byte.

    Args:
        files: that the cells of `images` may name: a foreign data set could name any file of this machine.

    Raises:
        UserError: if an image's file is missing, no image, or none of `files`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, embedded = path.with_name(f".partial-{path.name}"), path.with_name(f".partial-{path.stem}")
    shutil.rmtree(embedded, ignore_errors=True)  # of a killed run
    features = features_of(texts)
    rows = Dataset.from_dict(texts, features=features)
    if images is not None and not len(rows):  # `map` would lose the column of no images
        rows = Dataset.from_dict({"image": [], **texts}, features=Features({"image": Image(), **features}))
    elif images is not None:
        embedded.mkdir()
        try:
            images = images.map(
                lambda cell, row: {"image": with_content(cell, texts["key"][row], files)},
                input_columns="image",
                with_indices=True,
                writer_batch_size=WRITE_BATCH,
                features=Features({"image": Image(decode=False)}),
                cache_file_name=str(embedded / "images.arrow"),
                load_from_cache_file=False,
            )
        except BadRow as error:
            raise UserError(
                f"an image of the data set is missing or none ({error}); restore it or leave its row out: no answer that came "
                "is lost"
            ) from error
        rows = datasets.concatenate_datasets([images.cast_column("image", Image()), rows], axis=1)
    rows.to_parquet(partial, batch_size=WRITE_BATCH if images is not None else None)
    del rows, images  # the latter maps the file that goes
    shutil.rmtree(embedded, ignore_errors=True)
    publish_file(partial, path)


def features_of(columns: Iterable[str]) -> Features:
    """Of the columns of texts that a set has."""
    columns = set(columns)
    return Features(
        {
            name: kind
            for name, kind in (TEXT_FEATURES | VERDICT_FEATURES).items()
            if name in columns or name in TEXT_FEATURES
        }
    )


def contents(source: Source, numbers: Sequence[int]) -> Iterator[bytes]:
    """What rows are divided by: the content of their images, or else their captions."""
    if source.image_column is None:
        for caption in source.rows.select_columns([source.caption_column]).select(numbers)[source.caption_column]:
            yield " ".join(folded(caption)).encode("utf-8", "surrogatepass")
        return
    for number, cell in zip(numbers, source.images(numbers)["image"], strict=True):
        content = with_content(cell, source.key(number), source.files)
        yield (content or {}).get("bytes") or b""


def write_splits(
    files: dict[str, Path], source: Source, kept: list[tuple[Result, str]], verifier: str | None, shares: Shares
) -> None:
    """Writes one file for each split that has rows, and always that of `train`.

    Args:
        files: by split.
        kept, verifier: see [`write_shard`].
    """
    parts: dict[str, list[tuple[Result, str]]] = {split: [] for split in files}
    if shares.validation or shares.test:
        for one, content in zip(kept, contents(source, [result.row for result, _ in kept]), strict=True):
            parts[shares.split_of(content)].append(one)
    else:
        parts["train"] = kept
    for split, path in files.items():
        if parts[split] or split == "train":
            write_shard(path, source, parts[split], verifier)
        else:
            path.unlink(missing_ok=True)


def write_shard(path: Path, source: Source, kept: list[tuple[Result, str]], verifier: str | None = None) -> None:
    """Writes the results that have mismatched prompts, each with the name of its editor.

    Args:
        verifier: name of the model that judged them; without one there are no columns of verdicts.
    """
    results = [result for result, _ in kept]
    numbers = [result.row for result in results]
    prompts = source.rows.select_columns([source.caption_column]).select(numbers)[source.caption_column]
    texts = {
        "key": source.keys(numbers),
        "prompt": list(prompts),
        "negative_prompts": [result.negative_prompts for result in results],
        "principles": [result.principles for result in results],
        "num_edits": [result.num_edits for result in results],
        "editor": [editor for _, editor in kept],
    }
    if verifier is not None:
        texts["verdicts"] = [result.verdicts for result in results]
        texts["prompt_verdict"] = [result.prompt_verdict for result in results]
        texts["verifier"] = [verifier] * len(results)
    write_rows(path, texts, source.images(numbers) if source.image_column else None, source.files)


def shard_files(folder: Path) -> list[Path]:
    """The files of rows, those of `train` first."""
    return [path for split in SPLITS for path in sorted((Path(folder) / "data").glob(f"{split}-*.parquet"))]


def sizes_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Rows and bytes of every split that there is."""
    sizes: dict[str, tuple[int, int]] = {}
    for path in shard_files(folder):
        split = path.name.partition("-")[0]
        rows, size = sizes.get(split, (0, 0))
        sizes[split] = rows + ParquetFile(path).metadata.num_rows, size + path.stat().st_size
    return sizes


def stream_built(folder: Path) -> IterableDataset:
    """The finished rows with their images, read from the shards as they are asked for."""
    files = [glob.escape(str(path)) for path in shard_files(folder)]
    return datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)


def stream_texts(folder: Path) -> Iterator[dict]:
    """The texts of all finished rows, one after the other, in flat memory."""
    for path in shard_files(folder):
        file = ParquetFile(path)
        for batch in file.iter_batches(1000, columns=list(features_of(file.schema_arrow.names))):
            yield from batch.to_pylist()


def _problem(row: dict) -> str | None:
    """What a row lacks that [`build`] writes."""
    lists = [row["negative_prompts"], row["principles"], row["num_edits"]]
    if not all(isinstance(row[name], str) for name in ("key", "prompt", "editor")):
        return "no key, prompt or editor"
    if not all(lists) or any(value is None for values in lists for value in values):
        return "no negative_prompts, principles or num_edits"
    return "lists of different lengths" if len(set(map(len, lists))) > 1 else None


def checked_texts(rows: Dataset, name: str) -> Dataset:
    """The texts of a set of mismatched prompts.

    Raises:
        UserError: with `name`, if it is none that [`build`] has written.
    """
    features = features_of(rows.column_names)
    try:
        rows = rows.select_columns(list(features)).cast(features)
    except (ValueError, TypeError, pa.ArrowNotImplementedError) as error:  # a foreign set
        there = f"it needs {', '.join(TEXT_FEATURES)} as build_negatives.py writes them"
        raise UserError(f"{name} is no set of mismatched prompts: {there} ({reason(error)})") from error
    for number, row in enumerate(rows):
        if problem := _problem(row):
            raise UserError(f"{name} is no set of mismatched prompts: row {number} has {problem}")
    return rows


def join_images(
    negatives: Dataset,
    images: Dataset,
    image_column: str,
    key_column: str,
    folder: Path,
    rows_per_shard: int,
    files: ImageFiles = EMBEDDED,
) -> tuple[int, int]:
    """Writes the rows of a caption-only set of mismatched prompts together with their images.

    Args:
        negatives: with the columns that [`build`] writes.
        images: with a column that names its rows as the column `key` of `negatives` does.
        folder: receives `data/train-*.parquet`.
        files: that the cells of `images` may name.

    Returns:
        How many rows were written, and how many were left out since no image has their key.

    Raises:
        UserError: if a column is missing, two images have one key, or no key fits.
    """
    for rows, column, flag in ((negatives, "key", "dataset_name"), (images, key_column, "key_column")):
        if column not in rows.column_names:
            raise UserError(f"--{flag} has no column {column!r}; it has {', '.join(rows.column_names)}")
    negatives = checked_texts(negatives, "--dataset_name")
    if image_column not in images.column_names:
        there = ", ".join(images.column_names)
        raise UserError(f"--image_column {image_column!r} is not a column of --join_images; it has {there}")
    if shard_files(folder):
        raise UserError(f"--output_dir {str(folder)!r} holds a data set already; join into another one")
    places: dict[str, int] = {}
    for place, key in enumerate(images.select_columns([key_column])[key_column]):
        if places.setdefault(str(key), place) != place:
            raise UserError(
                f"--key_column {key_column!r} must name each image once, and {key!r} names two; remove one"
            )
    keys = negatives.select_columns(["key"])["key"]
    found = [number for number, key in enumerate(keys) if key in places]
    if not found:
        raise UserError(
            f"no key of --dataset_name is in --key_column {key_column!r} of --join_images; see whether both name rows alike"
        )
    shards = -(-len(found) // rows_per_shard)
    for shard in range(shards):
        part = negatives.select(found[shard * rows_per_shard : (shard + 1) * rows_per_shard])
        texts = {name: list(part[name]) for name in part.column_names}
        chosen = images.select([places[key] for key in texts["key"]])
        path = Path(folder) / "data" / f"train-{shard:05d}-of-{shards:05d}.parquet"
        write_rows(path, texts, stored_images(chosen, image_column), files)
    return len(found), len(negatives) - len(found)
