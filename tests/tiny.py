"""Real but tiny models and data, built in memory: what the tests use in place of downloads and mocks."""

import datasets
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusers_tpo import Draw, TPOConfig, TPOTrainer, add_noise, training_scheduler
from diffusers_tpo.models.adapters import add_lora


RESOLUTION = 16
LATENT = (4, 8, 8)
TOKENS = 24
WIDTH = 16
FLOAT_TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    """The same numbers whatever was drawn before."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_tokenizer() -> CLIPTokenizer:
    """Every byte is a token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=TOKENS)


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT[1],
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def make_pipe(prediction_type: str = "epsilon", seed: int = 0) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline for 16x16 images, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = make_tokenizer()
        text_config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        pipe = StableDiffusionPipeline(
            vae=AutoencoderKL(
                block_out_channels=(8, 16),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=RESOLUTION,
            ),
            text_encoder=CLIPTextModel(text_config),
            tokenizer=tokenizer,
            unet=make_unet(),
            scheduler=DDIMScheduler(
                clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type=prediction_type
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    for model in (pipe.vae, pipe.text_encoder, pipe.unet):
        model.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_images(number: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (number, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((RESOLUTION, RESOLUTION)) for pixels in coarse]


def make_rows(number: int = 8) -> dict[str, list]:
    """The columns of a text-preference data set: two mismatched prompts per row."""
    return {
        "image": make_images(number),
        "prompt": [f"cat {i}" for i in range(number)],
        "negative_prompts": [[f"dog {i}", f"{i} red cats"] for i in range(number)],
        "principles": [["content", "attribute"]] * number,
        "editor": ["rules"] * number,
    }


def make_dataset(number: int = 8, **columns) -> datasets.Dataset:
    """The same as a data set; `columns` replace or, if `None`, remove columns."""
    rows = {name: values for name, values in (make_rows(number) | columns).items() if values is not None}
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


def make_policy(prediction_type: str = "epsilon", rank: int = 4, dropout: float = 0.0, b: float = 0.0):
    """A tiny pipeline whose UNet carries a LoRA; LoRA's B starts at zero, `b` fills it so that the LoRA has an effect."""
    pipe = make_pipe(prediction_type)
    torch.manual_seed(0)
    add_lora(pipe.unet, ("to_q", "to_k", "to_v", "to_out.0"), rank=rank, dropout=dropout)
    if b:
        with torch.no_grad():
            for name, parameter in pipe.unet.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=b)
    return pipe


def make_batch(pipe, images: int = 2, mismatched: int = 1, number: int = 0):
    """Noised rows, conditioning and labels in blocks: what `tpo_loss` takes."""
    trainer = TPOTrainer()
    latents = randn(images, *LATENT, seed=number)
    draws = [Draw(0, row, number) for row in range(images)]
    noised = add_noise(training_scheduler(pipe.scheduler), latents, draws).repeat(1 + mismatched)
    prompts = [f"{kind} {i}" for kind in ["cat", "dog", "red cats", "a car"][: 1 + mismatched] for i in range(images)]
    with torch.no_grad():
        cond = trainer.family.encode_prompts(pipe, prompts)
    return noised, cond, torch.arange(len(prompts)) < images


def make_trainer(**objective) -> TPOTrainer:
    return TPOTrainer(TPOConfig(**objective))


def train(trainer: TPOTrainer, denoiser, batches: list, lr: float = 1e-3) -> list[dict[str, float]]:
    """One AdamW step per batch; returns the metrics of every step."""
    optimizer = torch.optim.AdamW([p for p in denoiser.parameters() if p.requires_grad], lr=lr)
    history = []
    for batch in batches:
        loss, metrics = trainer.tpo_loss(denoiser, *batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append({name: value.item() for name, value in metrics.items()})
    return history
