"""Stable Diffusion XL: two text encoders and a UNet that is also told the size and the crop of the image."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from .stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class StableDiffusionXL(StableDiffusion):
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
        embeddings, _, pooled, _ = pipe.encode_prompt(
            prompts, device=pipe.text_encoder_2.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        cond = {"encoder_hidden_states": embeddings, "text_embeds": pooled}
        if not pipe.config.force_zeros_for_empty_prompt:
            return cond
        is_told = torch.tensor([prompt != "" for prompt in prompts]).to(embeddings.device)
        return {name: value * is_told.view(-1, *[1] * (value.ndim - 1)) for name, value in cond.items()}

    def encode_sizes(self, sizes: Tensor) -> dict[str, Tensor]:
        return {"time_ids": sizes}
