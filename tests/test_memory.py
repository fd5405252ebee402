"""What saves memory: quantised bases, parts that are off the device, encodings that are kept on disk."""

import importlib.util
import json
import math

import pytest
import tiny_families
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file


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
@pytest.mark.parametrize("kind", ["load_in_4bit", "load_in_8bit", "bnb_quantization_config_path"])
def test_a_lora_on_a_quantised_base(kind, quantise_on_cpu, run_script, tmp_path):
    base, value = tmp_path / "flux", True
    tiny_families.make_pipe("flux").save_pretrained(base)
    if kind == "bnb_quantization_config_path":
        value = tmp_path / "bnb.json"
        value.write_text('{"load_in_4bit": true, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": true}')
    flags = {"pretrained_model_name_or_path": base, "use_lora": True, kind: value, "mixed_precision": "bf16"}
    flags |= {"gradient_checkpointing": True, "offload": True, "beta": 500, "anchor_weight": 0, "learning_rate": 1e-2}
    flags |= {"validation_prompt": "cat", "validation_steps": 4, "num_validation_images": 1}
    run_script(**flags, max_train_steps=4, train_batch_size=4, num_train_epochs=2, output_dir=tmp_path / "out")
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
    assert "a quantised base cannot be trained itself: add use_lora" in refused(use_lora=False, load_in_4bit=True)
    if importlib.util.find_spec("bitsandbytes") is None:
        assert "pip install 'diffusers_tpo[bnb]'" in refused(load_in_4bit=True)
        return
    assert "at most one of load_in_4bit" in refused(load_in_4bit=True, load_in_8bit=True)
    (tmp_path / "wrong.json").write_text('{"bits": ')
    assert "is no configuration of bitsandbytes" in refused(bnb_quantization_config_path=tmp_path / "wrong.json")
    if not torch.cuda.is_available():
        assert "A GPU is needed for quantization" in refused(load_in_4bit=True)
