"""Other bases of the embedded world are made from the shipped one by a command."""

import random
import runpy
from pathlib import Path

import pytest
import torch
from conftest import run_program

from diffusers_tpo.models.loading import load_model
from diffusers_tpo.shapes.world import PIPELINE, make_scenes


SCRIPT = Path(__file__).parents[1] / "examples" / "text_preference" / "pretrain_shapes.py"


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(SCRIPT))


def test_a_wrong_caption_is_another_caption_of_this_world(script):
    """A second edit may take the first one back, which happens in one of twenty-five."""
    rng, scenes = random.Random(0), make_scenes(400, seed=0)
    told = [script["wrong_caption"](rng, scene) for scene in scenes]
    is_wrong = [caption != scene.caption() for caption, scene in zip(told, scenes, strict=True)]
    assert 0.9 < sum(is_wrong) / len(is_wrong) < 1
    tokenizer = load_model(str(PIPELINE)).pipe.tokenizer
    longest = max(len(tokenizer(caption).input_ids) for caption in told)
    assert longest <= script["TOKENS"]


def test_another_pipeline_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_program(SCRIPT, {"output_dir": tmp_path / "base", "start_from": tmp_path / "nothing"})
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "--start_from" in message and "Traceback" not in message


def test_a_bag_of_words_does_not_know_where_a_word_stands(script):
    """Without the causal mask too, the words of a caption in another order would be the same words."""
    encoder = load_model(str(PIPELINE)).pipe.text_encoder
    script["forget_order"](encoder)
    embedded = encoder.get_input_embeddings().weight
    assert not any(weights.requires_grad for weights in encoder.parameters()) and embedded.any()
    same = encoder(torch.full((1, 8), 300)).last_hidden_state[0]
    assert torch.allclose(same, same[:1].expand_as(same), atol=1e-4)  # eight times one word, at eight places


def test_a_bag_of_words_needs_words(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_program(SCRIPT, {"output_dir": tmp_path / "base", "bag_of_words": True})
    assert stopped.value.code == 2 and "--start_from" in capsys.readouterr().err


@pytest.mark.slow
def test_a_base_goes_on_from_another_with_wrong_captions(tmp_path):
    """Three steps of warm-up move UNet and text encoder and leave the VAE as it was."""
    flags = {"start_from": PIPELINE, "num_scenes": 2048, "steps": 3, "batch_size": 4, "lr_scheduler": "cosine"}
    run_program(SCRIPT, flags | {"output_dir": tmp_path / "base", "wrong_captions": 0.5, "learning_rate": 1.0})
    before, after = load_model(str(PIPELINE)).pipe, load_model(str(tmp_path / "base")).pipe
    assert after.scheduler.config.prediction_type == "v_prediction"
    for name, moves in {"unet": True, "text_encoder": True, "vae": False}.items():
        old, new = (dict(getattr(pipe, name).named_parameters()) for pipe in (before, after))
        moved = [weight for weight in old if not torch.equal(old[weight], new[weight])]
        assert len(moved) == (len(old) if moves else 0), name
