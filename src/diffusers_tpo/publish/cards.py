"""What every card needs, and the cards of data sets. Knows nothing of models or losses."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from ..show import harmless, inside_code
from ..versions import versions


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows."""
    for bound, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if rows < bound:
            return name
    return "1M<n<10M" if rows < 10**7 else "10M<n<100M"


@dataclass(frozen=True)
class EditorNote:
    """What a card says of an editor: how the edits were made, and what that does not give."""

    made: str
    limits: str


EDITORS = {
    "rules": EditorNote(
        "Words were exchanged by rules and a lexicon, without a language model.",
        "Rules know a few hundred kinds of words: edits repeat, and captions that use none of them are missing.",
    ),
    "shapes": EditorNote(
        "The edits are captions of edited scenes of the embedded shapes world, so they are exact.",
        "It is a world of coloured shapes on four backgrounds, for tests and first steps only.",
    ),
}


def editor_note(editor: str, template_version: str) -> EditorNote:
    """Of an editor by its name in the data set; any other name is that of a language model."""
    return EDITORS.get(editor) or EditorNote(
        f"The edits were written by the language model `{editor}` (prompt template {template_version}).",
        "A language model can misjudge which image a caption allows; checks of the words alone do not notice that.",
    )


def dataset_card_data(
    features: Features, splits: dict[str, tuple[int, int]], license: str, language: str | None
) -> DatasetCardData:
    """The front matter of a data set that lies in `data/<split>-*.parquet`: what the Hub and `load_dataset` read.

    Args:
        splits: rows and bytes of the parquet files, by name.
    """
    rows, size = (sum(numbers) for numbers in zip(*splits.values(), strict=True))
    card_data = DatasetCardData(
        license=license,
        language=[language] if language else None,
        task_categories=["text-to-image"],
        size_categories=[size_category(rows)],
        tags=["text-preference-optimization", "preference", "diffusers"],
    )
    files = [{"split": name, "path": f"data/{name}-*"} for name in splits]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(card_data)
    infos = {name: SplitInfo(name, num_bytes=own, num_examples=number) for name, (number, own) in splits.items()}
    info = DatasetInfo(features=features, splits=SplitDict(infos), download_size=size, dataset_size=size)
    DatasetInfosDict({"default": info}).to_dataset_card_data(card_data)
    return card_data


@dataclass(frozen=True)
class DatasetPage:
    """The page of a data set of mismatched prompts.

    Args:
        repo: the Hub id that the data set is or would be pushed to.
        features: of the data set.
        splits: how many rows and bytes of parquet files there are, by split.
        license, language: of the captions, for the front matter.
        example: one row without its image.
        source: where the captions come from.
        key: the source's column that the keys come from; `None` for the number of the row.
        template_version: of what a language model was asked.
        settings: what the set was built with, by name, see [`public_config`].
        principles: those used, with `name`, `definition` and `examples`.
        audit: Markdown tables of the audit's figures.
        warnings: of the audit.
        with_failed: whether captions were left out.
        editors: names in the column `editor`, where they are more than one.
        shares: of the mismatched prompts, in words, by principle.
    """

    repo: str
    features: Features
    splits: dict[str, tuple[int, int]]
    license: str
    language: str | None
    example: dict
    source: str
    key: str | None
    template_version: str
    settings: dict[str, object]
    principles: list
    audit: str
    warnings: list[str]
    with_failed: bool
    editors: tuple[str, ...] = ()
    shares: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        editors = [inside_code(name) for name in self.editors or (self.example["editor"],)]
        notes = [editor_note(name, self.template_version) for name in editors]
        card = DatasetCard.from_template(
            dataset_card_data(self.features, self.splits, self.license, self.language),
            template_path=str(Path(__file__).parent / "templates" / "dataset_card.md"),
            title=self.repo.split("/")[-1],
            repo=self.repo,
            captions=f"{sum(rows for rows, _ in self.splits.values()):,}",
            splits={name: f"{rows:,}" for name, (rows, _) in self.splits.items()},
            example="\n".join(map(harmless, json.dumps(self.example, ensure_ascii=False, indent=2).split("\n"))),
            source=self.source,
            key_meaning=f"the source's `{self.key}`" if self.key else "the row's number in the source",
            editors=" or ".join(f"`{name}`" for name in editors),
            editor_text=" ".join(note.made for note in notes),
            editor_limits=" ".join(dict.fromkeys(note.limits for note in notes)),
            with_verdicts="verdicts" in self.features,
            verifier=inside_code(self.example.get("verifier", "")),
            settings=self.settings,
            principles=self.principles,
            shares=self.shares,
            audit=self.audit,
            warnings=self.warnings,
            with_image="image" in self.features,
            with_failed=self.with_failed,
            versions=versions(),
        )
        return str(card)
