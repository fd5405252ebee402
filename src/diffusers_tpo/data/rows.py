"""Loads the rows of a text-preference data set and checks them. Knows nothing of batches or models."""

import glob
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import datasets
from datasets.data_files import sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from ..errors import BadRow, UserError, reason
from ..files import is_missing_path
from ..image_files import is_address
from ..show import shorten
from .folders import CSV, Layout, captions_beside, layout_of, metadata_tables


CAPTIONS = ("prompt", "text", "caption")  # what captions are usually called
EMPTY = "--dataset_name holds no rows in this split; choose another --dataset_split or data set"


@dataclass(frozen=True)
class Columns:
    """Names of the columns; `label` marks unpaired data, `principles` and `row_id` may be missing."""

    image: str = "image"
    prompt: str = "prompt"
    mismatched: str = "negative_prompts"
    principles: str = "principles"
    label: str = "label"

    def used(self, present: list[str], loss_type: str, unpaired: bool) -> list[str]:
        """Which of the columns that are `present` training reads; no other is ever looked at."""
        names = [self.image, self.prompt]
        if unpaired or loss_type == "sft":
            names.append(self.label)
        if not unpaired and loss_type != "sft":
            names += [self.mismatched, self.principles]
        return [name for name in names if name in present]


def files_of_card(folder: Path, config: str | None) -> dict[str, list[str]] | None:
    """The data files by split that the card of a local folder names, `None` where no card does.

    `datasets` must be told: it names its cache by the card alone, and would go on to give the rows of an older data set.
    """
    if not (folder / "README.md").is_file():
        return None
    configs = MetadataConfigs.from_dataset_card_data(DatasetCard.load(folder / "README.md").data)
    name = config or (configs.get_default_config_name() if configs else None)
    if name not in configs:
        return None
    named = sanitize_patterns(configs[name]["data_files"])
    inside = glob.escape(str(folder.absolute()))
    return {split: [f"{inside}/{pattern}" for pattern in patterns] for split, patterns in named.items()}


def load_rows(
    name: str,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    streaming: bool = False,
    cache_dir: str | None = None,
    token: str | None = None,
    argument: str = "dataset_name",
) -> Any:
    """Loads a split from the Hub, a folder of images or tables, or a folder written by `save_to_disk`.

    The images of a folder may have their captions in metadata, or in text files of the same names.

    Raises:
        UserError: if there is no such data set, configuration or split; it names `argument`.
    """
    if is_missing_path(name):
        raise UserError(
            f"--{argument} {name!r} cannot be loaded (there is no such folder or file on this machine); check the path"
        )
    folder = Path(name)
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            loaded = saved_rows(name, split)
            return loaded.to_iterable_dataset() if streaming else loaded
        files = files_of_card(folder, config)
        if files is None and config is None and folder.is_dir() and (layout := layout_of(folder.absolute())):
            return rows_of_folder(layout, split, streaming, cache_dir)
        config = config if files is None else None
        source = {"data_files": files, "revision": revision, "cache_dir": cache_dir, "token": token}
        builder = datasets.load_dataset_builder(name, config, **source)
        if hasattr(builder.config, "keep_default_na"):
            builder = datasets.load_dataset_builder(name, config, **source, **CSV)
        if streaming:
            return builder.as_streaming_dataset(split)
        builder.download_and_prepare()
        return builder.as_dataset(split)
    except UserError:
        raise
    except IndexError as error:  # from `load_from_disk`, where no row was saved
        raise UserError(EMPTY) from error
    except Exception as error:  # parsers and the network raise many kinds; each means that the rows cannot be had
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        raise UserError(
            f"--{argument} {name!r} with split {split!r} cannot be loaded ({reason(cause or error)})"
        ) from error


def saved_rows(name: str, split: str) -> datasets.Dataset:
    loaded = datasets.load_from_disk(name)
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise ValueError(f"it has the splits {', '.join(loaded)}")
        return loaded[split]
    if split not in ("train", str(loaded.split)):
        raise ValueError(f"it was saved without splits, so there is only train, not {split}")
    return loaded


def rows_of_folder(layout: Layout, split: str, streaming: bool, cache_dir: str | None) -> Any:
    """Raises `ValueError` if there is no such split."""
    name, *slicing = split.partition("[")
    if "+" not in split and name not in layout.splits:
        raise ValueError(f"it has the splits {', '.join(layout.splits)}")
    if layout.loader == "imagefolder":
        own = captions_beside(layout, name) or metadata_tables(layout)
        if own is not None:
            if any(slicing):
                (part,) = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(own)})
                own = own.select(range(part.from_ or 0, len(own) if part.to is None else part.to))
            return own.to_iterable_dataset() if streaming else own
    options = CSV | ({"sep": "\t"} if layout.is_tabbed else {}) if layout.loader == "csv" else {}
    source = {"data_files": layout.patterns(), "split": split, "streaming": streaming, "cache_dir": cache_dir}
    return datasets.load_dataset(layout.loader, **source, **options)


def split_columns(columns: dict[str, list]) -> Iterator[dict]:
    """The rows of a batch as `datasets` gives it; to read many at a time costs a fraction of reading each."""
    return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def read_on(rows: Iterable[dict]) -> Iterator[dict]:
    """The rows of a stream.

    Raises:
        UserError: if the stream breaks.
    """
    stream = iter(rows)
    while True:
        try:
            row = next(stream)
        except StopIteration:
            return
        except Exception as error:  # parsers and the network raise many kinds
            raise UserError(f"--dataset_name cannot be read on ({reason(error)}); mend its files") from error
        yield row


def texts_of(rows: datasets.Dataset) -> Iterator[dict]:
    """Rows of texts.

    Raises:
        BadRow: naming a row that holds what is no text in its encoding.
    """
    for number in range(len(rows)):
        try:
            yield rows[number]
        except UnicodeDecodeError as error:
            raise BadRow(f"row {number}: its text is not encoded in UTF-8 ({error})") from error


def holds_images(feature: object) -> bool:
    """Whether a column's cells are images as `datasets` keeps them: decoded on reading, as bytes, or as a path."""
    if isinstance(feature, dict):
        return bool({"bytes", "path"} & set(feature))
    strings = ("string", "large_string", "binary", "large_binary", "null")
    return isinstance(feature, datasets.Image) or (isinstance(feature, datasets.Value) and feature.dtype in strings)


def builder_command(name: str, caption_column: str) -> str:
    """The command that makes mismatched prompts of the captions of a data set.

    Args:
        name: Hub id or folder of the data set.
    """
    target = f"{PurePath(name).name or 'my'}-negatives"
    words = ["diffusers-tpo", "negatives", "--dataset_name", name, "--caption_column", caption_column]
    return shlex.join([*words, "--editor", "rules", "--output_dir", target])


def _first_path(rows: datasets.Dataset, column: str) -> str:
    """What the first cell of a column names, if it is a text or an image that lies elsewhere; else an empty text."""
    rows = rows.select(range(min(1, len(rows)))).select_columns([column]).with_format(None)
    if isinstance(rows.features[column], datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    for row in rows:
        cell = row[column]
        path = cell.get("path") if isinstance(cell, dict) else cell
        return path if isinstance(path, str) else ""
    return ""


def check_columns(
    rows: datasets.Dataset | datasets.IterableDataset,
    columns: Columns,
    loss_type: str,
    name: str = "your-name/captioned-images",
) -> bool:
    """Checks that the columns a loss needs are there.

    Args:
        name: of the data set, for the advice how to make mismatched prompts.

    Returns:
        True if the rows are unpaired: they carry a label instead of mismatched prompts.

    Raises:
        UserError: naming the missing column and those that exist.
    """
    present = list(rows.column_names or next(read_on(rows), ()))
    if not present:
        raise UserError(EMPTY)
    unpaired = loss_type == "tkto" and columns.label in present and columns.mismatched not in present
    needed = {"image_column": columns.image, "caption_column": columns.prompt}
    if loss_type != "sft" and not unpaired:
        if columns.mismatched not in present:
            captions = [columns.prompt, *CAPTIONS]
            caption = next((column for column in captions if column in present), columns.prompt)
            raise UserError(
                f"--negative_prompts_column {columns.mismatched!r} is not a column of the data set; it has {', '.join(present)}. "
                f"Make mismatched prompts of its captions first: {builder_command(name, caption)}"
            )
        needed["negative_prompts_column"] = columns.mismatched
    for flag, column in needed.items():
        if column not in present:
            raise UserError(f"--{flag} {column!r} is not a column of the data set; it has {', '.join(present)}")
    if len(set(needed.values())) < len(needed):
        raise UserError(f"--{', --'.join(needed)} must be different columns, got {', '.join(needed.values())}")
    if isinstance(rows, datasets.Dataset) and is_address(_first_path(rows, columns.image)):
        raise UserError(
            f"--image_column {columns.image!r} holds addresses of images, which are not downloaded; download them first, as "
            "img2dataset does, and give a folder of images"
        )
    feature = (rows.features or {}).get(columns.image)
    if feature is not None and not holds_images(feature):
        raise UserError(
            f"--image_column {columns.image!r} holds no images but {shorten(str(feature), 100)}; name another column"
        )
    return unpaired
