"""The card says what happened and nothing about the machine it happened on; a failed push loses nothing."""

import pytest
import yaml

from diffusers_tpo import hub
from diffusers_tpo.cards import markdown_table, public_config, set_evaluation, write_model_card
from diffusers_tpo.errors import UserError


HISTORY = [{"step": step, "loss": float(step), "reward/matched": 0.5} for step in range(1, 101)]


def card(folder, base="user/base", data="user/data", loss_type="tdpo", is_lora=True):
    training = public_config({"loss_type": loss_type, "seed": 0, "anchor_weight": 0.0, "use_lora": is_lora})
    path = write_model_card(folder, "me/model", base, data, "StableDiffusionPipeline", is_lora, training, HISTORY)
    text = path.read_text()
    return text, yaml.safe_load(text.split("---")[1])


def test_front_matter_and_figures(tmp_path):
    """The last 50 of the losses 1 to 100 are 51 to 100: mean 75.5."""
    text, data = card(tmp_path)
    assert data["base_model"] == "user/base" and data["datasets"] == ["user/data"]
    assert {"text-preference-optimization", "lora"} <= set(data["tags"]) and "tpo" not in data["tags"]
    assert "| loss | 75.5 |" in text and "| reward/matched | 0.5 |" in text
    assert "| seed | 0 |" in text and "| anchor_weight | 0.0 |" in text
    assert 'load_lora_weights("me/model")' in text and "paper" in text


def test_supervised_model_claims_no_preferences(tmp_path):
    text, data = card(tmp_path, loss_type="sft", is_lora=False)
    assert "text-preference-optimization" not in data["tags"] and "lora" not in data["tags"]
    assert "Text Preference" not in text and "reward/margin" not in text.split("## Training")[0]
    assert 'from_pretrained("me/model"' in text


def test_no_local_path(tmp_path):
    text, data = card(tmp_path, base=str(tmp_path), data=str(tmp_path / "rows"))
    assert str(tmp_path) not in text and "a local model" in text
    assert "base_model" not in data and "datasets" not in data
    config = public_config({"dataset_name": str(tmp_path), "image_column": "image", "revision": None})
    assert config == {"dataset_name": "a local data set", "image_column": "image"}


def test_evaluation_replaces_the_warning(tmp_path):
    before, _ = card(tmp_path)
    set_evaluation(tmp_path, "Aligned: 50 %.")
    after = (tmp_path / "README.md").read_text()
    assert "Not evaluated" in before and "Not evaluated" not in after and "Aligned: 50 %." in after


def test_markdown_table():
    assert markdown_table(["a", "long"], [["1", "2"]]) == "| a | long |\n| - | ---- |\n| 1 | 2    |"


def test_failed_push_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "weights").write_text("kept")

    def refuse(*args, **kwargs):
        raise ConnectionError("no route to the Hub")

    monkeypatch.setattr(hub.HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=f"no route to the Hub.*hf upload me/model {tmp_path}"):
        hub.push_folder(tmp_path, "me/model", token="hf_secret", attempts=1)
    assert (tmp_path / "weights").read_text() == "kept"
