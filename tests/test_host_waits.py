"""No part of a step waits for the device. The meta device stands for one: it refuses to be read, so whatever would wait fails."""

import pytest
import tiny
import torch
from diffusers import UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode

from diffusers_tpo import Noised, add_noise, training_scheduler
from diffusers_tpo.data.batch import Batch
from diffusers_tpo.metrics import Layout, mean_over_processes, read
from diffusers_tpo.models.adapters import add_lora
from diffusers_tpo.noising import Draw
from diffusers_tpo.training.encoding import Encoder
from diffusers_tpo.training.trained import FrozenParts


class WaitingCopies(TorchDispatchMode):
    """Notes the copies from the host for which it waits, and the numbers that it reads one at a time."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result, name = function(*args, **kwargs), function.name()
        if name == "aten::_local_scalar_dense":
            self.found.append(name)
        if name == "aten::_to_copy" and result.device.type == "meta" != args[0].device.type:
            if not kwargs.get("non_blocking"):
                self.found.append(name)
        return result


def make_unet() -> UNet2DConditionModel:
    """One block down, one up: what the meta device computes, it computes slowly."""
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    sizes = {"sample_size": tiny.LATENT[1], "block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
    heads = {"cross_attention_dim": tiny.WIDTH, "attention_head_dim": 4}
    return UNet2DConditionModel(mid_block_type=None, **blocks, **sizes, **heads)


def make_step(loss_type: str, use_lora: bool, **objective):
    """A step of kept encodings as the script takes it, its batch on the host and its denoiser on the meta device."""
    pipe, trainer = tiny.make_pipe(), tiny.make_trainer(loss_type=loss_type, **objective)
    scheduler = training_scheduler(pipe.scheduler)
    denoiser = make_unet().requires_grad_(False).eval().to("meta")
    if use_lora:
        add_lora(denoiser, trainer.family.lora_targets)
    else:
        denoiser.requires_grad_(True)
        trainer.reference = make_unet().to("meta").requires_grad_(False)
    prompts = ["a red circle", "a blue square", "a blue circle", "a red square"]
    entry = {"encoder_hidden_states": torch.zeros(tiny.TOKENS, tiny.WIDTH)}
    encoder = Encoder(pipe, trainer.family, FrozenParts(pipe, {"unet"}, torch.device("cpu")))
    encoder.frozen.device, encoder.prompts = torch.device("meta"), dict.fromkeys([*prompts, ""], entry)
    latents = tuple(torch.zeros(2, *tiny.LATENT) for _ in range(2))
    is_matched = torch.tensor([True, True, False, False])
    num_empty = 1 if trainer.tpo.holds_empty else 0
    batch = Batch(None, latents, torch.zeros(2, 6), [Draw(0, 0), Draw(0, 1)], prompts, is_matched, num_empty)

    add_noise(scheduler, encoder.encode_images(batch), batch.draws)  # puts the scheduler's table on the device

    def step(ref_error=None):
        noised = add_noise(scheduler, encoder.encode_images(batch), batch.draws).repeat(
            batch.prompts_per_image, batch.num_empty
        )
        cond, _ = encoder.encode_prompts(batch, True)
        loss, metrics = trainer.tpo_loss(denoiser, noised, cond, batch.is_matched, ref_error=ref_error)
        loss.backward()
        return metrics

    return step


OBJECTIVES = {
    "sft": {"loss_type": "sft"},
    "tdpo": {"loss_type": "tdpo", "winner_preserving_mu": 0.5},
    "null": {"loss_type": "tdpo", "null_share": 0.5, "null_anchor": 0.5, "null_keep": 1.0},
    "class mean": {"loss_type": "tkto", "tkto_baseline": "class_mean"},
    "shuffled": {"loss_type": "tkto", "tkto_baseline": "shuffled"},
}
REFERENCES = [  # the objective does not see whose errors the reference's are
    (name, use_lora)
    if use_lora or name in ("null", "shuffled")
    else pytest.param(name, use_lora, marks=pytest.mark.slow)
    for name in OBJECTIVES
    for use_lora in (True, False)
]


@pytest.mark.parametrize(("name", "use_lora"), REFERENCES)
def test_a_step_never_waits_for_the_device(name, use_lora):
    step = make_step(**OBJECTIVES[name], use_lora=use_lora)
    with WaitingCopies() as copies:
        metrics = step()
    assert copies.found == [] and metrics["loss"].is_meta


def test_what_waits_is_found():
    with WaitingCopies() as copies:
        torch.zeros(2).to("meta")
        torch.zeros(2).sum().item()
    assert copies.found == ["aten::_to_copy", "aten::_local_scalar_dense"]
    for waits in (torch.Tensor.item, torch.Tensor.tolist, torch.nonzero, bool):
        with pytest.raises((RuntimeError, NotImplementedError)):
            waits(torch.zeros(1, device="meta"))


def test_all_metrics_of_a_step_are_read_at_once():
    rows = [{"loss": torch.tensor(1.0), "baseline": torch.tensor(2.0)}, {"loss": torch.tensor(4.0)}]
    with WaitingCopies() as copies:
        assert read(rows) == [{"loss": 1.0, "baseline": 2.0}, {"loss": 4.0}]
    assert copies.found == []


def test_a_metric_that_some_passes_lack_is_the_mean_of_the_others():
    """Means over 2 and over 1 passes: (1 + 4) / 2 and 2 / 1."""
    assert mean_over_processes([{"loss": 1.0, "baseline": 2.0}, {"loss": 4.0}]) == {"loss": 2.5, "baseline": 2.0}


def test_the_layout_of_rows():
    layout = Layout.of(torch.tensor([True, False, False]), torch.device("cpu"))
    assert layout.in_blocks and layout.matched.tolist() == [0] and layout.mismatched.tolist() == [1, 2]
    for flags in ([True], [False], [False, True], [True, True, False], [True, False, True, False]):
        assert not Layout.of(torch.tensor(flags), torch.device("cpu")).in_blocks


def test_repeated_rows_are_known_to_share_images():
    noised = Noised(*torch.zeros(3, 2, 1))
    assert noised.prompts_per_image == 1 and noised.repeat(3).repeat(2).prompts_per_image == 6


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "live"])
def test_whatever_goes_to_the_device_is_pinned(monkeypatch, kept):
    """Pinning itself needs a GPU."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    latents, pixels = (torch.zeros(2, 4), torch.ones(2, 4)), torch.zeros(2, 3)
    parts = (None, latents) if kept else (pixels, None)
    batch = Batch(*parts, torch.zeros(2, 6), [Draw(0, 0)] * 2, ["a"] * 2, torch.ones(2, dtype=torch.bool))
    same = batch.pin_memory()
    expected = [*latents, batch.sizes] if kept else [pixels, batch.sizes]
    assert len(pinned) == len(expected) and all(a is b for a, b in zip(pinned, expected, strict=True))
    assert same.prompts == batch.prompts and (same.encoded is None) == (not kept)
