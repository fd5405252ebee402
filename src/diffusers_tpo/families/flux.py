"""FLUX.1, guidance-distilled (dev) and schnell: a transformer over packed latents that predicts the flow from image to noise."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from accelerate.utils import extract_model_from_parallel
from diffusers import DiffusionPipeline, FluxPipeline
from torch import Tensor, nn

from .stable_diffusion_3 import StableDiffusion3


@dataclass(frozen=True)
class Flux(StableDiffusion3):
    """`guidance_scale` is what a guidance-distilled model is told while it trains; 1 leaves the distilled one as it is."""

    max_sequence_length: int = 512
    guidance_scale: float = 1.0

    lora_targets: ClassVar[tuple[str, ...]] = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    unconditional: ClassVar[str] = "own call"

    def asks_empty_prompt(self, pipe: DiffusionPipeline) -> bool:
        return False

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
        embeddings, pooled, _ = pipe.encode_prompt(
            prompts, device=pipe.text_encoder.device, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embeddings, "pooled_projections": pooled}

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, cond: dict[str, Tensor]) -> Tensor:
        rows, channels, height, width = latents.shape
        place: dict[str, Any] = {"device": latents.device, "dtype": torch.float32}
        is_distilled = extract_model_from_parallel(denoiser).config.guidance_embeds
        packed = denoiser(
            hidden_states=FluxPipeline._pack_latents(latents, rows, channels, height, width),
            timestep=timesteps.float() / 1000,  # the unit of its embedding, whatever the schedule's length
            guidance=torch.full((rows,), self.guidance_scale, **place) if is_distilled else None,
            txt_ids=torch.zeros(cond["encoder_hidden_states"].shape[1], 3, **place),
            img_ids=FluxPipeline._prepare_latent_image_ids(rows, height // 2, width // 2, **place),
            **cond,
        ).sample
        return FluxPipeline._unpack_latents(packed, height, width, vae_scale_factor=1)
