"""FLUX.2, dev and klein: a transformer over patches of latents, told the prompt by several layers of a language model."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from accelerate.utils import extract_model_from_parallel
from diffusers import DiffusionPipeline, Flux2Pipeline
from torch import Tensor, nn

from .flux import Flux


@dataclass(frozen=True)
class Flux2(Flux):
    """Its latents are `(N, C, H, W)` and scaled patch by patch of 2x2, as the autoencoder's batch norm has it."""

    lora_targets: ClassVar[tuple[str, ...]] = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.to_qkv_mlp_proj",
    )
    text_encoders: ClassVar[tuple[str, ...]] = ()

    def asks_empty_prompt(self, pipe: DiffusionPipeline) -> bool:
        return not pipe.config.get("is_distilled", True)  # of klein alone the configuration says so

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
        embeddings, _ = pipe.encode_prompt(
            prompts, device=pipe.text_encoder.device, max_sequence_length=self.max_sequence_length
        )
        return {"encoder_hidden_states": embeddings}

    def encode_images(self, pipe: DiffusionPipeline, pixels: Tensor) -> tuple[Tensor, Tensor]:
        posterior = pipe.vae.encode(pixels.to(pipe.vae.device, pipe.vae.dtype, non_blocking=True)).latent_dist
        shift = pipe.vae.bn.running_mean.float().view(-1, 1, 1)
        scale = (pipe.vae.bn.running_var.float() + pipe.vae.config.batch_norm_eps).rsqrt().view(-1, 1, 1)
        mean, std = (Flux2Pipeline._patchify_latents(x.float()) for x in (posterior.mean, posterior.std))
        unpatchify = Flux2Pipeline._unpatchify_latents
        return unpatchify((mean - shift) * scale), unpatchify(std * scale)

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, cond: dict[str, Tensor]) -> Tensor:
        patches, text = Flux2Pipeline._patchify_latents(latents), cond["encoder_hidden_states"]
        rows = len(latents)
        place: dict[str, Any] = {"device": latents.device, "dtype": torch.float32}
        is_distilled = extract_model_from_parallel(denoiser).config.guidance_embeds
        tokens = denoiser(
            hidden_states=Flux2Pipeline._pack_latents(patches),
            timestep=timesteps.float() / 1000,  # the unit of its embedding, whatever the schedule's length
            guidance=torch.full((rows,), self.guidance_scale, **place) if is_distilled else None,
            encoder_hidden_states=text,
            txt_ids=Flux2Pipeline._prepare_text_ids(text[:1]).expand(rows, -1, -1).to(latents.device),
            img_ids=Flux2Pipeline._prepare_latent_ids(patches).to(latents.device),
        ).sample
        return Flux2Pipeline._unpatchify_latents(tokens.transpose(1, 2).reshape(patches.shape))
