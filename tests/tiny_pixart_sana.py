"""Tiny pipelines of PixArt and Sana, built from configs: latents of 8x8 for images of 64x64 and 256x256."""

import inspect
import string

from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
)
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer, T5Config, T5EncoderModel, T5Tokenizer


WIDTH = 16
LETTERS = string.ascii_lowercase + string.digits


def make_t5() -> tuple[T5Tokenizer, T5EncoderModel]:
    """Every letter is a token."""
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    tokenizer = T5Tokenizer(vocab=vocab, extra_ids=0)
    config = T5Config(vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return tokenizer, T5EncoderModel(config)


def make_pixart(pipe_class=PixArtSigmaPipeline, sample_size: int = 32):
    """The sample size is what the pipeline looks up its resolutions by: 32 stands for 256 pixels, 128 for 1024."""
    tokenizer, text_encoder = make_t5()
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.7,
    )
    transformer = PixArtTransformer2DModel(
        sample_size=sample_size,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        in_channels=4,
        out_channels=8,
    )
    scheduler = DPMSolverMultistepScheduler(beta_schedule="linear")
    return pipe_class(tokenizer, text_encoder, vae, transformer, scheduler)


def make_pixart_alpha() -> PixArtAlphaPipeline:
    """With the size of the image as a condition."""
    return make_pixart(PixArtAlphaPipeline, sample_size=128)


def make_gemma_tokenizer() -> GemmaTokenizer:
    """Learns the words of the long instruction that the pipeline puts before a prompt, so that it is few tokens."""
    instruction = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    options = {"vocab_size": 400, "initial_alphabet": list(LETTERS), "show_progress": False}
    return GemmaTokenizer().train_new_from_iterator(["\n".join(instruction)], **options)


def make_sana() -> SanaPipeline:
    tokenizer = make_gemma_tokenizer()
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    blocks = {"block_out_channels": (4,) * 6, "layers_per_block": (1,) * 6, "qkv_multiscales": ((),) * 6}
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in blocks.items()}
    transformer = SanaTransformer2DModel(
        sample_size=16,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        in_channels=4,
        out_channels=4,
        timestep_scale=0.5,
    )
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    return SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=Gemma2Model(config),
        vae=AutoencoderDC(latent_channels=4, scaling_factor=0.4, **sides),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(**flow),
    )


MAKERS = {"pixart": make_pixart, "pixart_alpha": make_pixart_alpha, "sana": make_sana}
BINNED = (
    PixArtSigmaPipeline,
    PixArtAlphaPipeline,
    SanaPipeline,
)  # pipelines that look up a usual size for the one asked for
NO_LORA = ("pixart", "pixart_alpha")
