"""Blocks of a datatrove pipeline that edits captions, for one machine, a Slurm cluster or Ray. Knows no executor.

datatrove gives each task its files and marks finished tasks; a task that was killed starts again and reads its journals first.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from filelock import FileLock, Timeout
from pyarrow import ArrowInvalid
from pyarrow.parquet import ParquetFile

from ..chat import Endpoint
from ..errors import UserError, reason, require
from ..files import write_whole
from ..privacy import short_name
from .build import begin, only_run
from .chat import ChatEditor
from .dataset import shard_files, write_rows
from .editors import Editor
from .journal import Journal
from .passes import Guarded, work_through
from .tally import JUDGE, Tally
from .work import Plan, Result


os.environ["LOGURU_DIAGNOSE"] = "NO"  # or tracebacks in datatrove's logs show the values of variables, the API key too
if TYPE_CHECKING:
    from datatrove.data import Document
    from datatrove.pipeline.base import PipelineStep
else:
    PipelineStep = require("datatrove.pipeline.base", extra="scale").PipelineStep
    Document = require("datatrove.data", extra="scale").Document
readers = require("datatrove.pipeline.readers", extra="scale")
get_datafolder = require("datatrove.io", extra="scale").get_datafolder
logger = require("datatrove.utils.logging", extra="scale").logger

FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".jsonl.zst": "jsonl"}
LISTS = ("negative_prompts", "principles", "num_edits")
SAMPLED_FILES = 50
SHARD = re.compile(r"train-(\d{5,})-\d{5,}\.parquet")


def as_document(
    caption_column: str, key_column: str | None, reader: object, row: dict, path: str, number: int
) -> dict:
    """Names a row by its key, or else by its place, and keeps rows without a caption, which a reader would drop."""
    caption = row.get(caption_column)
    if not isinstance(caption, str | None):
        raise UserError(
            f"--caption_column {caption_column!r} must hold strings, not {caption!r} as row {number} of {path}"
        )
    key = f"{path}/{number}" if key_column is None else row.get(key_column)
    if key is None:
        raise UserError(f"--key_column {key_column!r} must name every row, row {number} of {path} has none")
    return {"text": caption or " ", "id": str(key), "metadata": {}}


class CaptionFiles:
    """Files of captions in one folder, in a fixed order: task `rank` of `tasks` reads files `[rank::tasks]`.

    Args:
        folder: local, or a URL that fsspec knows, such as `hf://datasets/your-name/captions/data`.
        caption_column: column of the captions.
        key_column: column whose values name the rows in the result; file and place of the row if `None`.
        glob_pattern: only files that match it, relative to the folder.

    Raises:
        UserError: if there are no files of one format, or a column is missing.
    """

    def __init__(
        self, folder: str, caption_column: str, key_column: str | None = None, glob_pattern: str | None = None
    ):
        self.folder, self.columns = folder, (caption_column, key_column)
        try:
            files = get_datafolder(folder)
            there = files.list_files(glob_pattern=glob_pattern)
            self.paths = [path for path in there if path.endswith(tuple(FORMATS))]
            self.sizes = files.fs.sizes(files.resolve_paths(self.paths))
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"--input {folder!r} cannot be read ({reason(error)})") from error
        formats = {kind for end, kind in FORMATS.items() if any(path.endswith(end) for path in self.paths)}
        if len(formats) != 1:
            raise UserError(
                f"--input must be a folder with files of one format, parquet or jsonl, and {folder!r} has "
                f"{' and '.join(sorted(formats)) or 'neither'}"
            )
        self.format = formats.pop()
        columns = self._first_columns()
        for flag, column in zip(("caption_column", "key_column"), self.columns, strict=True):
            if column is not None and column not in columns:
                raise UserError(f"--{flag} {column!r} is not a column of input; it has {', '.join(columns)}")

    def _first_columns(self) -> list[str]:
        path = next((path for path, size in zip(self.paths, self.sizes, strict=True) if size), self.paths[0])
        try:
            if self.format == "parquet":
                with get_datafolder(self.folder).open(path, "rb") as file:
                    return ParquetFile(file).schema_arrow.names
            with get_datafolder(self.folder).open(path, "rt", compression="infer") as file:
                return list(map(str, json.loads(file.readline())))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"the file {path!r} of input cannot be read ({reason(error)})") from error

    def reader(self, paths_file: Path | None = None) -> Any:
        """The first block of a pipeline; `paths_file` keeps the list of files, should the folder change meanwhile."""
        caption, key = self.columns
        options = {"adapter": partial(as_document, caption, key), "text_key": caption, "id_key": key or caption}
        options["paths_file"] = None if paths_file is None else str(paths_file)
        if self.format == "jsonl":
            require("orjson", extra="scale")
            return readers.JsonlReader(self.folder, **options)
        return readers.ParquetReader(self.folder, read_metadata=False, **options)  # no other columns, such as images

    def sample(self, size: int) -> list[str]:
        """Captions from the starts of files at even distances.

        Raises:
            UserError: if there are none, or they are no strings.
        """
        chosen = self.paths[:: -(-len(self.paths) // SAMPLED_FILES)]
        reader, each = self.reader(), -(-size // len(chosen))
        try:
            found = [document.text for path in chosen for document in islice(reader.read_file(path), each)]
        except (OSError, ArrowInvalid, UnicodeDecodeError) as error:
            raise UserError(f"--input {self.folder!r} cannot be read ({reason(error)})") from error
        if not found:
            raise UserError(f"--input {self.folder!r} holds no rows; give files that do")
        return found

    def begin(self, folder: Path, identity: dict, tasks: int) -> Path:
        """Fixes what a folder is built from, or checks that a run goes on with the same.

        Args:
            identity: whatever decides what the result is, beside the files.

        Returns:
            The list of files for [`reader`].

        Raises:
            UserError: if a run with another configuration, other files or another number of tasks began there, or files that
                no run wrote are there.
        """
        folder = Path(folder)
        files = sha256(json.dumps([self.paths, self.sizes]).encode()).hexdigest()[:16]  # enough to notice other ones
        list_of_files = folder / "work" / "files.txt"
        with only_run(folder):
            begin(folder, identity | {"files": files, "tasks": tasks}, lambda name: is_shard(name, tasks))
            write_whole(list_of_files, "".join(f"{path}\n" for path in self.paths))
        return list_of_files


def fingerprint(captions: list[str]) -> str:
    """Names captions by what they are."""
    return sha256(json.dumps(captions).encode()).hexdigest()[:16]


def is_shard(name: str, tasks: int) -> bool:
    """Whether one of so many tasks writes a file of this name; see [`ParquetShards`]."""
    found = SHARD.fullmatch(name)
    return found is not None and int(found[1]) < tasks


def chat_editor(model: str, base_urls: tuple[str, ...], api_key_env: str | None = None, **settings: Any) -> ChatEditor:
    """Makes a [`ChatEditor`] where the task runs. A pipeline is stored with what it is made from, so the key is no argument.

    Args:
        api_key_env: environment variable that holds the key where the task runs.
        settings: the other arguments of [`ChatEditor`].

    Raises:
        UserError: if there is no such variable, or a base URL is none or holds a password.
    """
    if any(Endpoint.of(url).login for url in base_urls):  # the pipeline is stored with them
        raise UserError("--base_url must hold no password; it goes into the environment variable of --api_key_env")
    if api_key_env is not None and api_key_env not in os.environ:
        raise UserError(f"--api_key_env {api_key_env!r} is no environment variable; set it to the endpoints' key")
    editor = ChatEditor(model, base_urls, os.environ[api_key_env] if api_key_env else None, **settings)
    editor.name = short_name(model)
    return editor


def row_number(key: str) -> int:
    """A number that depends on the key alone: so does what is drawn for a caption, whichever task works on it."""
    return int.from_bytes(sha256(key.encode("utf-8", "surrogatepass")).digest()[:5], "big")


def numbered(documents: Iterable[Document]) -> dict[int, Document]:
    """Documents by their numbers; one whose key came before takes the next free number."""
    rows: dict[int, Document] = {}
    for document in documents:
        number = row_number(document.id)
        rows[next(free for free in count(number) if free not in rows)] = document
    return rows


def blocks(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    documents = iter(documents)
    while block := list(islice(documents, size)):
        yield block


class MismatchedPrompts(PipelineStep):
    """Adds mismatched prompts to documents whose `text` is a caption and whose `id` is its key.

    Yields the documents that have some, with the columns of the data set in `metadata`. The others are listed in
    `failed/<rank>.jsonl`, which is written when the task is done.

    Args:
        make_editor: makes the editor where the task runs; it is pickled and written to logs, so it must hold no secret.
        folder: receives `work/` and `failed/`; all workers must see it.
        block_size: captions in one journal; a run that goes on must keep it.
    """

    name, type = "Mismatched prompts", "✏️ - EDITOR"

    def __init__(self, make_editor: Callable[[], Editor], plan: Plan, folder: str, block_size: int = 1000):
        super().__init__()
        self.make_editor, self.plan, self.folder, self.block_size = make_editor, plan, str(folder), block_size

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        work, failed = Path(self.folder) / "work" / f"{rank:05d}", []
        work.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(work / "lock", timeout=0):
                editor = Guarded(self.make_editor())
                for number, block in enumerate(blocks(data, self.block_size)):
                    rows = numbered(block)
                    captions = {row: document.text for row, document in rows.items()}
                    with self.track_time("block"), Journal(work / f"{number:05d}.journal.jsonl", captions) as journal:
                        results, tally = work_through(captions, editor, self.plan, journal)
                    self._count(number, tally)
                    failed += [_failed(result, rows[result.row]) for result in results if result.reason is not None]
                    for result in results:
                        if result.reason is None:
                            yield _filled(rows[result.row], result, editor.name)
                self._write_failed(rank, failed)
        except Timeout as error:
            raise UserError(
                f"--output_dir {self.folder!r}: another process works on task {rank}; wait for it"
            ) from error

    def _write_failed(self, rank: int, failed: list[dict]) -> None:
        path = Path(self.folder) / "failed" / f"{rank:05d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in failed))

    def _count(self, number: int, tally: Tally) -> None:
        numbers = {name: value for name, value in vars(tally).items() if isinstance(value, int | float)}
        counts = {name: value for name, value in numbers.items() if name not in JUDGE}  # no judge is asked here
        for name, value in counts.items():
            self.stat_update(name, value=value, unit="block")
        logger.info(f"block {number}: " + ", ".join(f"{value} {name}" for name, value in counts.items()))


def _filled(document: Document, result: Result, editor: str) -> Document:
    document.metadata |= {column: getattr(result, column) for column in LISTS} | {"editor": editor}
    return document


def _failed(result: Result, document: Document) -> dict:
    row = {"row": result.row, "key": document.id, "prompt": document.text.strip(), "reason": result.reason}
    return row | {"unanswered": result.unanswered}


class ParquetShards(PipelineStep):
    """Writes `data/train-<rank>-<number>.parquet` with the columns that `build_negatives.py` writes.

    Unlike datatrove's own writer it writes each file whole or not at all: what a killed task leaves can be read.

    Args:
        folder: local, or shared by all workers.
        rows_per_shard: rows in one file, fewer in a task's last one; a run that goes on must keep it.
    """

    name, type = "Parquet shards", "💽 - WRITER"

    def __init__(self, folder: str, rows_per_shard: int = 10_000):
        super().__init__()
        self.folder, self.rows_per_shard = str(folder), rows_per_shard

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        datasets.disable_progress_bars()
        for number, batch in enumerate(blocks(data, self.rows_per_shard)):
            texts = {"key": [document.id for document in batch], "prompt": [document.text for document in batch]}
            for column in (*LISTS, "editor"):
                texts[column] = [document.metadata[column] for document in batch]
            with self.track_time("file"):
                write_rows(Path(self.folder) / "data" / f"train-{rank:05d}-{number:05d}.parquet", texts, images=None)
            self.stat_update("rows", value=len(batch), unit="file")
            yield from batch


def read_failed(folder: Path) -> Iterator[tuple[int, dict]]:
    """The rows that were set aside by finished tasks, each with the number of its task."""
    for path in sorted((Path(folder) / "failed").glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    yield int(path.stem), {"key": row["key"], "unanswered": row["unanswered"]} | row
                except (ValueError, LookupError, TypeError, RecursionError) as error:
                    raise UserError(
                        f"line {number} of {str(path)!r} is damaged ({reason(error)}); delete the file and the mark "
                        f"completions/{path.stem} of its task, which is then done again"
                    ) from error


def count_rows(folder: Path) -> tuple[int, int]:
    """How many rows were written, and how many were set aside."""
    written = sum(ParquetFile(path).metadata.num_rows for path in shard_files(folder))
    return written, sum(1 for _ in read_failed(folder))


def reopen_unanswered(folder: Path, logging_dir: str) -> None:
    """Lets datatrove do the tasks again that have rows without an answer."""
    completed = get_datafolder(logging_dir)
    for rank in {rank for rank, row in read_failed(folder) if row["unanswered"]}:
        if completed.isfile(f"completions/{rank:05d}"):
            completed.rm(f"completions/{rank:05d}")
