#!/usr/bin/env python
r"""Trains the tiny Stable Diffusion pipeline of the embedded shapes world: from scratch, or on from one.

    python examples/text_preference/pretrain_shapes.py --output_dir src/diffusers_tpo/shapes/pipeline
    python examples/text_preference/pretrain_shapes.py --output_dir outputs/converged \
        --start_from src/diffusers_tpo/shapes/pipeline --steps 1200 --learning_rate 6e-4 --lr_scheduler cosine
    python examples/text_preference/pretrain_shapes.py --output_dir outputs/web \
        --start_from src/diffusers_tpo/shapes/pipeline --steps 500 --learning_rate 3e-4 --wrong_captions 0.5
    python examples/text_preference/pretrain_shapes.py --output_dir outputs/bag \
        --start_from src/diffusers_tpo/shapes/pipeline --steps 400 --learning_rate 6e-4 --lr_scheduler cosine --bag_of_words

The first is the base that the package ships: about 30 minutes on two CPU cores. The second has converged, so that more
supervised training of the study's length gives it nothing; the third was told wrong captions, as alt text is; the fourth has a
text encoder that hardly knows the order of words, as CLIP's does, so that it confuses captions. Nothing is downloaded. The weights are averaged (EMA) and saved in half precision, which keeps the whole pipeline under 12 MB;
`from_pretrained` loads them as float32.
"""

import copy
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from tqdm.auto import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.files import make_folder
from diffusers_tpo.flags import AtLeastOne, PositiveNumber, Range, Share, flag
from diffusers_tpo.models.loading import why
from diffusers_tpo.shapes.images import RESOLUTION, render
from diffusers_tpo.shapes.scenes import PRINCIPLES, Scene, mismatched_scene, sample_scene
from diffusers_tpo.shapes.verify import verify


TOKENS = 24  # the longest caption has 22 tokens


def make_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges make every word of the world one token and spell out any other text."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=4000, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(captions, trainer)
    learned = json.loads(learner.to_str())["model"]
    letters = sorted(alphabet)
    tokens = letters + [letter + "</w>" for letter in letters]
    tokens += [token for token in learned["vocab"] if token not in set(tokens)]
    vocab = {token: index for index, token in enumerate(tokens + ["<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[tuple(pair) for pair in learned["merges"]], model_max_length=TOKENS)


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=RESOLUTION,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=128,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=RESOLUTION // 4,
        layers_per_block=1,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule; v-prediction weighs the noisy timesteps, where the prompt decides."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def train_vae(vae: AutoencoderKL, images: torch.Tensor, steps: int, batch_size: int, learning_rate: float):
    """Reconstruction plus a light KL term; sets the scaling factor so that latents have unit variance."""
    vae.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=learning_rate, fused=True)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=100, num_training_steps=steps)
    progress = tqdm(range(steps), desc="VAE", mininterval=10)
    for _ in progress:
        batch = images[torch.randint(len(images), (batch_size,))]
        posterior = vae.encode(batch).latent_dist
        reconstruction = vae.decode(posterior.sample()).sample
        loss = F.l1_loss(reconstruction, batch) + F.mse_loss(reconstruction, batch) + 1e-5 * posterior.kl().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    latents = encode(vae, images[:2048])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))


def train_decoder(vae: AutoencoderKL, images: torch.Tensor, steps: int, batch_size: int, learning_rate: float):
    """Goes on with the decoder alone, from slightly noisy latents as a denoiser leaves them; latents stay what they are."""
    latents = encode(vae, images)
    parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0, fused=True)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=50, num_training_steps=steps)
    for _ in tqdm(range(steps), desc="decoder", mininterval=10):
        rows = torch.randint(len(images), (batch_size,))
        noisy = latents[rows] + 0.05 * latents.std() * torch.randn(batch_size, *latents.shape[1:])
        reconstruction = vae.decode(noisy).sample
        loss = F.l1_loss(reconstruction, images[rows]) + F.mse_loss(reconstruction, images[rows])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


@torch.no_grad()
def encode(vae: AutoencoderKL, images: torch.Tensor, batch_size: int = 256) -> torch.Tensor:
    """Samples unscaled latents (N, 4, 8, 8)."""
    return torch.cat([vae.encode(batch).latent_dist.sample() for batch in images.split(batch_size)])


@torch.no_grad()
def reconstruction_alignment(vae: AutoencoderKL, images: torch.Tensor, scenes: list) -> float:
    """The share of images that still show their scene after the VAE: the ceiling of any model behind it."""
    decoded = vae.decode(vae.encode(images).latent_dist.mean).sample
    return np.mean([verify(to_uint8(pixels), scene)["aligned"] for pixels, scene in zip(decoded, scenes, strict=True)])


def to_uint8(pixels: torch.Tensor) -> np.ndarray:
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def wrong_caption(rng: random.Random, scene: Scene) -> str:
    """The caption of the scene after one edit or two, each by a principle drawn at random."""
    edited = scene
    for _ in range(rng.choice((1, 2))):
        edited = mismatched_scene(rng, edited, rng.choice(list(PRINCIPLES))) or edited
    return edited.caption()


def train_denoiser(
    pipe: StableDiffusionPipeline, latents, token_ids, steps, batch_size, learning_rate, lr_scheduler, save
):
    """Trains UNet and, unless it is frozen, text encoder with v-prediction and 10 % empty captions; leaves their averages."""
    unet, text_encoder, scheduler = pipe.unet, pipe.text_encoder, pipe.scheduler
    unet.to(memory_format=torch.channels_last)
    empty = pipe.tokenizer("", padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    averages = [
        EMAModel(model.parameters(), decay=0.9995, use_ema_warmup=True, power=0.75) for model in (unet, text_encoder)
    ]
    parameters = [one for one in (*unet.parameters(), *text_encoder.parameters()) if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01, fused=True)

    schedule = get_scheduler(lr_scheduler, optimizer, num_warmup_steps=200, num_training_steps=steps)
    progress = tqdm(range(1, steps + 1), desc="denoiser", mininterval=10)
    mean_loss = None
    for step in progress:
        rows = torch.randint(len(latents), (batch_size,))
        clean, ids = latents[rows], token_ids[rows]
        ids = torch.where(torch.rand(batch_size, 1) < 0.1, empty, ids)
        noise = torch.randn_like(clean)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (batch_size,))
        noisy = scheduler.add_noise(clean, noise, timesteps)
        prediction = unet(noisy, timesteps, text_encoder(ids).last_hidden_state).sample
        loss = F.mse_loss(prediction, scheduler.get_velocity(clean, noise, timesteps))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        for average, model in zip(averages, (unet, text_encoder), strict=True):
            average.step(model.parameters())
        mean_loss = loss.item() if mean_loss is None else 0.99 * mean_loss + 0.01 * loss.item()
        progress.set_postfix(loss=f"{mean_loss:.4f}", refresh=False)
        if step % 500 == 0 or step == steps:
            for average, model in zip(averages, (unet, text_encoder), strict=True):
                average.store(model.parameters())
                average.copy_to(model.parameters())
            save()
            if step < steps:
                for average, model in zip(averages, (unet, text_encoder), strict=True):
                    average.restore(model.parameters())


def new_pipeline(captions: list[str]) -> StableDiffusionPipeline:
    """A pipeline with random weights whose tokenizer knows the words of these captions."""
    tokenizer = make_tokenizer(captions)
    return StableDiffusionPipeline(
        vae=make_vae(),
        text_encoder=make_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=make_unet(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def load_pipeline(source: str) -> StableDiffusionPipeline:
    """A pipeline of this world in float32, with the scheduler that it is trained with.

    Raises:
        UserError: if it cannot be loaded.
    """
    try:
        pipe = StableDiffusionPipeline.from_pretrained(source)
    except Exception as error:  # hostile or broken files raise many kinds
        raise UserError(f"--start_from {source!r} is no pipeline of the shapes world ({why(error)})") from error
    pipe.register_modules(scheduler=make_scheduler())
    pipe.unet.train().requires_grad_(True)
    pipe.text_encoder.train().requires_grad_(True)
    return pipe


def forget_order(text_encoder: CLIPTextModel) -> None:
    """Freezes a text encoder that no longer knows where a word stands: only that it comes after others, by the causal mask."""
    text_encoder.requires_grad_(False)
    for name, weights in text_encoder.named_parameters():
        if name.endswith("position_embedding.weight"):
            weights.zero_()


def save_half(pipe: StableDiffusionPipeline, folder: Path):
    """Saves float16 copies; the pipeline itself stays in float32."""
    copies = {name: copy.deepcopy(getattr(pipe, name)).half() for name in ("unet", "vae", "text_encoder")}
    StableDiffusionPipeline(**{**pipe.components, **copies}, requires_safety_checker=False).save_pretrained(folder)
    config = folder / "text_encoder" / "config.json"  # transformers loads in the dtype that stands here
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))


@dataclass
class PretrainArguments:
    """How much is trained, and where it goes."""

    output_dir: str = flag(help="Folder of the pipeline.")
    start_from: str | None = flag(None, "Pipeline of this world to go on from: only the denoiser's steps are done.")
    num_scenes: Annotated[int, Range(at_least=2048, at_most=1_000_000)] = flag(80_000, "Images of the training.")
    vae_steps: AtLeastOne = flag(2_500, "Steps of encoder and decoder together ...")
    decoder_steps: AtLeastOne = flag(3_000, "... and of the decoder alone.")
    steps: AtLeastOne = flag(2_500, "Steps of the denoiser.")
    batch_size: AtLeastOne = flag(64, "Images in a step.")
    learning_rate: PositiveNumber = flag(7e-4, "Of the denoiser.")
    lr_scheduler: Literal["constant_with_warmup", "cosine"] = flag(
        "constant_with_warmup", "Of the denoiser's rate, after 200 steps of warm-up; cosine falls to 0."
    )
    wrong_captions: Share = flag(
        0.0, "Share of the images whose caption is edited once or twice, as alt text is wrong."
    )
    bag_of_words: bool = flag(False, "Freeze the text encoder without its position embeddings; needs start_from.")
    seed: Annotated[int, Range(at_least=0, below=2**32)] = flag(0, "Of scenes, weights and steps.")


def main(args: PretrainArguments) -> None:
    if args.bag_of_words and args.start_from is None:
        raise UserError("--bag_of_words keeps a text encoder that knows the words; give --start_from")
    output = Path(args.output_dir)
    make_folder(output, "--output_dir")
    start = None if args.start_from is None else load_pipeline(args.start_from)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    scenes = [sample_scene(rng) for _ in range(args.num_scenes)]
    images = torch.from_numpy(np.stack([render(scene, rng) for scene in scenes]))
    images = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    if start is None:
        pipe = new_pipeline([scene.caption() for scene in scenes])
        train_vae(pipe.vae, images, args.vae_steps, args.batch_size, learning_rate=2e-3)
        train_decoder(pipe.vae, images, args.decoder_steps, batch_size=48, learning_rate=2e-3)
        kept = reconstruction_alignment(pipe.vae, images[:1000], scenes[:1000])
        print(f"VAE keeps {kept:.1%} of the images aligned")
    else:
        pipe = start
    if args.bag_of_words:
        forget_order(pipe.text_encoder)
    pipe.vae.requires_grad_(False)
    latents = encode(pipe.vae, images) * pipe.vae.config.scaling_factor

    rng = random.Random(f"captions/{args.seed}")
    captions = [
        wrong_caption(rng, scene) if rng.random() < args.wrong_captions else scene.caption() for scene in scenes
    ]
    told = pipe.tokenizer(captions, padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    train_denoiser(
        pipe,
        latents,
        told,
        args.steps,
        args.batch_size,
        args.learning_rate,
        args.lr_scheduler,
        lambda: save_half(pipe, output),
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(PretrainArguments, description=__doc__))
