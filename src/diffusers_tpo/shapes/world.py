"""The embedded world as a user meets it: its pipeline, its data sets, its exact evaluation. Knows nothing of training."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from tqdm.auto import tqdm

from ..memory import FittingBatches
from .images import render
from .scenes import PRINCIPLES, Scene, mismatched_scene, sample_scene
from .verify import verify


PIPELINE = Path(__file__).parent / "pipeline"
MAX_SCENES = 2**16  # draws that find nearly all of the 3686 captions of the split
FACTS = ("aligned", *PRINCIPLES, "clean")


def make_scenes(number: int, seed: int, held_out: bool = False) -> list[Scene]:
    """Draws scenes of one split."""
    rng = random.Random(f"scenes/{held_out}/{seed}")
    return [sample_scene(rng, held_out) for _ in range(number)]


def held_out_captions(number: int, seed: int = 0) -> list[tuple[str, str]]:
    """Captions of scenes that training never shows, each once and in the order in which `make_scenes` draws them.

    Args:
        number: how many captions; fewer come back only where the held-out split has no more.
        seed: of the scenes.

    Returns:
        Captions, each with its category, "one group" or "two groups".
    """
    drawn = min(number, MAX_SCENES)
    captions: dict[str, str] = {}
    while True:
        for scene in make_scenes(drawn, seed, held_out=True):  # begins with the scenes of the draw before
            captions.setdefault(scene.caption(), "one group" if len(scene.groups) == 1 else "two groups")
        if len(captions) >= number or drawn == MAX_SCENES:
            break
        drawn = min(2 * drawn, MAX_SCENES)
    return list(captions.items())[:number]


def make_rows(scenes: list[Scene], seed: int) -> datasets.Dataset:
    """A text-preference data set: the image and caption of every scene, and one mismatched caption per principle."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "prompt": datasets.Value("string"),
            "negative_prompts": datasets.List(datasets.Value("string")),
            "principles": datasets.List(datasets.Value("string")),
            "editor": datasets.Value("string"),
        }
    )

    def rows() -> Iterator[dict[str, Any]]:
        rng = random.Random(f"rows/{seed}")
        for scene in scenes:
            drawn = {principle: mismatched_scene(rng, scene, principle) for principle in PRINCIPLES}
            edits = {principle: edited for principle, edited in drawn.items() if edited is not None}
            yield {
                "image": render(scene, rng),
                "prompt": scene.caption(),
                "negative_prompts": [edited.caption() for edited in edits.values()],
                "principles": list(edits),
                "editor": "shapes",
            }

    return datasets.Dataset.from_list(list(rows()), features=features)


def make_captions(number: int, seed: int) -> datasets.Dataset:
    """Images and captions of the training split, without mismatched captions: columns `image` and `prompt`."""
    rng = random.Random(f"images/{seed}")
    scenes = make_scenes(number, seed)
    features = datasets.Features({"image": datasets.Image(), "prompt": datasets.Value("string")})
    rows = [{"image": render(scene, rng), "prompt": scene.caption()} for scene in scenes]
    return datasets.Dataset.from_list(rows, features=features)


@torch.no_grad()
def draw_images(
    pipe: StableDiffusionPipeline,
    scenes: list[Scene],
    seed: int,
    guidance_scale: float,
    steps: int = 20,
    batch_size: int = 64,
    progress: bool = True,
) -> np.ndarray:
    """Renders the captions of scenes with a model: uint8 `(N, 32, 32, 3)`. Image `i` has its own generator, so any two models
    and guidance scales start from the same noise."""
    call = {"guidance_scale": guidance_scale, "num_inference_steps": steps, "output_type": "np"}

    def draw(part: list[int]) -> list[np.ndarray]:
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + index) for index in part]
        images = pipe([scenes[index].caption() for index in part], generator=generators, **call).images
        bar.update(len(part))
        return list((images * 255).round().astype(np.uint8))

    with tqdm(total=len(scenes), desc=f"guidance {guidance_scale:g}", disable=not progress) as bar:
        images = FittingBatches("images", batch_size).map(draw, list(range(len(scenes))))
    return np.stack(images)


def verify_images(images: np.ndarray, scenes: list[Scene]) -> dict[str, np.ndarray]:
    """Exact facts of every image: boolean `(N,)` for each of [`FACTS`]."""
    rows = [verify(image, scene) for image, scene in zip(images, scenes, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in FACTS}
