"""One real tiny pipeline of every family, built from configs: 16x16 images, latents of 8x8."""

import string

import tiny
import tiny_newer
import tiny_pixart_sana
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from diffusers_tpo.families import Family, family_of


WIDTH = tiny.WIDTH


def make_vae(channels: int = 4, **config) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=tiny.RESOLUTION,
        **config,
    )


def make_clip(tokenizer, with_projection: bool):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if with_projection else CLIPTextModel)(config)


def make_tokenizer():
    tokenizer = tiny.make_tokenizer()
    tokenizer.model_max_length = 77
    return tokenizer


def make_t5(width: int = WIDTH) -> tuple[T5Tokenizer, T5EncoderModel]:
    """Every letter is a token."""
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocab += [(letter, -3.0) for letter in string.ascii_lowercase + string.digits]
    tokenizer = T5Tokenizer(vocab=vocab, extra_ids=0)
    config = T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return tokenizer, T5EncoderModel(config)


def make_sdxl() -> StableDiffusionXLPipeline:
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    tokenizer = make_tokenizer()
    return StableDiffusionXLPipeline(
        vae=make_vae(),
        text_encoder=make_clip(tokenizer, False),
        text_encoder_2=make_clip(tokenizer, True),
        tokenizer=tokenizer,
        tokenizer_2=make_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    )


def make_sd3() -> StableDiffusion3Pipeline:
    tokenizer, (t5_tokenizer, t5) = make_tokenizer(), make_t5(2 * WIDTH)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=16,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=make_vae(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=make_clip(tokenizer, True),
        tokenizer=tokenizer,
        text_encoder_2=make_clip(tokenizer, True),
        tokenizer_2=make_tokenizer(),
        text_encoder_3=t5,
        tokenizer_3=t5_tokenizer,
    )


def make_flux(guidance_embeds: bool = True) -> FluxPipeline:
    tokenizer, (t5_tokenizer, t5) = make_tokenizer(), make_t5()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 4, 8),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance_embeds),
        vae=make_vae(shift_factor=0.11, scaling_factor=0.36),
        text_encoder=make_clip(tokenizer, False),
        tokenizer=tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    )


def make_schnell() -> FluxPipeline:
    return make_flux(guidance_embeds=False)


MAKERS = {"sd": tiny.make_pipe, "sdxl": make_sdxl, "sd3": make_sd3, "flux": make_flux, "schnell": make_schnell}
MAKERS |= tiny_newer.MAKERS
MAKERS |= tiny_pixart_sana.MAKERS


def no_guidance(pipe) -> dict:
    """Flags of a pipeline's call; Z-Image counts the guidance from 0."""
    return {"guidance_scale": 0.0 if isinstance(pipe, ZImagePipeline) else 1.0}


# Tokens to which prompts are padded: 512 of most families would take longer than all else that is computed.
PROMPT_LENGTHS = {"StableDiffusion3Pipeline": 32, "FluxPipeline": 32, "Flux2KleinPipeline": 64, "Flux2Pipeline": 64}
PROMPT_LENGTHS |= {"PixArtSigmaPipeline": 32, "PixArtAlphaPipeline": 32, "SanaPipeline": 32}


def short_prompts(pipe) -> dict:
    """The option of families and of a pipeline's call that keeps prompts short, where they are padded."""
    name = type(pipe).__name__
    return {"max_sequence_length": PROMPT_LENGTHS[name]} if name in PROMPT_LENGTHS else {}


def short_family(pipe) -> Family:
    """The family of a pipeline that makes of prompts what a call with [`call_flags`] does."""
    return family_of(pipe, **short_prompts(pipe))


def call_flags(pipe) -> dict:
    """Of a pipeline's call: the size of images whose latents are 8x8, kept from a table of usual sizes, and short prompts."""
    side = tiny.LATENT[1] * pipe.vae_scale_factor
    binning = {"use_resolution_binning": False} if isinstance(pipe, tiny_pixart_sana.BINNED) else {}
    return {"height": side, "width": side} | binning | short_prompts(pipe)


def make_pipe(name: str):
    """The same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = MAKERS[name]()
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe
