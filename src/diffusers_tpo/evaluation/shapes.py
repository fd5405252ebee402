"""Judges a model on the embedded world: exact alignment over guidance scales and its implicit preference."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import nn

from ..data.rows import Columns
from ..families import family_of
from ..guidance import guide_with_reference
from ..models import loading as models
from ..models.recipe import ModelRecipe
from ..noising import training_scheduler
from ..shapes.images import RESOLUTION
from ..shapes.scenes import Scene
from ..shapes.world import PIPELINE, draw_images, make_rows, verify_images
from .built_in_guidance import IMAGES, measure_shifts
from .heldout import held_out_pairs
from .implicit import error_matrix, preference_values


def load_model(source: str | Path = PIPELINE, base: str | Path = PIPELINE) -> StableDiffusionPipeline:
    """A pipeline of this world, or a LoRA or checkpoint on `base`; samples with DPM-Solver++. As fast as a CPU can: a LoRA is
    merged, and convolutions get the layout that they are computed in."""
    pipe = models.load_model(str(source), base=str(base)).pipe
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    if pipe.get_list_adapters():
        pipe.fuse_lora()
    for module in (pipe.unet, pipe.vae):
        module.to(memory_format=torch.channels_last)
    return pipe


def implicit_preference(
    pipe: StableDiffusionPipeline,
    scenes: list[Scene],
    seed: int,
    strata: int = 8,
    reference: nn.Module | None = None,
) -> dict[str, np.ndarray]:
    """Whether a model denoises each scene's image better under its caption than under the edited ones.

    Args:
        reference: the base's UNet, if the built-in guidance is to be measured too.

    Returns:
        `(N,)` each, see [`~diffusers_tpo.evaluation.preference_values`] and
        [`~diffusers_tpo.evaluation.built_in_guidance.Shifts.values`].
    """
    family = family_of(pipe)
    pairs = held_out_pairs(make_rows(scenes, seed), Columns(), RESOLUTION, None)
    latents, sizes = pairs.encode(family, pipe, seed, batch_size=64)
    scheduler = training_scheduler(pipe.scheduler)
    errors = error_matrix(
        family, pipe, pipe.unet, scheduler, latents, sizes, pairs.prompts, strata, repeats=1, seed=seed, batch_size=128
    )
    values = preference_values(errors, pairs.principles)
    if reference is None:
        return values
    model = models.LoadedModel(pipe, family, scheduler, ModelRecipe(""), reference)
    few = slice(IMAGES)
    shifts = measure_shifts(model, latents[few], sizes[few], pairs.prompts[few], strata, seed, batch_size=128)
    return values | shifts.values(pairs.principles, len(pairs))


def judge_images(
    pipe: StableDiffusionPipeline,
    scenes: list[Scene],
    scales: tuple[float, ...],
    seed: int,
    steps: int = 10,
    progress: bool = True,
    reference: nn.Module | None = None,
) -> dict[str, np.ndarray]:
    """What a model draws: `"<guidance>/<fact>"`, `(N,)` over the scenes.

    Args:
        reference: the base's UNet, which is asked about the empty prompt above guidance 1, see
            [`~diffusers_tpo.guidance.guide_with_reference`]; `None` asks the model itself.
    """
    result: dict[str, np.ndarray] = {}
    with contextlib.nullcontext() if reference is None else guide_with_reference(pipe, reference):
        for scale in scales:
            facts = verify_images(draw_images(pipe, scenes, seed, scale, steps, progress=progress), scenes)
            result |= {f"{scale:g}/{name}": values.astype(float) for name, values in facts.items()}
    return result


def judge(
    pipe: StableDiffusionPipeline,
    scenes: list[Scene],
    scales: tuple[float, ...],
    seed: int,
    steps: int = 10,
    strata: int = 8,
    progress: bool = True,
    reference: nn.Module | None = None,
) -> dict[str, np.ndarray]:
    """All facts of one model: those of [`judge_images`], and [`implicit_preference`] on the first 256 scenes."""
    drawn = judge_images(pipe, scenes, scales, seed, steps, progress, reference)
    return drawn | implicit_preference(pipe, scenes[:256], seed, strata, reference)


def judge_together(
    pipes: dict[str, StableDiffusionPipeline],
    scenes: list[Scene],
    scales: tuple[float, ...],
    seed: int,
    **options: Any,
) -> dict[str, dict[str, np.ndarray]]:
    """What [`judge`] says of each model, all at the same time: a small model keeps a core busy better than several.

    Args:
        options: of [`judge`], the same for all models.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // len(pipes)))  # of each
    try:
        with ThreadPoolExecutor(len(pipes)) as pool:
            judged = pool.map(lambda pipe: judge(pipe, scenes, scales, seed, **options), pipes.values())
            return dict(zip(pipes, judged, strict=True))
    finally:
        torch.set_num_threads(threads)
