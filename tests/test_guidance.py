"""Guidance with the reference's answer to the empty prompt: what each half of a guided step is computed with."""

import copy

import pytest
import tiny
import tiny_families
import torch

from diffusers_tpo.errors import UserError
from diffusers_tpo.families import FAMILIES, call_arguments, family_of
from diffusers_tpo.guidance import guide_with_reference, why_not_guided
from diffusers_tpo.models.adapters import adapters_off, add_lora


WITH_LORA = ["sd", "sdxl", "sd3", "sana", "z_image", "qwen_image", "klein"]


def guided_outputs(pipe, scale: float = 3.0) -> list[torch.Tensor]:
    """What the denoiser answers in the first step, one tensor for each call of it."""
    outputs = []
    denoiser = getattr(pipe, family_of(pipe).denoiser)

    def keep(module, args, kwargs, output):
        rows = output[0] if isinstance(output, tuple) else output.sample
        outputs.append(torch.stack(rows) if isinstance(rows, list) else rows.clone())

    hook = denoiser.register_forward_hook(keep, with_kwargs=True)
    generators = [torch.Generator().manual_seed(row) for row in range(2)]
    call = call_arguments(pipe, ["a cat", "a long dog"], scale) | tiny_families.call_flags(pipe)
    try:
        pipe(**call, num_inference_steps=1, output_type="latent", generator=generators)
    finally:
        hook.remove()
    return outputs


def empty_and_own(pipe, outputs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The answers to the empty prompt and to the image's own."""
    where = family_of(pipe).unconditional
    if where == "own call":
        own, empty = outputs
        return empty, own
    (rows,) = outputs
    first, second = rows.chunk(2)
    return (first, second) if where == "first half" else (second, first)


def with_lora(name: str):
    pipe = tiny_families.make_pipe(name)
    family = family_of(pipe)
    denoiser = getattr(pipe, family.denoiser)
    add_lora(denoiser, family.lora_targets, rank=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    denoiser.eval()
    return pipe, denoiser


@pytest.mark.parametrize("name", WITH_LORA)
def test_the_lora_is_off_for_the_empty_prompt_and_on_for_the_own(name):
    pipe, denoiser = with_lora(name)
    empty, own = empty_and_own(pipe, guided_outputs(pipe))
    with adapters_off(denoiser):
        empty_of_base, own_of_base = empty_and_own(pipe, guided_outputs(pipe))
    assert not torch.allclose(empty, empty_of_base, **tiny.FLOAT_TOLERANCE)
    assert not torch.allclose(own, own_of_base, **tiny.FLOAT_TOLERANCE)

    with guide_with_reference(pipe):
        found_empty, found_own = empty_and_own(pipe, guided_outputs(pipe))
    torch.testing.assert_close(found_empty, empty_of_base, **tiny.FLOAT_TOLERANCE)
    torch.testing.assert_close(found_own, own, **tiny.FLOAT_TOLERANCE)

    after = guided_outputs(pipe)
    torch.testing.assert_close(empty_and_own(pipe, after)[0], empty)


@pytest.mark.parametrize("name", ["sd", "pixart"])
def test_fully_trained_weights_take_the_denoiser_of_the_base(name):
    pipe = tiny_families.make_pipe(name)
    denoiser = getattr(pipe, family_of(pipe).denoiser)
    base = copy.deepcopy(denoiser)
    empty_of_base, _ = empty_and_own(pipe, guided_outputs(pipe))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    _, own = empty_and_own(pipe, guided_outputs(pipe))
    with guide_with_reference(pipe, base):
        found_empty, found_own = empty_and_own(pipe, guided_outputs(pipe))
    torch.testing.assert_close(found_empty, empty_of_base, **tiny.FLOAT_TOLERANCE)
    torch.testing.assert_close(found_own, own, **tiny.FLOAT_TOLERANCE)


@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_without_guidance_nothing_changes(name):
    pipe, _ = with_lora(name)
    (plain,) = guided_outputs(pipe, scale=1.0)
    with guide_with_reference(pipe):
        (found,) = guided_outputs(pipe, scale=1.0)
    torch.testing.assert_close(found, plain)


def test_a_distilled_model_is_not_asked_about_the_empty_prompt():
    pipe, _ = with_lora("flux")
    (plain,) = guided_outputs(pipe)
    with guide_with_reference(pipe):
        (found,) = guided_outputs(pipe)
    torch.testing.assert_close(found, plain)


def test_a_model_says_whether_it_is_asked_about_the_empty_prompt():
    distilled = {name for name in tiny_families.MAKERS if not _asks(tiny_families.make_pipe(name))}
    assert distilled == {"flux", "schnell", "flux2"}
    consistent = tiny.make_pipe()
    consistent.unet.register_to_config(time_cond_proj_dim=8)
    assert not _asks(consistent)


def _asks(pipe) -> bool:
    return family_of(pipe).asks_empty_prompt(pipe)


def test_why_a_model_is_not_guided_with_its_reference():
    flux, _ = with_lora("flux")
    assert "FluxPipeline is guided by distillation" in why_not_guided(flux)
    pipe, _ = with_lora("sd")
    assert why_not_guided(pipe) is None
    add_lora(pipe.text_encoder, ("q_proj",), rank=2)
    assert "its text_encoder carries a LoRA too" in why_not_guided(pipe)
    with pytest.raises(UserError, match="its text_encoder carries"), guide_with_reference(pipe):
        pass
    bare = tiny.make_pipe()
    assert "no LoRA that can be switched off" in why_not_guided(bare) and why_not_guided(bare, bare.unet) is None


def test_a_reference_in_half_precision_answers_in_that_of_the_pipeline():
    pipe, denoiser = with_lora("sd")
    with adapters_off(denoiser):
        (expected,) = guided_outputs(pipe)
    half = copy.deepcopy(tiny.make_pipe().unet).to(torch.bfloat16)
    with guide_with_reference(pipe, half):
        (found,) = guided_outputs(pipe)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.chunk(2)[0], expected.chunk(2)[0], rtol=0.05, atol=0.05)


def test_an_error_inside_leaves_the_pipeline_as_it_was():
    pipe, denoiser = with_lora("klein")
    with pytest.raises(RuntimeError), guide_with_reference(pipe):
        raise RuntimeError
    assert "forward" not in denoiser.__dict__ and "cache_context" not in denoiser.__dict__


def test_without_lora_and_reference_it_says_what_it_needs():
    with pytest.raises(UserError, match="LoRA"), guide_with_reference(tiny.make_pipe()):
        pass


def test_every_family_says_where_the_empty_prompt_is():
    assert {family.unconditional for family in FAMILIES.values()} == {"first half", "second half", "own call"}
