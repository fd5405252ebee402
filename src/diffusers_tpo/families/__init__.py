"""What differs between pipelines: four functions over the bundle of models, one file a family.

To add a family without a fork, write a class with the members of [`Family`] and add a line:
`FAMILIES[MyPipeline] = MyFamily()`. A family knows nothing of losses, adapters or data.
"""

from typing import Protocol

import torch
from diffusers import (
    DiffusionPipeline,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from torch import Tensor

from ..errors import UserError
from .flux import Flux as Flux
from .stable_diffusion import StableDiffusion as StableDiffusion
from .stable_diffusion_3 import StableDiffusion3 as StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL as StableDiffusionXL


Conditioning = dict[str, Tensor]  # every value is batch-first, so it can be cached, stacked and split blindly


class Family(Protocol):
    denoiser: str  # the pipeline's component that is trained: "unet" or "transformer"
    lora_targets: tuple[str, ...]

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> Conditioning:
        """Conditioning of `len(prompts)` rows."""

    def encode_sizes(self, sizes: Tensor) -> Conditioning:
        """What the denoiser is told of the images besides the prompt, of `N` rows; empty for most.

        Args:
            sizes: `(N, 6)`, float32 pixels: original height and width, top and left of the crop, height and width of the crop.
        """

    def encode_images(self, pipe: DiffusionPipeline, pixels: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Scaled latents of pixels `(N, 3, H, W)` in [-1, 1]; row `i` samples with `generators[i]`."""

    def predict(self, denoiser: torch.nn.Module, latents: Tensor, timesteps: Tensor, cond: Conditioning) -> Tensor:
        """The denoiser's prediction, shaped like `latents`."""


FAMILIES: dict[type[DiffusionPipeline], Family] = {
    StableDiffusionPipeline: StableDiffusion(),
    StableDiffusionXLPipeline: StableDiffusionXL(),
    StableDiffusion3Pipeline: StableDiffusion3(),
    FluxPipeline: Flux(),
}


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
