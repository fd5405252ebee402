"""Writes the cards of models and data sets from what really happened. Knows nothing of models or losses."""

import importlib.metadata
import json
import platform
import shlex
from pathlib import Path

from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from .show import harmless


TAGS = ["diffusers", "diffusers-training", "text-to-image"]
PACKAGES = ("diffusers_tpo", "diffusers", "transformers", "accelerate", "datasets", "peft", "torch")
SOURCES = {
    "pretrained_model_name_or_path": "model",
    "pretrained_vae_model_name_or_path": "model",
    "dataset_name": "data set",
    "train_data_dir": "data set",
}
METHODS = {
    "sft": "supervised fine-tuning on images and their captions.",
    "tdpo": "Text Preference Optimization with the TDPO loss ([paper](https://huggingface.co/papers/2509.25771)): it learned "
    "to prefer a caption that fits its image over edited captions that do not. It saw no human preferences and no image pairs.",
    "tkto": "Text Preference Optimization with the TKTO loss ([paper](https://huggingface.co/papers/2509.25771)): it learned "
    "to tell captions that fit their image from captions that do not. It saw no human preferences and no image pairs.",
}
NOT_EVALUATED = (
    "Not evaluated: this run only trained. Render the same prompts and seeds with and without it before you trust it."
)


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


def usage(pipeline_class: str, base: str, repo: str, is_lora: bool, branch: str | None) -> str:
    lines = ["import torch", f"from diffusers import {pipeline_class}", ""]
    revision = f', revision="{branch}"' if branch else ""
    if is_lora:
        file = (
            ', weight_name="pytorch_lora_weights.safetensors"' if branch else ""
        )  # diffusers looks only in the main one
        lines.append(f'pipe = {pipeline_class}.from_pretrained("{base}", dtype=torch.float16).to("cuda")')
        lines.append(f'pipe.load_lora_weights("{repo}"{file}{revision})')
    else:
        lines.append(f'pipe = {pipeline_class}.from_pretrained("{repo}"{revision}, dtype=torch.float16).to("cuda")')
    lines.append('image = pipe(prompt="a red cube on top of a blue sphere").images[0]')
    return "\n".join(lines)


def write_model_card(
    folder: Path,
    repo: str,
    base_model: str,
    dataset: str,
    pipeline_class: str,
    is_lora: bool,
    training: dict[str, object],
    metrics: list[dict[str, float]],
    window: int = 50,
    evaluation: str = NOT_EVALUATED,
    branch: str | None = None,
) -> Path:
    """Writes `README.md` into a model's folder.

    Args:
        repo: the Hub id that the model is or would be pushed to.
        training: hyper-parameters by name, see [`public_config`]; `loss_type` is among them.
        metrics: one dictionary per logged step.
        branch: that it is or would be pushed to, if not the main one.
    """
    base, data = public_name(base_model, "model"), public_name(dataset, "data set")
    is_public, is_preference = base == base_model, training["loss_type"] != "sft"
    card_data = ModelCardData(
        base_model=base if is_public else None,
        datasets=[data] if data == dataset else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=TAGS + ["text-preference-optimization"] * is_preference + ["lora"] * is_lora,
        license="other",
        license_name="see-base-model",
        license_link=f"https://huggingface.co/{base}" if is_public else None,
    )
    last = metrics[-window:]
    names = sorted({name for row in last for name in row if name != "step"})
    means = {name: [row[name] for row in last if name in row] for name in names}
    card = ModelCard.from_template(
        card_data,
        template_path=str(Path(__file__).parent / "templates" / "model_card.md"),
        title=repo.split("/")[-1],
        what="A LoRA" if is_lora else "A full fine-tune",
        base_model=f"[{base}](https://huggingface.co/{base})" if is_public else base,
        method=METHODS[training["loss_type"]],
        is_preference=is_preference,
        usage=usage(pipeline_class, base, repo, is_lora, branch),
        training=training,
        metrics={name: f"{sum(values) / len(values):.4g}" for name, values in means.items()},
        window=len(last),
        evaluation=evaluation,
        versions=versions(),
    )
    path = Path(folder) / "README.md"
    card.save(path)
    return path


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


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns are also aligned as plain text."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = [[str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [header, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def set_evaluation(folder: Path, text: str) -> None:
    """Puts the figures of an evaluation into the card of a model that had none."""
    path = Path(folder) / "README.md"
    path.write_text(path.read_text().replace(NOT_EVALUATED, text))
