"""Judges a model on the embedded world: exact alignment over guidance scales and its implicit preference."""

import numpy as np
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler, StableDiffusionPipeline
from diffusers.image_processor import VaeImageProcessor

from ..evaluation import error_matrix, prefers_matched
from ..families import family_of
from ..noising import Draw, training_scheduler
from .scenes import PRINCIPLES, Scene
from .world import PIPELINE, draw_images, make_rows, verify_images


def load_model(folder=None, base=PIPELINE) -> StableDiffusionPipeline:
    """The base pipeline, the base with the LoRA of a folder, or the pipeline of a folder; samples with DPM-Solver++."""
    is_pipeline = folder is not None and (folder / "model_index.json").is_file()
    pipe = DiffusionPipeline.from_pretrained(folder if is_pipeline else base, dtype=torch.float32)
    if folder is not None and not is_pipeline:
        pipe.load_lora_weights(folder)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def implicit_preference(
    pipe: StableDiffusionPipeline, scenes: list[Scene], seed: int, strata: int = 8
) -> dict[str, np.ndarray]:
    """Whether a model denoises each scene's image better under its caption than under the edited ones.

    Returns:
        `(N,)` each: `implicit/<principle>` of 0 and 1, `implicit` their mean per scene, and `margin`, by which share of the
        matched error the mismatched errors exceed it.
    """
    rows, family = make_rows(scenes, seed), family_of(pipe)
    pixels = VaeImageProcessor(do_resize=False).preprocess(rows["image"][:])
    generators = [Draw(seed, row).generator("vae") for row in range(len(scenes))]
    latents = family.encode_images(pipe, pixels, generators)
    prompts = [rows["prompt"][:], *zip(*rows["negative_prompts"][:], strict=True)]
    conds = [family.encode_prompts(pipe, list(column)) for column in prompts]
    scheduler = training_scheduler(pipe.scheduler)
    errors = error_matrix(family, pipe.unet, scheduler, latents, conds, strata, seed)
    preferred, margin = prefers_matched(errors).numpy(), errors[:, 1:].mean(dim=1) / errors[:, 0] - 1
    result = {f"implicit/{principle}": preferred[:, i] for i, principle in enumerate(PRINCIPLES)}
    return {"implicit": preferred.mean(axis=1), "margin": margin.numpy(), **result}


def judge(
    pipe: StableDiffusionPipeline,
    scenes: list[Scene],
    scales: tuple[float, ...],
    seed: int,
    steps: int = 10,
    progress=True,
) -> dict[str, np.ndarray]:
    """All facts of one model: `"<guidance>/<fact>"`, `(N,)` over the scenes, and its implicit preference on the first 256."""
    result = {}
    for scale in scales:
        facts = verify_images(draw_images(pipe, scenes, seed, scale, steps, progress=progress), scenes)
        result |= {f"{scale:g}/{name}": values.astype(float) for name, values in facts.items()}
    return result | implicit_preference(pipe, scenes[:256], seed)
