"""Stable Diffusion 3 and 3.5: up to three text encoders and a transformer that predicts the flow from image to noise."""

from dataclasses import dataclass
from typing import ClassVar

from diffusers import DiffusionPipeline
from torch import Tensor, nn


@dataclass(frozen=True)
class StableDiffusion3:
    """`max_sequence_length` counts T5's tokens."""

    max_sequence_length: int = 256

    denoiser: ClassVar[str] = "transformer"
    lora_targets: ClassVar[tuple[str, ...]] = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "to_add_out",
    )
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")
    unconditional: ClassVar[str] = "first half"
    unguided: ClassVar[float] = 1.0

    def asks_empty_prompt(self, pipe: DiffusionPipeline) -> bool:
        return True

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
        embeddings, _, pooled, _ = pipe.encode_prompt(
            prompts,
            None,
            None,
            device=pipe.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        return {"encoder_hidden_states": embeddings, "pooled_projections": pooled}

    def encode_sizes(self, sizes: Tensor) -> dict[str, Tensor]:
        return {}

    def encode_images(self, pipe: DiffusionPipeline, pixels: Tensor) -> tuple[Tensor, Tensor]:
        posterior = pipe.vae.encode(pixels.to(pipe.vae.device, pipe.vae.dtype, non_blocking=True)).latent_dist
        shift, scale = pipe.vae.config.shift_factor, pipe.vae.config.scaling_factor
        return (posterior.mean.float() - shift) * scale, posterior.std.float() * scale

    def idle_layers(self, denoiser: nn.Module) -> list[nn.Module]:
        return []

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return denoiser(hidden_states=latents, timestep=timesteps, **cond).sample
