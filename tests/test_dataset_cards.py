"""The cards of published data sets: what the Hub and `load_dataset` read in them is there and true."""

from pathlib import Path

import datasets
import pytest
from datasets import Features, Image
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from diffusers_tpo.negatives.asking import TEMPLATE_VERSION
from diffusers_tpo.negatives.dataset import TEXT_FEATURES
from diffusers_tpo.negatives.shapes import ShapesEditor
from diffusers_tpo.principles import PRINCIPLES
from diffusers_tpo.shapes.captions import read_scene
from diffusers_tpo.shapes.world import make_captions


CARDS = Path(__file__).parents[1] / "dataset_cards"
NAMES = ("hpsd-tpo-negatives", "shapes-tpo-negatives")


@pytest.fixture(params=NAMES)
def card(request) -> DatasetCard:
    return DatasetCard.load(CARDS / f"{request.param}.md")


def test_front_matter_says_what_the_hub_shows_and_loads(card):
    assert card.data.task_categories == ["text-to-image"] and card.data.language == ["en"]
    assert "text-preference-optimization" in card.data.tags and "tpo" not in card.data.tags
    assert card.data.license and card.data.size_categories
    configs = MetadataConfigs.from_dataset_card_data(card.data)
    assert configs["default"]["data_files"] == [{"split": "train", "path": "data/train-*"}]


def test_the_features_are_those_that_are_written(card):
    written = Features({"image": Image(), **TEXT_FEATURES})
    info = datasets.DatasetInfo._from_yaml_dict(card.data.dataset_info)
    assert info.features == written


def test_every_section_is_there_and_nothing_private(card):
    for heading in ("## Use", "## Columns", "## How it", "## Audit", "## Limits", "## Citation"):
        assert heading in card.text
    for principle in PRINCIPLES.values():
        assert f"**{principle.name}**: {principle.definition}" in " ".join(card.text.split())
    assert 'load_dataset("' in card.text and "Blind test" in card.text
    assert f"| template_version | {TEMPLATE_VERSION} |" in " ".join(card.text.split())
    assert "/tmp" not in card.text and "/home" not in card.text and "hf_" not in card.text


def test_the_shapes_card_shows_a_row_of_the_shapes_world():
    text = (CARDS / "shapes-tpo-negatives.md").read_text()
    caption = make_captions(1, seed=0)[0]["prompt"]
    assert f'"prompt": "{caption}"' in text and read_scene(caption) is not None
    assert f'"editor": "{ShapesEditor.name}"' in text
