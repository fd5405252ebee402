"""Judges a model on the embedded world: exact alignment over guidance scales and its implicit preference."""

import numpy as np
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from .. import models
from ..evaluation.heldout import held_out_pairs
from ..evaluation.implicit import error_matrix, preference_values
from ..families import family_of
from ..noising import training_scheduler
from ..rows import Columns
from .images import RESOLUTION
from .scenes import Scene
from .world import PIPELINE, draw_images, make_rows, verify_images


def load_model(source=PIPELINE) -> StableDiffusionPipeline:
    """A pipeline of this world, or a LoRA or checkpoint on the shipped one; samples with DPM-Solver++."""
    pipe = models.load_model(str(source), base=str(PIPELINE))
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    return pipe


def implicit_preference(
    pipe: StableDiffusionPipeline, scenes: list[Scene], seed: int, strata: int = 8
) -> dict[str, np.ndarray]:
    """Whether a model denoises each scene's image better under its caption than under the edited ones.

    Returns:
        `(N,)` each, see [`~diffusers_tpo.evaluation.preference_values`].
    """
    family = family_of(pipe)
    pairs = held_out_pairs(make_rows(scenes, seed), Columns(), RESOLUTION, None)
    latents, sizes = pairs.encode(family, pipe, seed, batch_size=64)
    scheduler = training_scheduler(pipe.scheduler)
    errors = error_matrix(
        family, pipe, pipe.unet, scheduler, latents, sizes, pairs.prompts, strata, repeats=1, seed=seed, batch_size=320
    )
    return preference_values(errors, pairs.principles)


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
