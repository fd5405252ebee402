"""Shows a model while it trains: its prompts, rendered. Knows nothing of losses or data."""

import json
import logging
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from ..decoding import decode_file
from ..errors import reason
from ..evaluation.renders import sample_images
from ..families import Family
from ..guidance import GuideWith, guided
from ..memory import FittingBatches
from ..publish.model_card import Picture
from .session import Session
from .trained import TrainedModels


logger = logging.getLogger(__name__)
SETTINGS = "settings.json"
REHEARSAL = "dry_run"  # the folder of the image of a run that trains nothing
GAP = 4  # pixels between the images of a grid
SIDE = 512  # pixels of an image in a grid, at most ...
SMALL = 128  # ... and at least, if it can be enlarged by a whole factor


@dataclass(frozen=True)
class Validation:
    """The prompts that show what a model learns, each rendered with the seeds `seed`, `seed + 1`, ...

    Attributes:
        resolution: side of the square images in pixels.
        num_inference_steps: of the sampler, `None` for as many as the pipeline takes by itself.
        guide_with: who answers the empty prompt, see [`~diffusers_tpo.guidance.guide_with_reference`].
    """

    prompts: list[str]
    images_per_prompt: int
    guidance_scale: float
    resolution: int
    seed: int
    num_inference_steps: int | None = None
    guide_with: GuideWith = "model"

    def images(
        self, pipe: DiffusionPipeline, batch_size: int, may_halve: bool = True, family: Family | None = None
    ) -> list[list[Image.Image]]:
        """The images of every prompt; one that is not finite is black, and logged.

        Args:
            batch_size: images at once, of several prompts; fewer if they do not fit into memory.
            may_halve: `False` if processes render in step, where one of them must not try again alone.
            family: told what the model is trained with.
        """
        options = {"height": self.resolution, "width": self.resolution}
        if self.num_inference_steps is not None:
            options["num_inference_steps"] = self.num_inference_steps

        def sample(jobs: list[tuple[str, int]]) -> list[Image.Image]:
            generators = [torch.Generator().manual_seed(self.seed + index) for _, index in jobs]
            images = sample_images(
                pipe, [prompt for prompt, _ in jobs], generators, self.guidance_scale, family, **options
            )
            if None in images:
                logger.warning(
                    f"{images.count(None)} of {len(images)} validation images are not finite, and shown black"
                )
            return [Image.new("RGB", (self.resolution,) * 2) if image is None else image for image in images]

        number = self.images_per_prompt
        jobs = [(prompt, index) for prompt in self.prompts for index in range(number)]
        images = FittingBatches("validation images", batch_size, may_halve).map(sample, jobs)
        return [images[start : start + number] for start in range(0, len(images), number)]

    def is_in(self, folder: Path) -> bool:
        """Whether [`~Validation.show`] has filled a folder with the images of these prompts and settings."""
        path = folder / SETTINGS
        return path.is_file() and json.loads(path.read_text()) == asdict(self)

    def show(self, rendered: list[list[Image.Image]], folder: Path, trackers: list, step: int) -> None:
        """Writes `<prompt>-<image>.png` in place of what the folder holds, and sends them to TensorBoard and wandb."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number, images in enumerate(rendered):
            for index, image in enumerate(images):
                image.save(folder / f"{number}-{index}.png")
            for tracker in trackers:
                if tracker.name == "tensorboard":
                    pixels = np.stack([np.asarray(image) for image in images])
                    tracker.log_images({f"validation/{number}": pixels}, step=step, dataformats="NHWC")
                elif tracker.name == "wandb":
                    tracker.log_images({f"validation/{number}": images}, step=step)
        (folder / SETTINGS).write_text(json.dumps(asdict(self), indent=2))

    def side_by_side(self, before: Path, after: Path, assets: Path) -> list[Picture]:
        """Puts the images of each prompt from two folders of [`~Validation.show`] into grids.

        Returns:
            For each prompt its two grids in `assets`.
        """
        assets.mkdir(parents=True, exist_ok=True)
        for old in assets.glob("prompt-*.jpg"):
            old.unlink()
        pictures = []
        for number, prompt in enumerate(self.prompts):
            picture = Picture(prompt, f"prompt-{number}-before.jpg", f"prompt-{number}-after.jpg")
            for name, folder in ((picture.before, before), (picture.after, after)):
                paths = [folder / f"{number}-{index}.png" for index in range(self.images_per_prompt)]
                images = list(map(decode_file, paths))
                grid(images).save(assets / name, quality=92, subsampling=0)
            pictures.append(picture)
        return pictures


@dataclass(frozen=True)
class Gallery:
    """The validation images of a run: a folder `step-N` for each time, and first and last side by side for the card.

    Attributes:
        folder: of all of them.
        batch_size: images at once.
    """

    validation: Validation
    models: TrainedModels
    session: Session
    folder: Path
    batch_size: int

    def show(self, step: int) -> None:
        """Renders and shows the model of this step; call it on every process."""
        if not self.validation.prompts or not (self.session.accelerator.is_main_process or self.session.is_sharded):
            return
        may_halve, models = not self.session.is_sharded, self.models
        with models.at_rest() as pipe, self.session.accelerator.autocast():
            with guided(pipe, self.validation.guide_with, models.reference):
                images = self.validation.images(pipe, self.batch_size, may_halve, models.family)
        if self.session.accelerator.is_main_process:
            try:
                self.validation.show(images, self._of(step), self.session.accelerator.trackers, step)
            except OSError as error:  # no reason to lose the training
                logger.warning(f"the validation images of step {step} cannot be written ({reason(error)})")

    def show_base(self, is_resumed: bool) -> None:
        """The same before the first step, unless a run that goes on has done it."""
        if not (is_resumed and self.validation.is_in(self._of(0))):
            self.show(0)

    def side_by_side(self, step: int, assets: Path) -> list[Picture]:
        """Base and model of this step in `assets`, see [`Validation.side_by_side`]; nothing where nothing is shown."""
        if not self.validation.prompts or not self.session.accelerator.is_main_process:
            return []
        if not self.validation.is_in(self._of(0)):
            logger.warning(f"the base's images in {self._of(0)} were removed, so the card has no pictures")
            return []
        return self.validation.side_by_side(self._of(0), self._of(step), assets)

    def _of(self, step: int) -> Path:
        return self.folder / f"step-{step}"


def grid(images: list[Image.Image]) -> Image.Image:
    """Images of one size on white, in about as many rows as columns; large ones are made smaller, tiny ones larger."""
    factor = max(1, SMALL // max(images[0].size))
    images = [
        image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST) for image in images
    ]
    for image in images:
        image.thumbnail((SIDE, SIDE))
    columns = math.ceil(math.sqrt(len(images)))
    width, height = (side + GAP for side in images[0].size)
    sheet = Image.new("RGB", (columns * width - GAP, -(-len(images) // columns) * height - GAP), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet
