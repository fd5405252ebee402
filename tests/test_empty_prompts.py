"""An empty prompt in training is what a guided pipeline samples with; every weight that is trained can learn."""

import copy

import pytest
import tiny
import tiny_families
import tiny_pixart_sana
import torch
from torch.testing import assert_close

from diffusers_tpo import Draw, add_noise, training_scheduler
from diffusers_tpo.families import call_arguments, family_of
from diffusers_tpo.models.adapters import train_denoiser
from diffusers_tpo.models.recipe import LoraShape


DISTILLED = ("flux", "schnell", "flux2")  # they are told the guidance, and are never asked without a prompt
GUIDED = [name for name in tiny_families.MAKERS if name not in DISTILLED]
PROMPTS = ["cat", "two dogs"]


def conditions(kwargs: dict, args: tuple, rows: slice) -> dict:
    """What a denoiser was told of the prompts of these rows."""
    given = kwargs | (kwargs.get("added_cond_kwargs") or {})
    names = ("encoder_hidden_states", "pooled_projections", "text_embeds", "encoder_attention_mask")
    found = {name: given[name][rows].float() for name in names if given.get(name) is not None}
    if isinstance(args[2] if len(args) > 2 else None, list):  # Z-Image's prompts have lengths of their own
        found |= {f"prompt {row}": text.float() for row, text in enumerate(args[2][rows])}
    return found


@pytest.mark.parametrize("name", GUIDED)
@torch.no_grad()
def test_an_empty_prompt_is_what_the_pipeline_samples_with(name):
    pipe = tiny_families.make_pipe(name)
    if name == "sdxl":
        assert pipe.config.force_zeros_for_empty_prompt
    family, calls = tiny_families.short_family(pipe), []
    denoiser = getattr(pipe, family.denoiser)

    def keep(module, args, kwargs, output):
        calls.append((args, kwargs))

    hook = denoiser.register_forward_hook(keep, with_kwargs=True)
    call = call_arguments(pipe, PROMPTS, 4.0, family)
    pipe(**call | tiny_families.call_flags(pipe), num_inference_steps=2, output_type="latent")
    if family.unconditional == "own call":
        (args, kwargs), rows = calls[1], slice(0, 2)
    else:
        (args, kwargs), rows = calls[0], slice(0, 2) if family.unconditional == "first half" else slice(2, 4)
    sampled = conditions(kwargs, args, rows)
    calls.clear()

    side = tiny_families.call_flags(pipe)["height"]
    sizes = torch.tensor([[side, side, 0.0, 0.0, side, side]]).repeat(3, 1)
    cond = family.encode_prompts(pipe, ["", "cat", ""]) | family.encode_sizes(sizes)
    family.predict(denoiser, torch.randn(3, *tiny.LATENT), torch.tensor([500, 500, 500]), cond)
    hook.remove()
    args, kwargs = calls[0]
    trained = conditions(kwargs, args, slice(0, 3, 2))
    assert trained.keys() == sampled.keys() and sampled
    for key, value in sampled.items():
        there = trained[key]
        if value.ndim == 3 and there.shape[1] > value.shape[1]:  # padding that the mask hides
            there = there[:, : value.shape[1]]
        assert_close(there, value, rtol=1e-4, atol=1e-5), key
    told = conditions(kwargs, args, slice(1, 2))
    assert any(not torch.equal(value, trained[key][:1]) for key, value in told.items() if "mask" not in key)


@torch.no_grad()
def test_an_empty_prompt_of_sdxl_is_encoded_where_its_pipeline_does():
    pipe = tiny_families.make_pipe("sdxl")
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    cond = family_of(pipe).encode_prompts(pipe, [""])
    assert all(value.abs().max() > 0 for value in cond.values())


CASES = [(name, lora) for name in tiny_families.MAKERS for lora in (None, LoraShape(rank=2))]
CASES = [(name, lora) for name, lora in CASES if lora is None or name not in tiny_pixart_sana.NO_LORA]
QUICK = ("sd", "qwen_image")
CASES = [pytest.param(*case, marks=[] if case[0] in QUICK else pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize(
    ("name", "lora"), CASES, ids=lambda value: value if isinstance(value, str) else "lora" if value else "full"
)
def test_every_weight_that_is_trained_gets_a_gradient(name, lora):
    """Else distributed training would wait for it for ever."""
    pipe = tiny_families.make_pipe(name)
    family = tiny_families.short_family(pipe)
    denoiser = copy.deepcopy(getattr(pipe, family.denoiser))
    train_denoiser(denoiser, family, lora)
    noised = add_noise(training_scheduler(pipe.scheduler), torch.randn(2, *tiny.LATENT), [Draw(0, 0), Draw(0, 1)])
    side = tiny_families.call_flags(pipe)["height"]
    sizes = torch.tensor([[side, side, 0.0, 0.0, side, side]]).repeat(2, 1)
    with torch.no_grad():
        cond = family.encode_prompts(pipe, PROMPTS) | family.encode_sizes(sizes)
    family.predict(denoiser, noised.latents, noised.timesteps, cond).square().mean().backward()
    idle = [key for key, value in denoiser.named_parameters() if value.requires_grad and value.grad is None]
    assert not idle
    resting = [
        key for key, value in denoiser.named_parameters() if not value.requires_grad and "base_layer" not in key
    ]
    assert lora or bool(resting) == bool(family.idle_layers(denoiser))
