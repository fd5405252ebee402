"""What every card needs, and the cards of data sets. Knows nothing of models or losses."""

import json
from pathlib import Path

from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from ..show import harmless
from ..versions import versions


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
