"""Pipelines with random weights in the shapes of Stable Diffusion, whole or in small. Knows nothing of training."""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers import UNet2DConditionModel as UNet
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny  # noqa: E402


TOKENS = 77
BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
SDXL_UNET = {  # beside the defaults of the class, which are those of Stable Diffusion 1.5
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def make_vae(divisor: int = 1) -> AutoencoderKL:
    widths = tuple(width // divisor for width in (128, 256, 512, 512))
    return AutoencoderKL(block_out_channels=widths, layers_per_block=2, norm_num_groups=32 // divisor, **BLOCKS)


def make_unet(divisor: int = 1) -> UNet:
    """The UNet of Stable Diffusion 1.5; heads and groups keep their size where their number is divided."""
    return UNet(
        sample_size=64,
        block_out_channels=tuple(width // divisor for width in (320, 640, 1280, 1280)),
        attention_head_dim=8 // divisor,  # which is the number of heads here
        cross_attention_dim=768 // divisor,
        norm_num_groups=32 // divisor,
    )


def make_text_encoder(kind=CLIPTextModel, width: int = 768, layers: int = 12, **config):
    tokenizer = tiny.make_tokenizer()
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    shape |= {"num_attention_heads": width // 64, "vocab_size": 49408, "max_position_embeddings": TOKENS}
    return kind(CLIPTextConfig(**shape, **ids, **config))


def make_tokenizer():
    tokenizer = tiny.make_tokenizer()
    tokenizer.model_max_length = TOKENS
    return tokenizer


def make_sd15(divisor: int = 1, text_layers: int = 12) -> StableDiffusionPipeline:
    """Stable Diffusion 1.5, or the same with every width divided."""
    return finish(
        StableDiffusionPipeline,
        vae=make_vae(divisor),
        unet=make_unet(divisor),
        text_encoder=make_text_encoder(width=768 // divisor, layers=text_layers),
        tokenizer=make_tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make_small() -> StableDiffusionPipeline:
    """Stable Diffusion 1.5 with a quarter of every width and one layer in the text encoder, for images of 128 pixels.

    At a sixteenth of the pixels one layer of twelve keeps the text encoder's small share of the work.
    """
    return make_sd15(divisor=4, text_layers=1)


def make_sdxl() -> StableDiffusionXLPipeline:
    projection = {"hidden_act": "gelu", "projection_dim": 1280}
    second = make_text_encoder(CLIPTextModelWithProjection, width=1280, layers=32, **projection)
    tokenizers = {"tokenizer": make_tokenizer(), "tokenizer_2": make_tokenizer()}
    models = {"vae": make_vae(), "unet": UNet(**SDXL_UNET), "text_encoder": make_text_encoder()}
    return finish(StableDiffusionXLPipeline, **models, text_encoder_2=second, **tokenizers)


def finish(kind, **parts):
    """A pipeline of these parts, frozen, with Stable Diffusion's noise schedule."""
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = DDIMScheduler(**betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    return kind(**parts, scheduler=scheduler)


def flops(make, side: int) -> dict[str, float]:
    """Floating-point operations of one image and one prompt in each part of `make()`, counted without computing them."""
    with torch.device("meta"):
        pipe = make()
        latents, width = torch.empty(1, 4, side // 8, side // 8), pipe.unet.config.cross_attention_dim
        prompt = torch.empty(1, TOKENS, width)
        calls = {
            "UNet": lambda: pipe.unet(latents, torch.empty(1), encoder_hidden_states=prompt),
            "VAE encoder": lambda: pipe.vae.encode(torch.empty(1, 3, side, side)),
            "text encoder": lambda: pipe.text_encoder(torch.empty(1, TOKENS, dtype=torch.long)),
        }
        return {name: count(call) for name, call in calls.items()}


@torch.no_grad()
def count(call) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def proportions(make, side: int) -> str:
    counted = flops(make, side)
    each = " : ".join(f"{value / counted['UNet']:.3f}" for value in counted.values())
    return f"{' : '.join(counted)} = {each}, {counted['UNet'] / 1e9:.1f} GFLOP in the UNet"


COUNTED = {  # whose work is counted, and at which side of the image
    "Stable Diffusion 1.5 at 512 pixels": (make_sd15, 512),
    "small, a quarter of its width, at 128 pixels": (make_small, 128),
}
