"""Prompts to judge models on: published sets by name, or a user's own file or data set. Knows nothing of models or scores."""

import functools
import glob
import json
import logging
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import hf_hub_download

from ..data.rows import load_rows
from ..errors import UserError
from ..shapes.world import held_out_captions


logger = logging.getLogger(__name__)

PROMPT_COLUMNS = ("prompt", "caption", "text", "Prompt")
CSV = {"keep_default_na": False}  # "None" and "null" are prompts
TABLES: dict[str, tuple[str, dict[str, Any]]] = {  # suffix -> loader of `datasets` and its options
    ".csv": ("csv", CSV),
    ".tsv": ("csv", CSV | {"sep": "\t", "quoting": 3}),  # quotation marks are part of a prompt
    ".parquet": ("parquet", {}),
}
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # no tokenizer takes it
SUFFIXES = (".txt", ".json", ".jsonl", *TABLES)


@dataclass(frozen=True)
class Prompt:
    """A prompt and its category, "" where its set has none."""

    text: str
    category: str = ""


@dataclass(frozen=True)
class PromptSet:
    """Where a published set lies on the Hub.

    Args:
        repo: id of the data set.
        revision: the commit that is read, so that a set stays the same set.
        files: names of its files, each with the category of all its prompts or `None` where a column tells. Without files,
            the parquet files of the split `train` are streamed, and only the two columns are fetched.
        prompt_column: the column of prompts.
        category_column: the column of categories, if there is one.
    """

    repo: str
    revision: str
    files: tuple[tuple[str, str | None], ...] = ()
    prompt_column: str = "prompt"
    category_column: str | None = None


NUM_SHAPES = 512  # captions of the embedded world, unless told otherwise


def held_out_prompts(num_prompts: int | None = None, seed: int = 0) -> list[Prompt]:
    """Captions of the embedded world that its training never shows, see [`held_out_captions`]."""
    number = NUM_SHAPES if num_prompts is None else num_prompts
    return [Prompt(text, category) for text, category in held_out_captions(number, seed)]


# Checked against public pages and code, without access to the Hub itself. Not checked: that these commits can still be
# downloaded; `revision` names another one.
PROMPT_SETS: dict[str, PromptSet | Callable] = {
    # PartiPrompts: 1632 prompts in 12 categories. Columns and numbers were read from the file of google-research/parti, whose
    # size is that of the file on the Hub; the other grouping is the column Challenge.
    "parti": PromptSet(
        "nateraw/parti-prompts",
        "944b156abfdad7627c3221b5ec4f6a6fb060a197",
        (("PartiPrompts.tsv", None),),
        "Prompt",
        "Category",
    ),
    # HPSv2 benchmark: four lists of 800 strings, one for each style. Sizes and hashes of the four files at this commit
    # stand in public evaluation code; not checked is how many of the 3200 prompts are repeated.
    "hpsv2": PromptSet(
        "zhwang/HPDv2",
        "b9517430f34b1080d4f741118d2a440155a165cd",
        tuple((f"benchmark/{style}.json", style) for style in ("anime", "concept-art", "paintings", "photo")),
        "text",
    ),
    # Pick-a-Pic v1, the 500 prompts of the split test_unique, some of them not safe for work. The data sets of its authors
    # (yuvalkirstain/pickapic_v1, _v2 and those without images) are reported gone from the Hub, so this is a copy of the prompts
    # by others: lines with `id` and `prompt`, all different. That they are the original 500 is the copy's own word.
    "pickapic": PromptSet(
        "Jialuo21/pickapic-test", "c45a875adf0fe5f2896e46bbef2124f4953dcaa6", (("test.jsonl", None),)
    ),
    # Open image preferences: pairs of images in about 2 GB of parquet. The columns stand in the notebook that wrote it
    # (huggingface/data-is-better-together); its other groupings are the columns sub_category and evolution.
    "open_image_preferences": PromptSet(
        "data-is-better-together/open-image-preferences-v1-binarized",
        "421d9b4e11f22d576a15c14e38aaa4687748023f",
        category_column="category",
    ),
    # Captions of the embedded world that its training never shows: a function of (num_prompts, seed).
    "shapes": held_out_prompts,
}


@dataclass(frozen=True)
class _Request:
    """What a user asked for, apart from the number of prompts."""

    source: str
    prompt_column: str | None
    category_column: str | None
    config: str | None
    split: str | None
    revision: str | None
    cache_dir: str | None
    token: str | None

    def refuse(self, kind: str, *names: str) -> None:
        """Raises [`UserError`] if one of the named options was given, which means nothing for this kind of source."""
        given = [name for name in names if getattr(self, name) is not None]
        if given:
            raise UserError(f"prompts {self.source!r} is {kind}, which takes no {', '.join(given)}; leave it out")

    def columns(self, rows: datasets.IterableDataset, prompt: str | None, category: str | None) -> tuple:
        """The columns of prompts and categories: those asked for, else those given here, else a usual name."""
        present = list(rows.column_names or next(iter(rows), ()))
        prompt = self.prompt_column or prompt or next((name for name in PROMPT_COLUMNS if name in present), None)
        category = self.category_column or category
        if not present:
            raise UserError(f"prompts {self.source!r} holds no rows; give a file or data set that does")
        if prompt is None:
            there = f"name its prompt_column, one of {', '.join(present)}"
            raise UserError(f"prompts {self.source!r} has no column named {', '.join(PROMPT_COLUMNS)}; {there}")
        for flag, column in {"prompt_column": prompt, "category_column": category}.items():
            if column is not None and column not in present:
                there = ", ".join(present)
                raise UserError(f"{flag} {column!r} is not a column of prompts {self.source!r}, which has {there}")
        return prompt, category


Cell = tuple[object, object]  # a prompt and its category as they stand in a row


def _cells(rows: datasets.IterableDataset, prompt: str, category: str | None) -> Iterator[Cell]:
    """Reads two columns, so that the images of a row are not decoded."""
    for row in rows.select_columns(list(dict.fromkeys([prompt, category or prompt]))):
        yield row[prompt], row[category] if category else ""


def _stream_json(path: Path) -> datasets.IterableDataset:
    """Reads a JSON list or JSON lines; a value that is no object becomes the column `text`.

    The loader of `datasets` puts quotation marks around the strings of a list with a null in it.
    """
    text = path.read_text(encoding="utf-8-sig")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        values = [json.loads(line) for line in text.split("\n") if line.strip()]
    values = values if isinstance(values, list) else [values]
    rows = [value if isinstance(value, dict) else {"text": value} for value in values]
    names = dict.fromkeys(name for row in rows for name in row)
    return datasets.IterableDataset.from_generator(lambda: ({name: row.get(name) for name in names} for row in rows))


def _stream_file(path: Path) -> datasets.IterableDataset:
    if not path.stat().st_size:
        raise ValueError("it is empty")
    if path.suffix.lower() not in TABLES:
        return _stream_json(path)
    loader, options = TABLES[path.suffix.lower()]
    name = glob.escape(str(path))
    return datasets.load_dataset(loader, data_files=name, split="train", streaming=True, **options)


def _read_set(request: _Request, entry: PromptSet) -> Iterator[Cell]:
    request.refuse("a named set", "config", "split")
    source: dict[str, Any] = {
        "revision": request.revision or entry.revision,
        "cache_dir": request.cache_dir,
        "token": request.token,
    }
    for name, category in entry.files:
        rows = _stream_file(Path(hf_hub_download(entry.repo, name, repo_type="dataset", **source)))
        cells = _cells(rows, *request.columns(rows, entry.prompt_column, entry.category_column))
        own = category is not None and request.category_column is None
        yield from ((text, category) for text, _ in cells) if own else cells
    if not entry.files:
        stream = functools.partial(datasets.load_dataset, entry.repo, split="train", streaming=True, **source)
        columns = request.columns(stream(), entry.prompt_column, entry.category_column)
        yield from _cells(stream(columns=[column for column in columns if column is not None]), *columns)


def _read_file(request: _Request, path: Path) -> Iterator[Cell]:
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        raise UserError(f"prompts {request.source!r} must be an existing file that ends in {', '.join(SUFFIXES)}")
    request.refuse("a file", "config", "split", "revision")
    if path.suffix.lower() != ".txt":
        rows = _stream_file(path)
        yield from _cells(rows, *request.columns(rows, None, None))
        return
    request.refuse("a text file of one prompt a line", "prompt_column", "category_column")
    yield from ((line, "") for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip())


def _read_dataset(request: _Request) -> Iterator[Cell]:
    split = request.split or "train"
    try:
        rows = load_rows(
            request.source,
            request.config,
            split,
            request.revision,
            streaming=True,
            cache_dir=request.cache_dir,
            token=request.token,
        )
    except UserError as error:
        reason = "it holds no rows" if isinstance(error.__cause__, IndexError) else _reason(error.__cause__ or error)
        raise UserError(
            f"prompts {request.source!r} with split {split!r} cannot be loaded ({reason}); give one of "
            f"{', '.join(PROMPT_SETS)}, a file that ends in {', '.join(SUFFIXES)}, or a data set that has this split"
        ) from error
    yield from _cells(rows, *request.columns(rows, None, None))


def _reason(error: BaseException) -> str:
    """The first line of an error as part of a sentence."""
    if isinstance(error, KeyError):
        return f"there is no {error}"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not encoded in UTF-8: {error}"
    return (str(error).strip() or type(error).__name__).splitlines()[0].replace(". ", "; ").rstrip(".")


def _read(request: _Request) -> Iterator[Cell]:
    """Reads prompts and categories from wherever they are, and turns whatever goes wrong into one sentence."""
    source, entry, path = request.source, PROMPT_SETS.get(request.source), Path(request.source)
    advice = "check the file or data set"
    try:
        if isinstance(entry, PromptSet):
            advice = f"check the connection to {entry.repo}, or give a file of prompts"
            yield from _read_set(request, entry)
        elif path.is_file() or (path.suffix.lower() in SUFFIXES and not path.is_dir()):
            yield from _read_file(request, path)
        else:
            yield from _read_dataset(request)
    except UserError:
        raise
    except Exception as error:  # parsers and the network raise many kinds; each means that the prompts cannot be had
        raise UserError(f"prompts {source!r} cannot be loaded ({_reason(error)}); {advice}") from error


def _clean(source: str, cells: Iterable[Cell]) -> list[Prompt]:
    """Strips prompts, leaves out what is no text and keeps every prompt once, with its first category."""
    kept: dict[str, str] = {}
    number = left_out = 0
    for text, category in cells:
        number += 1
        text = text.strip() if isinstance(text, str) and not LONE_SURROGATE.search(text) else ""
        if text:
            kept.setdefault(text, "" if category is None else str(category).strip())
        else:
            left_out += 1
    if not kept:
        raise UserError(f"prompts {source!r} holds no prompt in {number} rows; give a source or a column that does")
    if left_out:
        logger.warning("prompts %r: %d of %d rows hold no text and are left out", source, left_out, number)
    return [Prompt(text, category) for text, category in kept.items()]


def load_prompts(
    source: str,
    prompt_column: str | None = None,
    category_column: str | None = None,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    num_prompts: int | None = None,
    seed: int = 0,
    cache_dir: str | None = None,
    token: str | None = None,
) -> list[Prompt]:
    """Loads the prompts that models are judged on, each once and in the order of their source.

    Args:
        source: a name of `PROMPT_SETS`; a text file with one prompt a line; a file of CSV, tab-separated values without
            quoting, JSON, JSON lines or parquet; a folder; or the id of a data set on the Hub. A name wins over a file or folder
            that is called the same.
        prompt_column: the column of prompts, by default the first of `PROMPT_COLUMNS` that exists.
        category_column: the column of categories, by default none but that of a named set.
        config: configuration of a data set.
        split: split of a data set, by default `train`.
        revision: commit, branch or tag of a data set, by default `main`, or the commit that a named set is tied to.
        num_prompts: how many to take at random, in their order; all by default, or where there are no more.
        seed: of this choice; of the scenes for `shapes`.

    Raises:
        UserError: if there is no such source, split or column, it cannot be read, or it holds no prompt.
    """
    if num_prompts is not None and num_prompts < 1:
        raise UserError(f"--num_prompts must be at least 1 to take some of --prompts {source!r}, got {num_prompts}")
    request = _Request(source, prompt_column, category_column, config, split, revision, cache_dir, token)
    entry = PROMPT_SETS.get(source)
    if callable(entry):
        request.refuse("made by a function", "prompt_column", "category_column", "config", "split", "revision")
        return entry(num_prompts, seed)
    prompts = _clean(source, _read(request))
    if num_prompts is None or num_prompts >= len(prompts):
        return prompts
    chosen = random.Random(f"prompts/{seed}").sample(range(len(prompts)), num_prompts)
    return [prompts[index] for index in sorted(chosen)]
