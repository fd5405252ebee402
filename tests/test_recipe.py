"""How a model is loaded and told things: one recipe for training, checkpoints and judging, and names by content."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import tiny
import tiny_families
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessorPil

from diffusers_tpo.errors import UserError
from diffusers_tpo.families import call_arguments
from diffusers_tpo.models.checkpoints import STATE
from diffusers_tpo.models.fingerprints import digest_of, fingerprint
from diffusers_tpo.models.loading import load_base, load_model, load_pipeline, refuse_own_base, save_pipeline
from diffusers_tpo.models.recipe import RECIPE, LoraShape, ModelRecipe, read_recipe, write_recipe


FLAGS = {
    "pretrained_model_name_or_path": "someone/model",
    "revision": "abc",
    "prediction_type": "v_prediction",
    "use_lora": True,
    "rank": 8,
    "lora_layers": "to_q, to_k",
    "mixed_precision": "bf16",
    "max_sequence_length": 7,
    "train_text_encoder": True,
    "learning_rate": 1.0,
}


def test_a_recipe_is_made_of_flags_and_comes_back_from_a_checkpoint():
    recipe = ModelRecipe.from_flags(FLAGS)
    assert recipe.lora == LoraShape(rank=8, layers=("to_q", "to_k"))
    assert recipe.dtype is torch.bfloat16 and dataclasses.replace(recipe, lora=None).dtype is torch.float32
    assert ModelRecipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe
    for damaged in ({}, {"source": "x", "colour": 1}, {"source": "x", "lora": 3}, {"source": "x", "precision": "fp8"}):
        with pytest.raises(UserError, match="the recipe of a model is damaged"):
            ModelRecipe.from_dict(damaged)


def test_a_checkpoint_finds_its_base_from_anywhere_and_the_public_recipe_names_no_folder(
    pipe_dir, monkeypatch, tmp_path
):
    monkeypatch.chdir(Path(pipe_dir).parent)
    recipe = ModelRecipe("tiny", vae="tiny/vae", max_sequence_length=7)
    assert recipe.as_dict()["source"] == str(Path(pipe_dir).resolve())
    assert "/" not in json.dumps(recipe.public()) and recipe.public()["max_sequence_length"] == 7
    write_recipe(recipe, tmp_path)
    assert read_recipe(tmp_path / RECIPE) == dataclasses.replace(recipe, source="", vae=None)
    assert ModelRecipe("someone/model", vae="other/vae").public()["source"] == "someone/model"


def test_an_identity_changes_with_every_flag_that_changes_numbers(pipe_dir):
    """A field that is added to a recipe must be in its identity too."""
    recipe = ModelRecipe(pipe_dir, lora=LoraShape())
    changes = {
        "variant": None,  # the fingerprint of the weights says it
        "revision": None,
        "source": {"source": "someone/other"},
        "vae": {"vae": f"{pipe_dir}/vae"},
        "prediction_type": {"prediction_type": "epsilon"},
        "quantization": {"quantization": {"load_in_8bit": True}},
        "precision": {"precision": "fp16"},
        "max_sequence_length": {"max_sequence_length": 3},
        "guidance_scale": {"guidance_scale": 3.0},
        "lora": {"lora": None},
        "train_text_encoder": {"train_text_encoder": True},
        "use_ema": {"use_ema": True},
    }
    assert changes.keys() == {field.name for field in dataclasses.fields(ModelRecipe)}
    for change in filter(None, changes.values()):
        assert dataclasses.replace(recipe, **change).identity() != recipe.identity(), change
    others = [LoraShape(rank=4), LoraShape(alpha=3), LoraShape(dropout=0.1), LoraShape(use_dora=True)]
    others += [LoraShape(layers=("to_q",))]
    assert all(dataclasses.replace(recipe, lora=lora).identity() != recipe.identity() for lora in others)
    assert dataclasses.replace(recipe, lora=LoraShape(alpha=16)).identity() == recipe.identity()
    assert json.loads(json.dumps(recipe.identity())) == recipe.identity()
    assert pipe_dir not in str(recipe.identity())


def test_a_moved_model_is_the_same_and_changed_weights_are_another(pipe_dir, tmp_path):
    before = fingerprint(pipe_dir)
    moved = tmp_path / "other name"
    shutil.copytree(pipe_dir, moved)
    assert fingerprint(str(moved)) == before
    (moved / "README.md").write_text("a card")
    (moved / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"of another variant")
    assert fingerprint(str(moved)) == before
    assert fingerprint(str(moved), variant="fp16") != before
    weights = moved / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    name = next(iter(state))
    times = weights.stat()
    save_file(state | {name: state[name] + 1}, tmp_path / "changed")
    os.replace(tmp_path / "changed", weights)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # of the same size and age
    assert fingerprint(str(moved)) != before
    changed = fingerprint(str(moved))
    (moved / "tokenizer" / "tokenizer_config.json").write_text("{}")
    assert fingerprint(str(moved)) != changed


def test_a_language_model_is_named_by_its_tokenizer_too(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    before = fingerprint(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text('{"a": 1}')
    assert fingerprint(str(tmp_path)) != before


def test_a_large_file_of_the_hubs_cache_has_its_digest_as_its_name(tmp_path):
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / digest).write_bytes(content)
    (tmp_path / "lora.safetensors").symlink_to(tmp_path / "blobs" / digest)
    (tmp_path / "copy.safetensors").write_bytes(content)
    assert digest_of(tmp_path / "lora.safetensors") == digest_of(tmp_path / "copy.safetensors") == digest


def test_a_hub_model_is_its_commit(tmp_path):
    assert fingerprint("someone/model") == fingerprint("someone/model")
    assert fingerprint("someone/model") != fingerprint("someone/model", revision="v2")
    commits = {"v1": "a" * 40, "v2": "b" * 40, "v3": "a" * 40}
    place = tmp_path / "models--someone--model"
    for name, commit in commits.items():
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "refs" / name).write_text(commit)
        (place / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        (place / "snapshots" / commit / "model_index.json").write_text("{}")
    found = [fingerprint("someone/model", revision=name, cache_dir=str(tmp_path)) for name in commits]
    assert found[0] == found[2] != found[1]


@pytest.fixture(scope="module")
def unsafe(tmp_path_factory) -> str:
    """Stable Diffusion with a safety checker that finds every image unsafe."""
    folder = tmp_path_factory.mktemp("checked") / "base"
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"image_size": 8, "patch_size": 8}
    config = CLIPConfig(vision_config=vision, text_config={"vocab_size": 4}, projection_dim=8)
    checker = StableDiffusionSafetyChecker(config)
    torch.nn.init.constant_(checker.concept_embeds_weights, -2.0)
    pipe = tiny.make_pipe()
    sizes = {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}
    parts = pipe.components | {"safety_checker": checker, "feature_extractor": CLIPImageProcessorPil(**sizes)}
    StableDiffusionPipeline(**parts).save_pretrained(folder)
    return str(folder)


def test_a_safety_checker_blackens_nothing_that_is_judged_and_is_saved_with_a_full_model(unsafe, tmp_path):
    stock = DiffusionPipeline.from_pretrained(unsafe)
    stock.set_progress_bar_config(disable=True)
    black = stock("cat", num_inference_steps=1, output_type="np").images
    assert black.max() == 0
    pipe = load_pipeline(unsafe)
    assert pipe("cat", num_inference_steps=1, output_type="np").images.max() > 0
    save_pipeline(pipe, tmp_path)
    assert pipe.safety_checker is None
    again = DiffusionPipeline.from_pretrained(tmp_path)
    assert again.safety_checker is not None and again.config.requires_safety_checker
    before, after = (p.safety_checker.state_dict() for p in (stock, again))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    bare = load_pipeline(str(tmp_path))
    assert load_model(str(tmp_path)).pipe.safety_checker is None and bare.safety_checker is None


def test_a_prediction_type_is_sampled_with_saved_and_read_again(pipe_dir, tmp_path):
    pipe = load_pipeline(pipe_dir, prediction_type="v_prediction")
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    assert type(pipe.scheduler) is type(load_pipeline(pipe_dir).scheduler)
    save_pipeline(pipe, tmp_path)
    saved = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert saved["prediction_type"] == "v_prediction"
    assert load_model(str(tmp_path)).scheduler.config.prediction_type == "v_prediction"
    assert load_model(pipe_dir, prediction_type="v_prediction").scheduler.config.prediction_type == "v_prediction"


def test_a_prediction_type_of_a_flow_model_is_refused(tmp_path):
    tiny_families.make_pipe("sd3").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="prediction_type 'epsilon' is for diffusion models"):
        load_pipeline(str(tmp_path), prediction_type="epsilon")


@pytest.fixture(scope="module")
def flux(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("flux") / "base"
    tiny_families.make_pipe("flux").save_pretrained(folder)
    return str(folder)


def checkpoint_of(recipe: ModelRecipe, folder: Path) -> str:
    """A checkpoint of full training that has learnt nothing, as the training script writes it."""
    folder.mkdir()
    transformer = load_base(recipe).transformer
    save_file(
        {name: value.contiguous() for name, value in transformer.state_dict().items()}, folder / "model.safetensors"
    )
    state = {"step": 5, "identity": {}, "files": {}, "model": recipe.as_dict()}
    (folder / STATE).write_text(json.dumps(state))
    return str(folder)


def test_a_checkpoint_is_judged_and_rendered_as_it_was_trained(flux, tmp_path):
    """With its own VAE and the family's options, without being told the base."""
    other = tiny_families.make_pipe("flux")
    with torch.no_grad():
        other.vae.decoder.conv_in.bias.add_(1)
    other.vae.save_pretrained(tmp_path / "vae")
    recipe = ModelRecipe(flux, vae=str(tmp_path / "vae"), max_sequence_length=7, guidance_scale=3.5)
    loaded = load_model(checkpoint_of(recipe, tmp_path / "checkpoint-5"))
    assert (loaded.family.max_sequence_length, loaded.family.guidance_scale) == (7, 3.5)
    assert torch.equal(loaded.pipe.vae.decoder.conv_in.bias, other.vae.decoder.conv_in.bias)
    assert call_arguments(loaded.pipe, ["cat"], 2.0, loaded.family) == {
        "prompt": ["cat"],
        "guidance_scale": 2.0,
        "max_sequence_length": 7,
    }
    moved = tmp_path / "moved"
    shutil.copytree(flux, moved)
    state = json.loads((tmp_path / "checkpoint-5" / STATE).read_text())
    state["model"]["source"] = str(tmp_path / "gone")
    (tmp_path / "checkpoint-5" / STATE).write_text(json.dumps(state))
    assert load_model(str(tmp_path / "checkpoint-5"), str(moved)).recipe.source == str(moved)
    with pytest.raises(UserError, match="name the base of checkpoint-5 in --pretrained_model_name_or_path"):
        load_model(str(tmp_path / "checkpoint-5"))


def test_a_finished_model_is_told_what_its_run_told_it(flux, tmp_path):
    pipe = load_pipeline(flux)
    save_pipeline(pipe, tmp_path)
    assert load_model(str(tmp_path)).family.max_sequence_length == 512
    write_recipe(ModelRecipe(flux, max_sequence_length=7, guidance_scale=3.5, vae="someone/vae"), tmp_path)
    loaded = load_model(str(tmp_path))
    assert (loaded.family.max_sequence_length, loaded.family.guidance_scale) == (7, 3.5)


def test_a_run_into_the_folder_of_its_own_base_is_refused(pipe_dir, tmp_path):
    refuse_own_base(ModelRecipe(pipe_dir, vae="someone/vae"), tmp_path)
    with pytest.raises(UserError, match="--output_dir .* is the folder of --pretrained_model_name_or_path"):
        refuse_own_base(ModelRecipe(pipe_dir), Path(pipe_dir, "unet", ".."))
    with pytest.raises(UserError, match="--output_dir .* is the folder of --pretrained_vae_model_name_or_path"):
        refuse_own_base(ModelRecipe("someone/model", vae=str(tmp_path)), tmp_path)
