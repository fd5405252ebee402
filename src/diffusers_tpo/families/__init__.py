"""What differs between pipelines: four functions over the bundle of models, one file a family.

To add a family without a fork, write a class with the members of [`Family`] and add a line:
`FAMILIES[MyPipeline] = MyFamily()`. A family knows nothing of losses, adapters or data.
"""

import dataclasses
import inspect
import math
from typing import Any, Protocol

import torch
from diffusers import (
    DiffusionPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxPipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    QwenImagePipeline,
    SanaPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    ZImagePipeline,
)
from torch import Tensor

from ..errors import UserError
from .flux import Flux as Flux
from .flux2 import Flux2 as Flux2
from .pixart import PixArtAlpha as PixArtAlpha
from .pixart import PixArtSigma as PixArtSigma
from .qwen_image import EMPTY
from .qwen_image import QwenImage as QwenImage
from .sana import Sana as Sana
from .stable_diffusion import StableDiffusion as StableDiffusion
from .stable_diffusion_3 import StableDiffusion3 as StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL as StableDiffusionXL
from .z_image import ZImage as ZImage


Conditioning = dict[str, Tensor]  # every value is batch-first, so it can be cached, stacked and split blindly


class Family(Protocol):
    """What differs between pipelines; a new one is a class with these members and a line in `FAMILIES`."""

    @property
    def denoiser(self) -> str:
        """The pipeline's component that is trained: "unet" or "transformer"."""

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """Ends of the names of the layers that carry a LoRA."""

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The components that `train_text_encoder` trains; empty if none can be."""

    @property
    def unconditional(self) -> str:
        """Where a guided pipeline asks about the empty prompt: "first half" or "second half" of a batch, or "own call"."""

    @property
    def unguided(self) -> float:
        """The guidance scale at which a pipeline gives the prompt's own prediction: 1 for most, 0 for one that adds to it."""

    def asks_empty_prompt(self, pipe: DiffusionPipeline) -> bool:
        """Whether the pipeline is guided by its answer to the empty prompt, if it is called with a scale above 1 as
        [`call_arguments`] does; `False` for one that is guided by distillation."""

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> Conditioning:
        """Conditioning of `len(prompts)` rows; of an empty prompt that of the pipeline's rows without one, under guidance."""

    def encode_sizes(self, sizes: Tensor) -> Conditioning:
        """What the denoiser is told of the images besides the prompt, of `N` rows; empty for most.

        Args:
            sizes: `(N, 6)`, float32 pixels: original height and width, top and left of the crop, height and width of the crop.
        """

    def encode_images(self, pipe: DiffusionPipeline, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents of pixels `(N, 3, H, W)` in [-1, 1], in float32."""

    def idle_layers(self, denoiser: torch.nn.Module) -> list[torch.nn.Module]:
        """Layers whose output nothing uses, so that they cannot learn; none of most denoisers."""

    def predict(self, denoiser: torch.nn.Module, latents: Tensor, timesteps: Tensor, cond: Conditioning) -> Tensor:
        """The denoiser's prediction, shaped like `latents`; timesteps and sizes are numbers and keep their precision."""


FAMILIES: dict[type[DiffusionPipeline], Family] = {
    StableDiffusionPipeline: StableDiffusion(),
    StableDiffusionXLPipeline: StableDiffusionXL(),
    StableDiffusion3Pipeline: StableDiffusion3(),
    FluxPipeline: Flux(),
    Flux2Pipeline: Flux2(),
    Flux2KleinPipeline: Flux2(),
    QwenImagePipeline: QwenImage(),
    ZImagePipeline: ZImage(),
    PixArtSigmaPipeline: PixArtSigma(),
    PixArtAlphaPipeline: PixArtAlpha(),
    SanaPipeline: Sana(),
}


def family_of(pipe: DiffusionPipeline, **options: Any) -> Family:
    """The family of a pipeline, by its class or the nearest known base class.

    Args:
        options: what the family is told besides, such as `max_sequence_length`; `None` keeps its default.

    Raises:
        UserError: if no family is known for it, or an option is not one of the family's.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for base in type(pipe).__mro__:
        if base in FAMILIES:
            family = FAMILIES[base]
            for name in given:
                if not hasattr(family, name):
                    raise UserError(f"--{name} has no meaning for a {type(pipe).__name__}; leave it out")
            if not given:
                return family
            return dataclasses.replace(family, **given)  # type: ignore[type-var] # one with options is a dataclass
    known = ", ".join(sorted(cls.__name__ for cls in FAMILIES))
    raise UserError(
        f"--pretrained_model_name_or_path is a {type(pipe).__name__}, which has no family here; use one of {known}, or add "
        "yours to diffusers_tpo.families.FAMILIES"
    )


def call_arguments(
    pipe: DiffusionPipeline, prompts: list[str], guidance_scale: float, family: Family | None = None
) -> dict:
    """How a pipeline is called to render `prompts` with classifier-free guidance of this scale.

    Args:
        family: whose options the pipeline is told, as far as both have them; `None` leaves the pipeline's own.
    """
    told = inspect.signature(type(pipe).__call__).parameters
    options = {name: value for name, value in vars(family).items() if name in told} if family else {}
    options.pop("guidance_scale", None)  # a model is trained with one, and rendered with many
    if "true_cfg_scale" in told and told["guidance_scale"].default is None:  # it guides only with a negative prompt
        guidance = {"true_cfg_scale": guidance_scale, "negative_prompt": [EMPTY] * len(prompts)}
        return options | {"prompt": prompts} | guidance
    return options | {"prompt": prompts, "guidance_scale": guidance_scale}


def side_multiple(pipe: DiffusionPipeline, family: Family) -> int:
    """Of how many pixels the sides of an image must be multiples: what the pipeline rounds to and its patches need."""
    patch = getattr(pipe, family.denoiser).config.get("patch_size", 1)
    return math.lcm(pipe.image_processor.config.vae_scale_factor, pipe.vae_scale_factor * patch)
