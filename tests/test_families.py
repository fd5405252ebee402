"""A family calls the models of a pipeline exactly as the pipeline itself does."""

import copy
import inspect

import pytest
import tiny
import tiny_families
import tiny_pixart_sana
import torch
from diffusers import (
    AutoencoderDC,
    DDPMPipeline,
    DDPMScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxPipeline,
    QwenImagePipeline,
    StableDiffusionPipeline,
    UNet2DModel,
)
from torch.testing import assert_close

from diffusers_tpo import Draw, TPOConfig, TPOTrainer, add_noise, training_scheduler
from diffusers_tpo.errors import UserError
from diffusers_tpo.families import FAMILIES, StableDiffusion, family_of
from diffusers_tpo.models.adapters import add_lora, save_lora
from diffusers_tpo.noising import sample_latents


PROMPTS = ["cat", "two dogs", "a", "red"]
LATENT = tiny.LATENT
WITH_LORA = [name for name in tiny_families.MAKERS if name not in tiny_pixart_sana.NO_LORA]


@pytest.fixture(scope="module", params=tiny_families.MAKERS)
def pipe(request):
    return tiny_families.make_pipe(request.param)


def encode(pipe, prompts: list[str], sizes=None) -> dict:
    family = tiny_families.short_family(pipe)
    if sizes is None:
        side = tiny_families.call_flags(pipe)["height"]
        sizes = torch.tensor([[side, side, 0.0, 0.0, side, side]]).repeat(len(prompts), 1)
    return family.encode_prompts(pipe, prompts) | family.encode_sizes(sizes)


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
    flags = tiny_families.no_guidance(pipe) | tiny_families.call_flags(pipe) | options
    try:
        pipe(prompt=prompts, num_inference_steps=2, output_type="latent", **flags)
    finally:
        hook.remove()
        del pipe.scheduler.step
    return seen


def unpacked(pipe, latents: torch.Tensor, size: tuple[int, int] = LATENT[1:]) -> torch.Tensor:
    """Latents `(N, C, H, W)` from the tokens of a pipeline that packs patches of 2x2."""
    if isinstance(pipe, Flux2Pipeline | Flux2KleinPipeline):
        return Flux2Pipeline._unpatchify_latents(latents.mT.unflatten(2, (size[0] // 2, size[1] // 2)))
    if isinstance(pipe, FluxPipeline | QwenImagePipeline):
        return FluxPipeline._unpack_latents(latents, *size, vae_scale_factor=1)
    return latents


def packed(pipe, latents: torch.Tensor) -> torch.Tensor:
    """The other way."""
    if isinstance(pipe, Flux2Pipeline | Flux2KleinPipeline):
        return Flux2Pipeline._pack_latents(Flux2Pipeline._patchify_latents(latents))
    if isinstance(pipe, FluxPipeline | QwenImagePipeline):
        return FluxPipeline._pack_latents(latents, *latents.shape)
    return latents


def decoder_input(pipe, latents: torch.Tensor, monkeypatch) -> torch.Tensor:
    """What the pipeline gives to its decoder after a last step that ends in these latents `(N, C, H, W)`."""
    seen, decode = [], pipe.vae.decode

    def keep(raw, *args, **kwargs):
        seen.append(raw)
        return decode(raw, *args, **kwargs)

    monkeypatch.setattr(pipe.vae, "decode", keep)
    monkeypatch.setattr(pipe.scheduler, "step", lambda *args, **kwargs: (packed(pipe, latents),))
    pipe(prompt=["a"] * len(latents), num_inference_steps=2, **tiny_families.call_flags(pipe))
    return seen[0]


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
    told = [kwargs | (kwargs.get("added_cond_kwargs") or {}) for kwargs in (given, step["denoiser"][1])]
    names = ("resolution", "aspect_ratio", "time_ids", "encoder_attention_mask")
    for name in names + ("timestep", "encoder_hidden_states", "pooled_projections", "img_ids", "txt_ids", "guidance"):
        if told[1].get(name) is not None:
            assert_close(told[0][name].float(), told[1][name].float()), name
    other = family.predict(denoiser, latents, timesteps, encode(pipe, PROMPTS[2:]))
    assert (other - mine).abs().max() > 1e-5  # the prompt matters


@pytest.mark.parametrize("name", ["flux", "qwen_image", "flux2", "z_image", "pixart_alpha", "sana"])
@torch.no_grad()
def test_images_need_not_be_square(name):
    pipe = tiny_families.make_pipe(name)
    width = tiny_families.call_flags(pipe)["width"]
    step = first_step(pipe, PROMPTS[:2], height=2 * width)["scheduler"]
    size = (2 * LATENT[1], LATENT[2])
    wanted, latents = (unpacked(pipe, x, size) for x in (step[0], step[2]))
    sizes = torch.tensor([[96.0, 96.0, 3.0, 5.0, 2 * width, width]]).repeat(2, 1)  # only that of the crop counts
    cond = encode(pipe, PROMPTS[:2], sizes)
    mine = family_of(pipe).predict(pipe.transformer, latents, step[1].expand(2), cond)
    assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_velocity_models_too():
    pipe = tiny.make_pipe("v_prediction")
    wanted, timestep, latents = first_step(pipe, PROMPTS[:2])["scheduler"]
    assert_close(family_of(pipe).predict(pipe.unet, latents, timestep.expand(2), encode(pipe, PROMPTS[:2])), wanted)


@torch.no_grad()
def test_predict_treats_every_row_on_its_own(pipe):
    family, denoiser = family_of(pipe), denoiser_of(pipe)
    latents, timesteps = tiny.randn(4, *LATENT), torch.tensor([1, 300, 600, 999])
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
    family = tiny_families.short_family(pipe)
    together = family.encode_prompts(pipe, PROMPTS)
    for index, prompt in enumerate(PROMPTS):
        for name, value in family.encode_prompts(pipe, [prompt]).items():
            assert_close(value[0], together[name][index], **tiny.FLOAT_TOLERANCE)


def test_prompts_are_as_long_as_the_pipeline_makes_them(pipe):
    """What is kept short in other tests."""
    family, told = family_of(pipe), inspect.signature(type(pipe).__call__).parameters
    assert hasattr(family, "max_sequence_length") == ("max_sequence_length" in told)
    assert "max_sequence_length" not in told or family.max_sequence_length == told["max_sequence_length"].default


@torch.no_grad()
def test_images_are_sampled_each_with_its_own_generator_and_come_back(pipe, monkeypatch):
    family, size = family_of(pipe), tiny_families.call_flags(pipe)
    pixels = torch.rand(3, 3, size["height"], size["width"]) * 2 - 1

    def latents_of(rows):
        return sample_latents(*family.encode_images(pipe, pixels[rows]), [Draw(0, row) for row in rows])

    whole = latents_of([0, 1, 2])
    assert whole.shape == (3, *LATENT) and whole.dtype == torch.float32
    assert_close(torch.cat([latents_of([0]), latents_of([1, 2])]), whole, **tiny.FLOAT_TOLERANCE)
    assert_close(latents_of([2, 1, 0]), whole.flip(0), **tiny.FLOAT_TOLERANCE)
    raw = decoder_input(pipe, whole, monkeypatch)
    if isinstance(pipe.vae, AutoencoderDC):  # it is deterministic
        assert_close(raw, pipe.vae.encode(pixels).latent)
        return
    posterior = pipe.vae.encode(pixels.unsqueeze(2) if raw.ndim == 5 else pixels).latent_dist
    expected = torch.stack([torch.randn(LATENT, generator=Draw(0, row).generator("vae")) for row in range(3)])
    assert_close((raw - posterior.mean) / posterior.std, expected.view_as(raw), rtol=1e-3, atol=1e-3)


def rows(pipe, images: int = 2):
    """Noised rows of matched and mismatched prompts of `images` images, and of the empty prompt of the first."""
    draws = [Draw(0, row) for row in range(images)]
    latents = tiny.randn(images, *LATENT)
    noised = add_noise(training_scheduler(pipe.scheduler), latents, draws).repeat(2, num_empty=1)
    prompts = [f"{kind} {row}" for kind in ("cat", "dog") for row in range(images)] + [""]
    with torch.no_grad():
        return noised, encode(pipe, prompts), torch.arange(2 * images) < images


def ways_to_train() -> list:
    """(family, with a LoRA); the quick ones train every family once, and one both ways."""
    quick = ("sd", *tiny_pixart_sana.NO_LORA)
    full = [
        pytest.param(name, False, marks=() if name in quick else pytest.mark.slow) for name in tiny_families.MAKERS
    ]
    return [(name, True) for name in WITH_LORA] + full


@pytest.mark.parametrize(("name", "use_lora"), ways_to_train())
def test_the_loss_starts_at_its_value_and_falls_and_the_base_stays(name, use_lora):
    """TDPO starts at log 2, TKTO at 1/2, the distance of the empty prompt at 0; LoRA leaves every weight of the base as it was."""
    pipe = tiny_families.make_pipe(name)
    family, denoiser = family_of(pipe), denoiser_of(pipe)
    batch, trainer = rows(pipe), TPOTrainer()
    trainer.family = family
    if use_lora:
        torch.manual_seed(0)
        add_lora(denoiser, family.lora_targets, rank=4)
    else:
        trainer.reference = copy.deepcopy(denoiser)
        denoiser.requires_grad_(True)
    before = {name: value.clone() for name, value in denoiser.named_parameters() if not value.requires_grad}
    trainable = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    for loss_type, start in (("tkto", 0.5), ("tdpo", 0.6931)):
        trainer.tpo = TPOConfig(loss_type=loss_type, beta=1000, anchor_weight=0.0, null_keep=1.0, null_share=0.5)
        loss, metrics = trainer.tpo_loss(denoiser, *batch)
        assert loss.item() == pytest.approx(start, abs=1e-4) and metrics["null/distance"] < 1e-10
    trainer.tpo = TPOConfig(beta=1000, anchor_weight=0.0, null_keep=1e-6, null_share=0.5)
    optimizer, losses = torch.optim.AdamW(trainable, lr=1e-2 if use_lora else 1e-3), []
    for _ in range(6):
        loss, _ = trainer.tpo_loss(denoiser, *batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert min(losses[3:]) < losses[0] - 0.01 and trainer.tpo_loss(denoiser, *batch)[1]["null/distance"] > 1e-10
    assert all(torch.equal(value, dict(denoiser.named_parameters())[name]) for name, value in before.items())


@pytest.mark.slow  # the quick tests of LoRA files load one of every family, and compare what the denoiser says
@pytest.mark.parametrize("name", WITH_LORA)
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
    options = {"num_inference_steps": 2, "output_type": "np"} | tiny_families.call_flags(pipe)

    def image(model):
        return torch.from_numpy(model(prompt="cat", generator=torch.Generator().manual_seed(0), **options).images)

    stock = tiny_families.make_pipe(name)
    plain = image(stock)
    stock.load_lora_weights(tmp_path)
    assert_close(image(stock), image(pipe), rtol=1e-3, atol=1e-3)
    assert (image(stock) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("name", tiny_pixart_sana.NO_LORA)
def test_lora_is_refused_where_diffusers_loads_none(name):
    pipe = tiny_families.make_pipe(name)
    with pytest.raises(UserError, match="use_lora adds adapters, and diffusers loads none into a PixArtTransformer2D"):
        add_lora(pipe.transformer, family_of(pipe).lora_targets)


@pytest.mark.parametrize("name", tiny_pixart_sana.MAKERS)
def test_a_perfect_prediction_takes_the_scheduler_of_the_pipeline_along_the_path_of_training(name):
    """One of its steps from what training noises, with the target as prediction, ends where training would be later."""
    scheduler = tiny_families.make_pipe(name).scheduler
    scheduler.set_timesteps(20)
    training, latents = training_scheduler(scheduler), tiny.randn(1, *LATENT)

    def noised(step: int):
        """At a timestep of the pipeline; training shifts what it draws of a flow by 3, which is undone here."""
        sigma = scheduler.sigmas[step].item()
        flow = sigma / (3 - 2 * sigma)
        place = flow if scheduler.config.use_flow_sigmas else scheduler.timesteps[step].item() / 1000
        bounds = (place, place) if scheduler.config.use_flow_sigmas else (place, place + 1e-3)
        return add_noise(training, latents, [Draw(0, 0)], timestep_range=bounds)

    now, later = noised(7), noised(8)
    assert_close(now.timesteps, scheduler.timesteps[[7]].to(now.timesteps.dtype), rtol=0, atol=1)
    scheduler.set_begin_index(7)
    assert_close(scheduler.step(now.target, scheduler.timesteps[7], now.latents).prev_sample, later.latents)


@torch.no_grad()
def test_predict_in_half_precision(pipe):
    """With autocast and float32 latents, as the policy trains, and with all in bfloat16, as a reference may be kept."""
    family, denoiser = family_of(pipe), denoiser_of(pipe)
    latents, timesteps, cond = tiny.randn(2, *LATENT), torch.tensor([300, 900]), encode(pipe, PROMPTS[:2])
    exact = family.predict(denoiser, latents, timesteps, cond)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = family.predict(denoiser, latents, timesteps, cond)
    half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in cond.items()}
    low = family.predict(copy.deepcopy(denoiser).bfloat16(), latents.bfloat16(), timesteps, half)
    for prediction in (mixed, low):
        assert prediction.shape == exact.shape
        assert (prediction.float() - exact).norm() < 0.05 * exact.norm()


@torch.no_grad()
def test_sdxl_is_told_the_sizes_of_the_image():
    pipe = tiny_families.make_pipe("sdxl")
    latents, timesteps = tiny.randn(2, *LATENT), torch.tensor([10, 500])
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
    with pytest.raises(UserError, match="is a DDPMPipeline, which has no family here; use one of Flux2KleinPipeline"):
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
