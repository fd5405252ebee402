"""What saves memory: quantised bases, parts that are off the device, encodings that are kept on disk."""

import importlib.util
import itertools
import json
import math
import shutil

import pytest
import tiny
import tiny_families
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from diffusers_tpo import Draw
from diffusers_tpo.data.batch import Batch
from diffusers_tpo.families import family_of
from diffusers_tpo.models.recipe import ModelRecipe
from diffusers_tpo.training.cache import KEYS
from diffusers_tpo.training.encoding import Encoder
from diffusers_tpo.training.trained import FrozenParts, TrainedModels


LORA = "pytorch_lora_weights.safetensors"


def read_log(output) -> list[dict]:
    return [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]


@pytest.fixture
def quantise_on_cpu(monkeypatch):
    """diffusers quantises on a GPU only; the kernels of bitsandbytes run on a CPU too."""
    import bitsandbytes
    from diffusers.quantizers.bitsandbytes import bnb_quantizer

    # No layout for inference alone on some CPUs, which needs rows of 64.
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: False)
    for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        monkeypatch.setattr(quantizer, "validate_environment", lambda self, *args, **kwargs: None)
        monkeypatch.setattr(quantizer, "update_device_map", lambda self, device_map: {"": "cpu"})


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize(
    "kind",
    [
        "load_in_4bit",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("load_in_8bit", "bnb_quantization_config_path")),
    ],
)
def test_a_lora_on_a_quantised_base(kind, quantise_on_cpu, run_script, tmp_path):
    base, value = tmp_path / "flux", True
    tiny_families.make_pipe("flux").save_pretrained(base)
    if kind == "bnb_quantization_config_path":
        value = tmp_path / "bnb.json"
        value.write_text('{"load_in_4bit": true, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": true}')
    flags = {"pretrained_model_name_or_path": base, "use_lora": True, kind: value, "mixed_precision": "bf16"}
    flags |= {"gradient_checkpointing": True, "offload": True, "beta": 500, "anchor_weight": 0, "learning_rate": 1e-2}
    run_script(**flags, max_train_steps=2, train_batch_size=4, output_dir=tmp_path / "out")
    log = read_log(tmp_path / "out")
    if kind != "load_in_8bit":  # of which bitsandbytes has, on a CPU, another kernel for training than for evaluation
        assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert all(math.isfinite(row["loss"]) for row in log) and log[-1]["loss"] != log[0]["loss"]
    saved = load_file(tmp_path / "out" / LORA)
    assert all(value.dtype == torch.float32 and value.abs().max() > 0 for value in saved.values())
    pipe = DiffusionPipeline.from_pretrained(base)
    pipe.load_lora_weights(tmp_path / "out")
    assert "default_0" in pipe.transformer.peft_config


def test_quantised_bases_that_make_no_sense(refused, tmp_path):
    assert "a quantised base cannot be trained itself: add --use_lora" in refused(use_lora=False, load_in_4bit=True)
    if importlib.util.find_spec("bitsandbytes") is None:
        assert "pip install 'diffusers_tpo[bnb]'" in refused(load_in_4bit=True)
        return
    assert "at most one of --load_in_4bit" in refused(load_in_4bit=True, load_in_8bit=True)
    (tmp_path / "wrong.json").write_text('{"bits": ')
    assert "is no configuration of bitsandbytes" in refused(bnb_quantization_config_path=tmp_path / "wrong.json")
    if not torch.cuda.is_available():
        assert "A GPU is needed for quantization" in refused(load_in_4bit=True)


def encodings(folder, kind: str) -> list:
    return sorted(folder.glob(f"{kind}-*/*.safetensors"))


def run_of(output) -> tuple[list[dict], dict]:
    return read_log(output), load_file(output / LORA)


@pytest.fixture
def live_and_kept(run_script, tmp_path):
    """The same run with live and with kept encodings; both are returned."""

    def run(**flags):
        flags = {"use_lora": True, "center_crop": True, "max_train_steps": 4, "train_batch_size": 2} | flags
        run_script(**flags, output_dir=tmp_path / "live")
        kept = {"cache_latents": True, "cache_prompt_embeddings": True, "encodings_dir": tmp_path / "encodings"}
        run_script(**flags, **kept, output_dir=tmp_path / "kept")
        return run_of(tmp_path / "live"), run_of(tmp_path / "kept"), flags | kept

    return run


@pytest.mark.parametrize(
    "flags",
    [
        {"beta": 500, "random_flip": True, "num_train_epochs": 2},
        {"loss_type": "sft", "proportion_empty_prompts": 0.5},
        {"loss_type": "tkto", "principles": ["content"], "offload": True, "dataloader_num_workers": 1},
    ],
    ids=["tdpo", "sft", "tkto"],
)
def test_kept_encodings_change_nothing(live_and_kept, flags):
    (log, weights), (kept_log, kept_weights), _ = live_and_kept(**flags)
    for row, kept in zip(log, kept_log, strict=True):
        assert row == pytest.approx(kept, rel=1e-4, abs=1e-6)
    for name, value in weights.items():
        torch.testing.assert_close(value, kept_weights[name], rtol=1e-3, atol=1e-5)


def test_what_is_kept_is_found_again_and_only_what_changed_is_made(live_and_kept, run_script, tmp_path, data_dir):
    _, first, flags = live_and_kept(beta=500)
    folder = tmp_path / "encodings"
    kept = {path: path.stat().st_mtime_ns for kind in ("images", "prompts") for path in encodings(folder, kind)}

    runs = itertools.count()

    def fresh(**changed) -> dict[str, int]:
        """Entries that a run adds, by kind."""
        before = {path for kind in ("images", "prompts") for path in encodings(folder, kind)}
        run_script(**flags | {"max_train_steps": 1} | changed, output_dir=tmp_path / f"again{next(runs)}")
        new = [path for kind in ("images", "prompts") for path in encodings(folder, kind) if path not in before]
        return {path.parent.name.split("-")[0]: len(load_file(path)[KEYS]) for path in new}

    assert fresh() == {} and run_of(tmp_path / "again0")[1].keys() == first[1].keys()
    assert fresh(beta=100, seed=1, rank=2) == {}  # of another run
    assert fresh(resolution=24) == {"images": 8}
    assert fresh(random_flip=True) == {"images": 8}  # the mirrored ones
    assert fresh(principles=["content"]) == {}
    assert fresh(mixed_precision="bf16") == {"prompts": 24}  # the text encoder is, the autoencoder stays
    columns = tiny.make_dataset(10).to_dict()
    columns["prompt"][0] = "new"
    tiny.make_dataset(10, prompt=columns["prompt"]).save_to_disk(tmp_path / "more")
    assert fresh(train_data_dir=tmp_path / "more") == {"images": 2, "prompts": 1 + 2 * 3}
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_a_model_from_elsewhere_has_the_same_encodings_and_another_vae_others(
    live_and_kept, run_script, tmp_path, pipe_dir
):
    _, _, flags = live_and_kept()
    folder = tmp_path / "encodings"
    shutil.copytree(pipe_dir, tmp_path / "copy")
    run_script(**flags | {"pretrained_model_name_or_path": tmp_path / "copy"}, output_dir=tmp_path / "second")
    assert len(encodings(folder, "images")) == len(encodings(folder, "prompts")) == 1
    tiny.make_pipe(seed=1).vae.save_pretrained(tmp_path / "vae")
    run_script(**flags, pretrained_vae_model_name_or_path=tmp_path / "vae", output_dir=tmp_path / "third")
    assert len(encodings(folder, "images")) == 2 and len(encodings(folder, "prompts")) == 1


def test_encodings_that_make_no_sense(refused, tmp_path):
    assert "--cache_latents needs --center_crop" in refused(cache_latents=True)
    assert "--cache_prompt_embeddings goes neither" in refused(cache_prompt_embeddings=True, train_text_encoder=True)
    (tmp_path / "file").write_text("")
    flags = {"cache_latents": True, "center_crop": True, "encodings_dir": tmp_path / "file"}
    assert "error: --encodings_dir" in refused(**flags)


@pytest.mark.parametrize("offload", [True, False])
def test_frozen_parts_are_on_the_device_while_they_work_and_rest_on_the_cpu(offload, monkeypatch):
    """`cpu:0` stands for the device."""
    pipe, places, device = tiny.make_pipe(), [], torch.device("cpu:0")
    for name in ("vae", "text_encoder"):
        move = getattr(pipe, name).to
        record = lambda place, name=name, move=move: (places.append((name, str(place))), move(place))[1]  # noqa: E731
        monkeypatch.setattr(getattr(pipe, name), "to", record)
    family = family_of(pipe)
    frozen = FrozenParts(pipe, {family.denoiser}, device, offload)
    encoder = Encoder(pipe, family, frozen)
    home = "cpu" if offload else "cpu:0"
    assert places == [("vae", home), ("text_encoder", home)]
    places.clear()
    pixels = torch.zeros(1, 3, tiny.RESOLUTION, tiny.RESOLUTION)
    batch = Batch(pixels, None, torch.zeros(1, 6), [Draw(0, 0)], ["cat"], torch.tensor([True]))
    encoder.encode_images(batch)
    assert places == [("vae", "cpu:0"), ("vae", "cpu")]
    places.clear()
    encoder.encode_prompts(batch, needs_reference=False)
    assert places == [("text_encoder", "cpu:0"), ("text_encoder", "cpu")]
    places.clear()
    with TrainedModels(ModelRecipe(""), pipe, family, pipe.scheduler, pipe.unet, frozen).at_rest():
        assert [place for _, place in places] == ["cpu:0", "cpu:0"]
    assert [place for _, place in places[2:]] == ["cpu", "cpu"]


def test_a_vae_that_needs_no_upcast_works_in_half_precision(run_script, tmp_path, pipe_dir):
    """As the SDXL VAE that was mended for it; others stay float32 whatever the mixed precision."""
    vae = tiny.make_pipe().vae
    vae.register_to_config(force_upcast=False)
    vae.save_pretrained(tmp_path / "vae")
    flags = {"use_lora": True, "mixed_precision": "bf16", "cache_latents": True, "center_crop": True}
    means = {}
    for name, other in (("own", None), ("mended", tmp_path / "vae")):
        folder = tmp_path / name
        flags |= {"pretrained_vae_model_name_or_path": other, "encodings_dir": folder, "output_dir": folder}
        run_script(**flags, max_train_steps=1)
        (file,) = encodings(folder, "images")
        means[name] = load_file(file)["mean"]
    exact, mended = means["own"], means["mended"]
    assert exact.dtype == torch.float32
    assert not torch.equal(exact, exact.bfloat16().float()) and not torch.equal(mended, exact)
    torch.testing.assert_close(mended, exact, rtol=0.1, atol=0.02)
