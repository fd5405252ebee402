"""What every card needs, and the cards of data sets. Knows nothing of models or losses."""

import importlib.metadata
import json
import platform
import re
import shlex
from pathlib import Path

from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from .show import harmless


PACKAGES = ("diffusers_tpo", "diffusers", "transformers", "accelerate", "datasets", "peft", "torch")
SOURCES = {
    "pretrained_model_name_or_path": "model",
    "pretrained_vae_model_name_or_path": "model",
    "dataset_name": "data set",
    "train_data_dir": "data set",
    "bnb_quantization_config_path": "configuration",
}


def public_name(name: str, what: str) -> str:
    """A Hub id as it is; a local path becomes "a local `what`", so that a card never shows a user's folders."""
    return (
        f"a local {what}" if Path(name).exists() or name.count("/") > 1 or name.startswith((".", "/", "~")) else name
    )


def short_name(name: str) -> str:
    """A Hub id as it is; of a local path only its last part."""
    return name if public_name(name, "") == name else Path(name).name


def public_command(argv: list[str], secrets: tuple[str | None, ...] = ()) -> str:
    """A command line without `secrets`, and with only the last part of every absolute, home or upward path."""
    words = [Path(argv[0]).name]
    for word in argv[1:]:
        for secret in filter(None, secrets):
            word = word.replace(secret, "***")
        *names, value = word.split("=")
        is_private = value.startswith(("/", "~")) or ".." in Path(value).parts
        words.append("=".join([*names, Path(value).name if is_private else value]))
    return shlex.join(words)


def public_config(*groups: dict) -> dict[str, object]:
    """Joins groups of arguments into one dictionary without unset values and without local paths."""
    joined = {name: value for group in groups for name, value in group.items()}
    joined = {
        name: value for name, value in joined.items() if value is not None and value is not False and value != []
    }
    return {name: public_name(value, SOURCES[name]) if name in SOURCES else value for name, value in joined.items()}


def versions() -> str:
    """Python and the packages that this project stands on."""
    packages = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return ", ".join([f"Python {platform.python_version()}", *packages])


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows."""
    for bound, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if rows < bound:
            return name
    return "1M<n<10M" if rows < 10**7 else "10M<n<100M"


def dataset_card_data(features: Features, rows: int, size: int, license: str, language: str | None) -> DatasetCardData:
    """The front matter of a data set that lies in `data/train-*.parquet`: what the Hub and `load_dataset` read.

    Args:
        size: bytes of the parquet files.
    """
    card_data = DatasetCardData(
        license=license,
        language=[language] if language else None,
        task_categories=["text-to-image"],
        size_categories=[size_category(rows)],
        tags=["text-preference-optimization", "preference", "diffusers"],
    )
    files = [{"split": "train", "path": "data/train-*"}]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(card_data)
    splits = SplitDict({"train": SplitInfo("train", num_bytes=size, num_examples=rows)})
    info = DatasetInfo(features=features, splits=splits, download_size=size, dataset_size=size)
    DatasetInfosDict({"default": info}).to_dataset_card_data(card_data)
    return card_data


def write_dataset_card(
    path: Path,
    repo: str,
    card_data: DatasetCardData,
    rows: int,
    example: dict,
    settings: dict[str, object],
    principles: list,
    audit: str,
    warnings: list[str],
    **texts: object,
) -> Path:
    """Writes the card of a data set of mismatched prompts.

    Args:
        path: the file, `README.md` in the data set's folder.
        repo: the Hub id that the data set is or would be pushed to.
        card_data: from [`dataset_card_data`].
        example: one row without its image.
        settings: what the set was built with, by name, see [`public_config`].
        principles: those used, with `name`, `definition` and `examples`.
        audit: Markdown tables of the audit's figures.
        texts: `source`, `editor`, `editor_text`, `editor_limits`, `key_meaning` and the flags `with_image`, `with_failed`.
    """
    card = DatasetCard.from_template(
        card_data,
        template_path=str(Path(__file__).parent / "templates" / "dataset_card.md"),
        title=repo.split("/")[-1],
        repo=repo,
        captions=f"{rows:,}",
        example="\n".join(map(harmless, json.dumps(example, ensure_ascii=False, indent=2).split("\n"))),
        settings=settings,
        principles=principles,
        audit=audit,
        warnings=warnings,
        versions=versions(),
        **texts,
    )
    card.save(path)
    return path


def as_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line, in a cell of a table too."""
    return re.sub(r"([\\`*\[\]<>|~#&$!]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", harmless(" ".join(text.split())))


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns are also aligned as plain text."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = [[str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [header, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
