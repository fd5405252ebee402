"""Text encoders that are trained beside the denoiser."""

import json
import math

import numpy as np
import pytest
import tiny
import tiny_families
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from torch.testing import assert_close

from diffusers_tpo.errors import UserError
from diffusers_tpo.families import family_of
from diffusers_tpo.models.loading import load_model
from diffusers_tpo.models.recipe import LoraShape
from diffusers_tpo.models.text_encoders import distance, train_text_encoders


PROMPTS = ["cat", "two dogs"]
LORA = LoraShape(rank=4)


def read_log(output) -> list[dict]:
    return [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]


def move(encoders) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in encoders.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_the_reference_sees_the_frozen_encoders_and_the_policy_the_trained_ones(name, lora):
    pipe = tiny_families.make_pipe(name)
    family = family_of(pipe)
    with torch.no_grad():
        frozen = family.encode_prompts(pipe, PROMPTS)
    encoders = train_text_encoders(pipe, family, lora, needs_reference=True)
    assert encoders.names == list(family.text_encoders)
    for key, value in encoders.encode_reference(PROMPTS).items():
        assert_close(value, frozen[key])
    move(encoders)
    reference, cond = encoders.encode_reference(PROMPTS), encoders.encode(PROMPTS)
    for key, value in reference.items():
        assert_close(value, frozen[key])
        assert not value.requires_grad
        assert cond[key].requires_grad == bool((cond[key] - value).abs().max() > 1e-3)
    in_graph = [value for value in cond.values() if value.requires_grad]  # T5's embeddings are not
    assert len(in_graph) >= len(cond) - (name == "flux")
    sum(value.square().sum() for value in in_graph).backward()
    assert all(parameter.requires_grad for parameter in encoders.parameters())
    moved = [p.grad is not None and p.grad.abs().max() > 0 for p in encoders.parameters()]
    assert sum(moved) > 0.7 * len(moved)  # an encoder's last layers are not always used


def test_the_reference_leaves_everything_as_it_was():
    """The gradient of a policy that was encoded before is not lost, nor is the training mode."""
    pipe = tiny.make_pipe()
    encoders = train_text_encoders(pipe, family_of(pipe), LoraShape(rank=4, dropout=0.5), needs_reference=True)
    module = pipe.text_encoder
    first, second = encoders.encode_reference(PROMPTS), encoders.encode_reference(PROMPTS)
    assert torch.equal(first["encoder_hidden_states"], second["encoder_hidden_states"])  # no dropout in it
    assert pipe.text_encoder is module and module.training and len(encoders.parameters()) > 0
    assert_close(distance({"a": torch.tensor([[1.0, 0], [0, 2], [0, 1], [0, 1]])}, 2, 2), torch.tensor(0.5))


def test_a_pipeline_whose_text_encoders_cannot_be_trained():
    pipe = tiny.make_pipe()

    class Family(type(family_of(pipe))):
        text_encoders = ()

    with pytest.raises(UserError, match="train_text_encoder: the text encoders of a StableDiffusionPipeline cannot"):
        train_text_encoders(pipe, Family(), None, False)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    for name in ("sd", "sdxl"):
        tiny_families.make_pipe(name).save_pretrained(folder / name)
    return folder


def image_of(pipe) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "output_type": "np", "height": tiny.RESOLUTION, "width": tiny.RESOLUTION}
    return pipe("cat", generator=torch.Generator().manual_seed(0), **options).images


@pytest.mark.parametrize("name", ["sd", pytest.param("sdxl", marks=pytest.mark.slow)])
@pytest.mark.parametrize("use_lora", [True, False], ids=["lora", "full"])
def test_they_are_trained_saved_resumed_and_loaded(name, use_lora, run_script, bases, tmp_path):
    flags = {"pretrained_model_name_or_path": bases / name, "use_lora": use_lora, "train_text_encoder": True}
    flags |= {"beta": 500, "anchor_weight": 0, "train_batch_size": 2, "num_mismatched": 2, "checkpointing_steps": 2}
    flags |= {"max_train_steps": 4, "gradient_checkpointing": True, "text_encoder_lr": 1e-2, "use_ema": not use_lora}
    whole = tmp_path / "whole"
    run_script(**flags, output_dir=whole)
    log = read_log(whole)
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert log[0]["text/distance"] == pytest.approx(log[0]["text/distance_reference"], abs=1e-5)
    assert 0 < log[-1]["text/distance"] and abs(log[-1]["text/distance"] - log[-1]["text/distance_reference"]) > 1e-4

    run_script(**flags, output_dir=whole, resume_from_checkpoint="checkpoint-2")
    assert read_log(whole) == log  # to the bit

    base = DiffusionPipeline.from_pretrained(bases / name)
    before = image_of(base)
    if use_lora:
        saved = load_file(whole / "pytorch_lora_weights.safetensors")
        wanted = {"unet", *family_of(base).text_encoders}
        assert {key.split(".")[0] for key in saved} == wanted
        base.load_lora_weights(whole)
        assert all("default_0" in getattr(base, part).peft_config for part in wanted)
        stock = base
    else:
        stock = DiffusionPipeline.from_pretrained(whole)
        for part in family_of(stock).text_encoders:
            pairs = zip(getattr(stock, part).parameters(), getattr(base, part).parameters(), strict=True)
            assert any(not torch.equal(p, q) for p, q in pairs)
    image = image_of(stock)
    assert np.abs(image - before).max() > 1e-4
    from_checkpoint = load_model(str(whole / "checkpoint-4"), str(bases / name)).pipe
    assert np.abs(image_of(from_checkpoint) - image).max() < 1e-3


def test_only_the_encoders_learn_at_a_learning_rate_of_their_own(run_script, bases, tmp_path):
    flags = {"pretrained_model_name_or_path": bases / "sd", "use_lora": True, "train_text_encoder": True}
    flags |= {"learning_rate": 1e-30, "adam_weight_decay": 0, "text_encoder_lr": 1e-2, "max_train_steps": 2}
    run_script(**flags, loss_type="sft", output_dir=tmp_path)
    saved = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    up = {key: value.abs().max().item() for key, value in saved.items() if "lora_B" in key or "lora.up" in key}
    assert all((value > 1e-4) == key.startswith("text_encoder") for key, value in up.items())
