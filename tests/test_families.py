"""A family calls the models of a pipeline exactly as the pipeline itself does."""

import pytest
import tiny
import torch
from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionPipeline, UNet2DModel
from torch.testing import assert_close

from diffusers_tpo.errors import UserError
from diffusers_tpo.families import FAMILIES, StableDiffusion, family_of


PROMPTS = ["cat", "two dogs", "a", "red"]


@pytest.fixture(scope="module")
def pipe():
    return tiny.make_pipe()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_predict_is_what_the_pipeline_computes_in_a_denoising_step(prediction_type):
    pipe, seen = tiny.make_pipe(prediction_type), {}

    def keep(module, args, kwargs, output):
        seen.update(latents=args[0], timestep=args[1], prediction=output[0])

    hook = pipe.unet.register_forward_hook(keep, with_kwargs=True)
    latents = torch.randn(2, *tiny.LATENT, generator=torch.Generator().manual_seed(1))
    pipe(PROMPTS[:2], latents=latents, num_inference_steps=1, guidance_scale=1.0, output_type="latent")
    hook.remove()

    family = family_of(pipe)
    timesteps = seen["timestep"].expand(2)
    mine = family.predict(pipe.unet, seen["latents"], timesteps, family.encode_prompts(pipe, PROMPTS[:2]))
    assert_close(mine, seen["prediction"])
    other = family.predict(pipe.unet, seen["latents"], timesteps, family.encode_prompts(pipe, PROMPTS[2:]))
    assert (other - mine).abs().max() > 1e-4  # the prompt matters


@torch.no_grad()
def test_predict_treats_every_row_on_its_own(pipe):
    family = family_of(pipe)
    latents, timesteps = torch.randn(4, *tiny.LATENT), torch.tensor([1, 300, 600, 999])
    cond = family.encode_prompts(pipe, PROMPTS)
    whole = family.predict(pipe.unet, latents, timesteps, cond)

    order = torch.tensor([2, 0, 3, 1])
    mixed = family.predict(pipe.unet, latents[order], timesteps[order], {k: v[order] for k, v in cond.items()})
    assert_close(mixed, whole[order], **tiny.FLOAT_TOLERANCE)

    parts = [
        family.predict(pipe.unet, latents[s], timesteps[s], {k: v[s] for k, v in cond.items()})
        for s in (slice(0, 1), slice(1, 4))
    ]
    assert_close(torch.cat(parts), whole, **tiny.FLOAT_TOLERANCE)


@torch.no_grad()
def test_prompts_are_encoded_each_on_its_own_and_batch_first(pipe):
    family = family_of(pipe)
    together = family.encode_prompts(pipe, PROMPTS)
    for index, prompt in enumerate(PROMPTS):
        for name, value in family.encode_prompts(pipe, [prompt]).items():
            assert_close(value[0], together[name][index], **tiny.FLOAT_TOLERANCE)


@torch.no_grad()
def test_images_are_sampled_each_with_its_own_generator(pipe):
    family, pixels = family_of(pipe), torch.rand(3, 3, tiny.RESOLUTION, tiny.RESOLUTION) * 2 - 1

    def encode(rows):
        return family.encode_images(pipe, pixels[rows], [torch.Generator().manual_seed(row) for row in rows])

    whole = encode([0, 1, 2])
    assert whole.shape == (3, *tiny.LATENT) and whole.dtype == torch.float32
    assert_close(torch.cat([encode([0]), encode([1, 2])]), whole, **tiny.FLOAT_TOLERANCE)
    assert_close(encode([2, 1, 0]), whole.flip(0), **tiny.FLOAT_TOLERANCE)
    posterior = pipe.vae.encode(pixels).latent_dist
    noise = (whole / pipe.vae.config.scaling_factor - posterior.mean) / posterior.std
    expected = torch.stack(
        [torch.randn(tiny.LATENT, generator=torch.Generator().manual_seed(row)) for row in range(3)]
    )
    assert_close(noise, expected, rtol=1e-3, atol=1e-3)


def test_an_unknown_pipeline_is_a_user_error():
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        layers_per_block=1,
    )
    with pytest.raises(
        UserError, match="is a DDPMPipeline, which has no family here; use one of StableDiffusionPipeline"
    ):
        family_of(DDPMPipeline(unet, DDPMScheduler()))


def test_a_subclass_has_the_family_of_its_base_until_it_gets_its_own(pipe, monkeypatch):
    class Special(StableDiffusionPipeline):
        pass

    class SpecialFamily(StableDiffusion):
        lora_targets = ("to_q",)

    special = Special(**pipe.components, requires_safety_checker=False)
    assert family_of(special) is FAMILIES[StableDiffusionPipeline]
    monkeypatch.setitem(FAMILIES, Special, SpecialFamily())
    assert family_of(special).lora_targets == ("to_q",)
    assert family_of(pipe) is FAMILIES[StableDiffusionPipeline]
