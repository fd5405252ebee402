"""Renders a prompt set with fixed seeds into a folder, so that a stopped run goes on where it was. Judges nothing."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from diffusers import DiffusionPipeline
from PIL import Image
from tqdm.auto import tqdm

from ..decoding import decode_file
from ..errors import BadRow, UserError
from ..families import Family, call_arguments, family_of
from ..memory import FittingBatches
from ..models.precision import precision_of
from ..noising import Draw


def image_path(folder: Path, index: int, number: int) -> Path:
    """Where image `number` of prompt `index` lies."""
    return Path(folder) / f"{index:05d}-{number}.png"


def marker_path(folder: Path, index: int, number: int) -> Path:
    """What lies in the place of an image that the model rendered as nan."""
    return image_path(folder, index, number).with_suffix(".nan")


def is_rendered(folder: Path, index: int, number: int) -> bool:
    """Whether the image, or the mark that it is none, is there."""
    return image_path(folder, index, number).exists() or marker_path(folder, index, number).exists()


@torch.no_grad()
def sample_images(
    pipe: DiffusionPipeline,
    prompts: list[str],
    generators: list[torch.Generator],
    guidance_scale: float,
    family: Family | None = None,
    **options: Any,
) -> list[Image.Image | None]:
    """Calls a pipeline.

    Args:
        family: of the pipeline, told what the model was trained with; by default the pipeline's own.
        options: of the pipeline, such as `num_inference_steps`.

    Returns:
        An image for each prompt; `None` for one with pixels that are not finite, which is no image.

    Raises:
        UserError: if the pipeline refuses an option, such as a size.
    """
    family = family_of(pipe) if family is None else family
    call = call_arguments(pipe, prompts, guidance_scale, family)
    try:
        with precision_of(getattr(pipe, family.denoiser)):
            pixels = pipe(**call, generator=generators, output_type="np", **options).images
    except ValueError as error:
        raise UserError(f"{type(pipe).__name__} cannot render: {error}") from error
    images = pipe.image_processor.numpy_to_pil(np.nan_to_num(pixels))
    is_whole = np.isfinite(pixels).all(axis=(1, 2, 3))
    return [image if whole else None for image, whole in zip(images, is_whole, strict=True)]


def sample_jobs(
    pipe: DiffusionPipeline, jobs: list[tuple[str, int]], seed: int, guidance_scale: float, **options: Any
) -> list[Image.Image | None]:
    """The images of one batch; see [`sample_images`].

    Args:
        jobs: prompt and number of each image. Its noise depends on the seed, the prompt and the number alone, so it is the same
            for every model, guidance scale, prompt set and batch.
    """
    generators = [Draw(seed, prompt, number).generator("image") for prompt, number in jobs]
    return sample_images(pipe, [prompt for prompt, _ in jobs], generators, guidance_scale, **options)


def render_missing(
    pipe: DiffusionPipeline,
    prompts: list[str],
    folder: Path,
    images_per_prompt: int,
    seed: int,
    batch_size: int,
    progress: str | None = None,
    **options: Any,
) -> int:
    """Renders what a folder lacks; every process takes its share. A prompt that occurs twice gets other images the second time.

    A batch that is not complete is rendered anew as a whole. So the batches, on whose make-up the last digits of an image may
    depend, are those of a run that was never stopped, with any number of processes. A batch that does not fit into memory is
    rendered in parts, and stays what is begun anew; how many parts is not kept, so where memory differs the last digits may.

    Args:
        options: of [`sample_jobs`].

    Returns:
        How many images this process rendered.
    """
    state = PartialState()
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(index, number) for index in range(len(prompts)) for number in range(images_per_prompt)]
    batches = [jobs[start : start + batch_size] for start in range(0, len(jobs), batch_size)]
    seen: Counter[str] = Counter()
    before = []
    for prompt in prompts:
        before.append(seen[prompt] * images_per_prompt)
        seen[prompt] += 1
    share = batches[state.process_index :: state.num_processes]
    mine = [batch for batch in share if not all(is_rendered(folder, *job) for job in batch)]
    hidden = progress is None or not state.is_local_main_process
    fitting = FittingBatches(f"images of {folder.parent.name}", batch_size)
    for batch in tqdm(mine, desc=progress, disable=hidden):
        images = fitting.map(
            lambda part: sample_jobs(pipe, part, seed, **options),
            [(prompts[i], before[i] + number) for i, number in batch],
        )
        for job, image in zip(batch, images, strict=True):
            if image is None:
                marker_path(folder, *job).touch()
            else:
                save_whole(image, image_path(folder, *job))
    return sum(map(len, mine))


def save_whole(image: Image.Image, path: Path) -> None:
    """Writes a PNG file that is there whole or not at all."""
    partial = path.with_name(f".partial-{path.name}")
    image.save(partial, format="PNG")
    os.replace(partial, path)


def read_image(path: Path) -> Image.Image | None:
    """The image in RGB; `None` if the file is missing or broken."""
    try:
        return decode_file(path)
    except BadRow:
        return None
