"""A family calls the models of a pipeline exactly as the pipeline itself does."""

import pytest
import tiny
import tiny_families
import torch
from diffusers import DDPMPipeline, DDPMScheduler, FluxPipeline, StableDiffusionPipeline, UNet2DModel
from torch.testing import assert_close

from diffusers_tpo import Draw, TPOConfig, TPOTrainer, add_noise, training_scheduler
from diffusers_tpo.adapters import add_lora, save_lora
from diffusers_tpo.errors import UserError
from diffusers_tpo.families import FAMILIES, StableDiffusion, family_of
from diffusers_tpo.noising import sample_latents


PROMPTS = ["cat", "two dogs", "a", "red"]
SIZES = torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]])
LATENT = tiny.LATENT


@pytest.fixture(scope="module", params=tiny_families.MAKERS)
def pipe(request):
    return tiny_families.make_pipe(request.param)


def encode(pipe, prompts: list[str], sizes=None) -> dict:
    family = family_of(pipe)
    return family.encode_prompts(pipe, prompts) | family.encode_sizes(
        SIZES.repeat(len(prompts), 1) if sizes is None else sizes
    )


def denoiser_of(pipe):
    return getattr(pipe, family_of(pipe).denoiser)


def first_step(pipe, prompts: list[str], **options) -> dict:
    """What the pipeline gives to its denoiser and to its scheduler in the first step, without guidance."""
    seen = {}

    def keep(module, args, kwargs, output):
        seen.setdefault("denoiser", (args, kwargs))

    hook, step = denoiser_of(pipe).register_forward_hook(keep, with_kwargs=True), pipe.scheduler.step

    def keep_step(prediction, timestep, latents, *args, **kwargs):
        seen.setdefault("scheduler", [prediction.clone(), torch.as_tensor(timestep), latents.clone()])
        return step(prediction, timestep, latents, *args, **kwargs)

    pipe.scheduler.step = keep_step
    size = {"height": tiny.RESOLUTION, "width": tiny.RESOLUTION}
    try:
        pipe(prompts, num_inference_steps=2, output_type="latent", **(tiny_families.NO_GUIDANCE | size | options))
    finally:
        hook.remove()
        del pipe.scheduler.step
    return seen


def unpacked(pipe, latents: torch.Tensor) -> torch.Tensor:
    """Latents `(N, C, H, W)` from the tokens of a pipeline that packs patches of 2x2."""
    return latents if latents.ndim != 3 else FluxPipeline._unpack_latents(latents, *LATENT[1:], vae_scale_factor=1)


@torch.no_grad()
def test_predict_is_what_the_pipeline_computes_in_a_denoising_step(pipe):
    """What it gives its denoiser is compared too, as random weights may hardly react to it."""
    family, denoiser = family_of(pipe), denoiser_of(pipe)
    generators = [torch.Generator().manual_seed(row) for row in range(2)]
    step = first_step(pipe, PROMPTS[:2], generator=generators)
    wanted, timestep, latents = step["scheduler"]
    wanted, latents = unpacked(pipe, wanted), unpacked(pipe, latents)
    given = {}

    def keep(module, args, kwargs, output):
        given.update(kwargs)

    hook = denoiser.register_forward_hook(keep, with_kwargs=True)
    timesteps = timestep.expand(2)
    mine = family.predict(denoiser, latents, timesteps, encode(pipe, PROMPTS[:2]))
    hook.remove()
    assert_close(mine, wanted, rtol=1e-4, atol=1e-5)
    for name in ("pooled_projections", "img_ids", "txt_ids", "guidance"):
        if step["denoiser"][1].get(name) is not None:
            assert_close(given[name].float(), step["denoiser"][1][name].float()), name
    other = family.predict(denoiser, latents, timesteps, encode(pipe, PROMPTS[2:]))
    assert (other - mine).abs().max() > 1e-5  # the prompt matters


@torch.no_grad()
def test_velocity_models_too():
    pipe = tiny.make_pipe("v_prediction")
    wanted, timestep, latents = first_step(pipe, PROMPTS[:2])["scheduler"]
    assert_close(family_of(pipe).predict(pipe.unet, latents, timestep.expand(2), encode(pipe, PROMPTS[:2])), wanted)


@torch.no_grad()
def test_predict_treats_every_row_on_its_own(pipe):
    family, denoiser = family_of(pipe), denoiser_of(pipe)
    latents, timesteps = torch.randn(4, *LATENT), torch.tensor([1, 300, 600, 999])
    cond = encode(pipe, PROMPTS)
    whole = family.predict(denoiser, latents, timesteps, cond)

    order = torch.tensor([2, 0, 3, 1])
    mixed = family.predict(denoiser, latents[order], timesteps[order], {k: v[order] for k, v in cond.items()})
    assert_close(mixed, whole[order], **tiny.FLOAT_TOLERANCE)

    parts = [
        family.predict(denoiser, latents[s], timesteps[s], {k: v[s] for k, v in cond.items()})
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
def test_images_are_sampled_each_with_its_own_generator_and_come_back(pipe):
    family, pixels = family_of(pipe), torch.rand(3, 3, tiny.RESOLUTION, tiny.RESOLUTION) * 2 - 1

    def latents_of(rows):
        return sample_latents(*family.encode_images(pipe, pixels[rows]), [Draw(0, row) for row in rows])

    whole = latents_of([0, 1, 2])
    assert whole.shape == (3, *LATENT) and whole.dtype == torch.float32
    assert_close(torch.cat([latents_of([0]), latents_of([1, 2])]), whole, **tiny.FLOAT_TOLERANCE)
    assert_close(latents_of([2, 1, 0]), whole.flip(0), **tiny.FLOAT_TOLERANCE)
    posterior, config = pipe.vae.encode(pixels).latent_dist, pipe.vae.config
    raw = whole / config.scaling_factor + (config.shift_factor or 0.0)  # as the pipelines do before they decode
    expected = torch.stack([torch.randn(LATENT, generator=Draw(0, row).generator("vae")) for row in range(3)])
    assert_close((raw - posterior.mean) / posterior.std, expected, rtol=1e-3, atol=1e-3)


def rows(pipe, images: int = 2):
    """Noised rows of matched and mismatched prompts of `images` images."""
    draws = [Draw(0, row) for row in range(images)]
    latents = torch.randn(images, *LATENT, generator=torch.Generator().manual_seed(0))
    noised = add_noise(training_scheduler(pipe.scheduler), latents, draws).repeat(2)
    prompts = [f"{kind} {row}" for kind in ("cat", "dog") for row in range(images)]
    with torch.no_grad():
        return noised, encode(pipe, prompts), torch.arange(2 * images) < images


@pytest.mark.parametrize("name", tiny_families.MAKERS)
@pytest.mark.parametrize("use_lora", [True, False])
def test_the_loss_starts_at_its_value_and_falls_and_the_base_stays(name, use_lora):
    """TDPO starts at log 2, TKTO at 1/2; LoRA leaves every weight of the base as it was, to the bit."""
    import copy

    pipe = tiny_families.make_pipe(name)
    family, denoiser = family_of(pipe), denoiser_of(pipe)
    batch, trainer = rows(pipe), TPOTrainer()
    trainer.family = family
    if use_lora:
        add_lora(denoiser, family.lora_targets, rank=4)
    else:
        trainer.reference = copy.deepcopy(denoiser)
        denoiser.requires_grad_(True)
    before = {name: value.clone() for name, value in denoiser.named_parameters() if not value.requires_grad}
    trainable = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    for loss_type, start in (("tkto", 0.5), ("tdpo", 0.6931)):
        trainer.tpo = TPOConfig(loss_type=loss_type, beta=1000, anchor_weight=0.0)
        assert trainer.tpo_loss(denoiser, *batch)[0].item() == pytest.approx(start, abs=1e-4)
    optimizer, losses = torch.optim.AdamW(trainable, lr=1e-2 if use_lora else 1e-3), []
    for _ in range(6):
        loss, _ = trainer.tpo_loss(denoiser, *batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert min(losses[3:]) < losses[0] - 0.01
    assert all(torch.equal(value, dict(denoiser.named_parameters())[name]) for name, value in before.items())


@pytest.mark.parametrize("name", tiny_families.MAKERS)
def test_a_trained_lora_loads_in_the_stock_pipeline_and_changes_its_image(name, tmp_path):
    pipe = tiny_families.make_pipe(name)
    family, denoiser = family_of(pipe), denoiser_of(pipe)
    add_lora(denoiser, family.lora_targets, rank=4)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter_name, parameter in denoiser.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.5)
    save_lora(type(pipe), denoiser, family.denoiser, tmp_path)
    options = {"num_inference_steps": 2, "output_type": "np", "height": tiny.RESOLUTION, "width": tiny.RESOLUTION}

    def image(model):
        return torch.from_numpy(model("cat", generator=torch.Generator().manual_seed(0), **options).images)

    stock = tiny_families.make_pipe(name)
    plain = image(stock)
    stock.load_lora_weights(tmp_path)
    assert_close(image(stock), image(pipe), rtol=1e-3, atol=1e-3)
    assert (image(stock) - plain).abs().max() > 1e-3


@torch.no_grad()
def test_sdxl_is_told_the_sizes_of_the_image():
    pipe = tiny_families.make_pipe("sdxl")
    latents, timesteps = torch.randn(2, *LATENT), torch.tensor([10, 500])
    sizes = torch.tensor([[64.0, 32.0, 0.0, 8.0, 16.0, 16.0]]).repeat(2, 1)
    family = family_of(pipe)
    whole = family.predict(pipe.unet, latents, timesteps, encode(pipe, PROMPTS[:2]))
    other = family.predict(pipe.unet, latents, timesteps, encode(pipe, PROMPTS[:2], sizes))
    assert (whole - other).abs().max() > 1e-5
    told = {"original_size": (64, 32), "crops_coords_top_left": (0, 8), "target_size": (16, 16)}
    called = first_step(pipe, PROMPTS[:2], **told)["denoiser"]
    assert_close(called[1]["added_cond_kwargs"]["time_ids"], sizes)


def test_an_unknown_pipeline_is_a_user_error():
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        layers_per_block=1,
    )
    with pytest.raises(UserError, match="is a DDPMPipeline, which has no family here; use one of FluxPipeline"):
        family_of(DDPMPipeline(unet, DDPMScheduler()))


def test_a_subclass_has_the_family_of_its_base_until_it_gets_its_own(monkeypatch):
    pipe = tiny.make_pipe()

    class Special(StableDiffusionPipeline):
        pass

    class SpecialFamily(StableDiffusion):
        lora_targets = ("to_q",)

    special = Special(**pipe.components, requires_safety_checker=False)
    assert family_of(special) is FAMILIES[StableDiffusionPipeline]
    monkeypatch.setitem(FAMILIES, Special, SpecialFamily())
    assert family_of(special).lora_targets == ("to_q",)
    assert family_of(pipe) is FAMILIES[StableDiffusionPipeline]


def test_options_reach_the_family_that_has_them():
    flux = tiny_families.make_pipe("flux")
    family = family_of(flux, max_sequence_length=7, guidance_scale=3.5)
    assert family.encode_prompts(flux, PROMPTS)["encoder_hidden_states"].shape[1] == 7
    assert (family.guidance_scale, family_of(flux).guidance_scale) == (3.5, 1.0)
    with pytest.raises(UserError, match="guidance_scale has no meaning for a StableDiffusionPipeline; leave it out"):
        family_of(tiny.make_pipe(), max_sequence_length=None, guidance_scale=3.5)
