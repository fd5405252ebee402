"""Sana: a transformer with linear attention, told the prompt by Gemma 2, that predicts the flow from image to noise."""

import inspect
from dataclasses import dataclass
from typing import ClassVar

import torch
from accelerate.utils import extract_model_from_parallel
from diffusers import DiffusionPipeline
from torch import Tensor, nn


@dataclass(frozen=True)
class Sana:
    """`max_sequence_length` counts the prompt's tokens without the instruction that the pipeline puts before it.

    The autoencoder is deterministic: its latents have no spread.
    """

    max_sequence_length: int = 300

    denoiser: ClassVar[str] = "transformer"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    text_encoders: ClassVar[tuple[str, ...]] = ()
    unconditional: ClassVar[str] = "first half"
    unguided: ClassVar[float] = 1.0

    def asks_empty_prompt(self, pipe: DiffusionPipeline) -> bool:
        return True

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
        call = inspect.signature(type(pipe).__call__).parameters
        embeddings, mask = self._encode(pipe, prompts, call["complex_human_instruction"].default)
        empty = [row for row, prompt in enumerate(prompts) if not prompt]
        if empty:  # the pipeline gives its instruction only to what it is asked for
            embeddings[empty], mask[empty] = self._encode(pipe, [""], None)
        return {"encoder_hidden_states": embeddings, "encoder_attention_mask": mask}

    def _encode(
        self, pipe: DiffusionPipeline, prompts: list[str], instruction: list[str] | None
    ) -> tuple[Tensor, Tensor]:
        return pipe.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            device=pipe.text_encoder.device,
            max_sequence_length=self.max_sequence_length,
            complex_human_instruction=instruction,
        )[:2]

    def encode_sizes(self, sizes: Tensor) -> dict[str, Tensor]:
        return {}

    def encode_images(self, pipe: DiffusionPipeline, pixels: Tensor) -> tuple[Tensor, Tensor]:
        latents = pipe.vae.encode(pixels.to(pipe.vae.device, pipe.vae.dtype, non_blocking=True)).latent.float()
        return latents * pipe.vae.config.scaling_factor, torch.zeros_like(latents)

    def idle_layers(self, denoiser: nn.Module) -> list[nn.Module]:
        return []

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, cond: dict[str, Tensor]) -> Tensor:
        scale = extract_model_from_parallel(denoiser).config.timestep_scale
        return denoiser(latents, timestep=timesteps * scale, **cond).sample[:, : latents.shape[1]]
