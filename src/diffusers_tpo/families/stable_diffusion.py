"""Stable Diffusion 1.x and 2.x: one text encoder and a UNet that predicts noise or velocity."""

from dataclasses import dataclass
from typing import ClassVar

from diffusers import DiffusionPipeline
from torch import Tensor, nn


@dataclass(frozen=True)
class StableDiffusion:
    denoiser: ClassVar[str] = "unet"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    unconditional: ClassVar[str] = "first half"
    unguided: ClassVar[float] = 1.0

    def asks_empty_prompt(self, pipe: DiffusionPipeline) -> bool:
        return pipe.unet.config.time_cond_proj_dim is None  # a latent consistency model is told its scale

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
        embeddings, _ = pipe.encode_prompt(
            prompts, device=pipe.text_encoder.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": embeddings}

    def encode_sizes(self, sizes: Tensor) -> dict[str, Tensor]:
        return {}

    def encode_images(self, pipe: DiffusionPipeline, pixels: Tensor) -> tuple[Tensor, Tensor]:
        posterior = pipe.vae.encode(pixels.to(pipe.vae.device, pipe.vae.dtype, non_blocking=True)).latent_dist
        scale = pipe.vae.config.scaling_factor
        return posterior.mean.float() * scale, posterior.std.float() * scale

    def idle_layers(self, denoiser: nn.Module) -> list[nn.Module]:
        return []

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """A UNet is told sizes and pooled text too where the conditioning names them, as that of Stable Diffusion XL does."""
        added = {name: cond[name].to(latents.device) for name in ("text_embeds", "time_ids") if name in cond}
        text = cond["encoder_hidden_states"]
        return denoiser(latents, timesteps, encoder_hidden_states=text, added_cond_kwargs=added).sample
