"""Every part of a pipeline works in its own precision, and numbers that a denoiser is told are never rounded."""

import copy

import pytest
import tiny
import tiny_families
import torch
from torch.testing import assert_close

from diffusers_tpo import Draw, TPOConfig, TPOTrainer, add_noise, training_scheduler
from diffusers_tpo.families import call_arguments, family_of
from diffusers_tpo.models.loading import load_pipeline
from diffusers_tpo.models.precision import hold_precision, is_held, part_dtypes, precision_of, release_precision
from diffusers_tpo.models.text_encoders import train_text_encoders


TOLD = ("timestep", "time_ids", "resolution", "aspect_ratio", "guidance", "img_ids", "txt_ids")


def but_slow(*quick: str) -> list:
    """Every family, those that are not among `quick` where there is time."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in tiny_families.MAKERS]


def told(denoiser, call) -> list[dict]:
    """What a denoiser is given besides latents and prompts, in every call."""
    seen = []

    def keep(module, args, kwargs, output):
        given = kwargs | (kwargs.get("added_cond_kwargs") or {})
        seen.append({name: given[name] for name in TOLD if torch.is_tensor(given.get(name))})
        numbers = [value for value in args if torch.is_tensor(value) and value.ndim == 1]
        seen[-1] |= {f"argument {place}": value for place, value in enumerate(numbers)}

    hook = denoiser.register_forward_hook(keep, with_kwargs=True)
    try:
        call()
    finally:
        hook.remove()
    return seen


def batch(pipe, family, side: int):
    """A row with odd numbers that half precision would round, under a matched and a mismatched prompt."""
    latents = torch.randn(1, *tiny.LATENT, generator=torch.Generator().manual_seed(0))
    noised = add_noise(training_scheduler(pipe.scheduler), latents, [Draw(0, 3)]).repeat(2)
    sizes = torch.tensor([[1365.0, 2047.0, 0.0, 171.0, side, side]]).repeat(2, 1)
    with torch.no_grad():
        cond = family.encode_prompts(pipe, ["cat", "three red dogs"]) | family.encode_sizes(sizes)
    return noised, cond, torch.tensor([True, False])


@pytest.mark.parametrize("mixed", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["autocast", "no-autocast"])
@pytest.mark.parametrize("name", tiny_families.MAKERS)
def test_a_reference_in_half_precision_is_told_the_same_numbers_and_starts_at_no_reward(name, mixed):
    pipe = tiny_families.make_pipe(name)
    family = tiny_families.short_family(pipe)
    denoiser = getattr(pipe, family.denoiser)
    trainer = TPOTrainer()
    trainer.tpo, trainer.family = TPOConfig(beta=5000), family
    trainer.reference = copy.deepcopy(denoiser).bfloat16()
    given = batch(pipe, family, tiny_families.call_flags(pipe)["height"])
    metrics = []

    def step():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            metrics.append(trainer.tpo_loss(denoiser, *given)[1])

    of_reference, of_policy = told(trainer.reference, step), told(denoiser, step)
    assert len(of_reference) == len(of_policy) == 1
    assert of_policy[0] and of_policy[0].keys() == of_reference[0].keys()
    for key, value in of_policy[0].items():
        assert value.dtype is not torch.bfloat16 and torch.equal(value, of_reference[0][key]), key
    error = metrics[0]["error/matched"]
    assert metrics[0]["reward/matched"].abs() < (0.002 if mixed else 0.02) * error  # of rounded weights and products


@pytest.fixture
def overflowing(tmp_path):
    """A pipeline whose autoencoder leaves the range of float16 within, as SDXL's does, but not at its ends."""
    pipe = tiny.make_pipe()
    with torch.no_grad():
        for end in (pipe.vae.encoder, pipe.vae.decoder):
            end.conv_in.weight.mul_(1e6)
    pipe.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_an_autoencoder_that_overflows_in_half_precision_does_not(overflowing, dtype):
    """Encoded while training and judging, decoded by the pipeline while rendering, all of it under autocast."""
    exact, pipe = load_pipeline(str(overflowing)), load_pipeline(str(overflowing), dtype=dtype)
    assert pipe.vae.dtype == torch.float32 and pipe.unet.dtype == dtype
    family, pixels = family_of(pipe), torch.rand(2, 3, 16, 16) * 2 - 1
    wanted = family.encode_images(exact, pixels)
    with torch.autocast("cpu", torch.float16):
        means, spreads = family.encode_images(pipe, pixels)
        images = pipe(**call_arguments(pipe, ["cat"], 4.0), num_inference_steps=2, output_type="pt").images
        release_precision(pipe.vae)
        assert not family.encode_images(pipe, pixels)[0].isfinite().all()  # else the test could not fail
    assert_close((means, spreads), wanted)
    assert images.isfinite().all() and images.std() > 0


def test_an_autoencoder_whose_author_says_so_works_in_half_precision(tmp_path):
    pipe = tiny.make_pipe()
    pipe.vae.register_to_config(force_upcast=False)
    pipe.save_pretrained(tmp_path)
    assert load_pipeline(str(tmp_path), dtype=torch.bfloat16).vae.dtype == torch.bfloat16


def test_text_encoders_leave_float16_where_they_would_overflow():
    index = {
        "text_encoder": ("transformers", "CLIPTextModel"),
        "text_encoder_2": ("transformers", "T5EncoderModel"),
        "text_encoder_3": ("transformers", "Gemma2Model"),
        "vae": ("diffusers", "AutoencoderKL"),
    }
    half = part_dtypes(index, torch.float16)
    assert half == {"vae": torch.float32, "text_encoder_3": torch.float32, "default": torch.float16}
    assert part_dtypes(index, torch.bfloat16) == {"vae": torch.float32, "default": torch.bfloat16}


@pytest.mark.parametrize("name", but_slow("sd", "sdxl", "sana", "z_image"))
@torch.no_grad()
def test_prompts_are_encoded_alike_within_and_without_mixed_precision(name, tmp_path):
    """Of every loaded family, by the pipeline too; a copy of a part does the same, on its own weights."""
    tiny_families.make_pipe(name).save_pretrained(tmp_path)
    pipe = load_pipeline(str(tmp_path))
    family = family_of(pipe)
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    assert {name: is_held(part) for name, part in parts.items()} == {name: name != family.denoiser for name in parts}
    plain = family.encode_prompts(pipe, ["cat", "two dogs"])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = family.encode_prompts(pipe, ["cat", "two dogs"])
        side = tiny_families.call_flags(pipe)
        assert pipe(prompt="cat", num_inference_steps=2, **side).images  # float32 latents reach the decoder
    for key, value in plain.items():
        assert torch.equal(mixed[key], value), key


@torch.no_grad()
def test_a_copy_of_a_part_computes_with_its_own_weights():
    vae = tiny.make_pipe().vae
    hold_precision(vae)
    hold_precision(vae)
    other = copy.deepcopy(vae)
    pixels = torch.rand(1, 3, 16, 16)
    before = vae.encode(pixels).latent_dist.mean
    for parameter in other.parameters():
        parameter.zero_()
    assert torch.equal(vae.encode(pixels).latent_dist.mean, before)
    assert other.encode(pixels).latent_dist.mean.abs().max() == 0
    release_precision(vae)
    assert type(vae).__mro__[1] is not type(other).__mro__[1] and not is_held(vae) and is_held(other)


def test_text_encoders_that_are_trained_compute_in_mixed_precision(pipe_dir):
    pipe = load_pipeline(pipe_dir)
    train_text_encoders(pipe, family_of(pipe), None, needs_reference=True)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = family_of(pipe).encode_prompts(pipe, ["cat"])["encoder_hidden_states"]
    pipe.text_encoder.requires_grad_(False)
    assert not torch.equal(embeddings, family_of(pipe).encode_prompts(pipe, ["cat"])["encoder_hidden_states"])


def test_precision_of_wide_weights_changes_nothing():
    module = torch.nn.Linear(2, 2)
    with precision_of(module):
        assert module(torch.ones(1, 2)).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16), precision_of(module):
        assert module(torch.ones(1, 2)).dtype == torch.bfloat16
    with precision_of(module.bfloat16()):
        assert module(torch.ones(1, 2)).dtype == torch.bfloat16
