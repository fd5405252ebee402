"""What differs between pipelines: three functions over the bundle of models, one file a family.

To add a family without a fork, write a class with the members of [`Family`] and add a line:
`FAMILIES[MyPipeline] = MyFamily()`. A family knows nothing of losses, adapters or data.
"""

from typing import Protocol

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from torch import Tensor

from ..errors import UserError
from .stable_diffusion import StableDiffusion as StableDiffusion


Conditioning = dict[str, Tensor]  # every value is batch-first, so it can be cached, stacked and split blindly


class Family(Protocol):
    denoiser: str  # the pipeline's component that is trained: "unet" or "transformer"
    lora_targets: tuple[str, ...]

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> Conditioning:
        """Conditioning of `len(prompts)` rows."""

    def encode_images(self, pipe: DiffusionPipeline, pixels: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Scaled latents of pixels `(N, 3, H, W)` in [-1, 1]; row `i` samples with `generators[i]`."""

    def predict(self, denoiser: torch.nn.Module, latents: Tensor, timesteps: Tensor, cond: Conditioning) -> Tensor:
        """The denoiser's prediction, shaped like `latents`."""


FAMILIES: dict[type[DiffusionPipeline], Family] = {StableDiffusionPipeline: StableDiffusion()}


def family_of(pipe: DiffusionPipeline) -> Family:
    """The family of a pipeline, by its class or the nearest known base class.

    Raises:
        UserError: if no family is known for it.
    """
    for base in type(pipe).__mro__:
        if base in FAMILIES:
            return FAMILIES[base]
    known = ", ".join(sorted(cls.__name__ for cls in FAMILIES))
    raise UserError(
        f"pretrained_model_name_or_path is a {type(pipe).__name__}, which has no family here; use one of {known}, or add "
        "yours to diffusers_tpo.families.FAMILIES"
    )
