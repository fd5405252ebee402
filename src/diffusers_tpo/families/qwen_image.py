"""Qwen-Image: a transformer over packed latents of one video frame, told the prompt by a language model's last hidden states."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline, QwenImagePipeline
from torch import Tensor, nn
from torch.nn.functional import pad


EMPTY = " "  # the prompt of rows without one: the pipeline guides away from it


@dataclass(frozen=True)
class QwenImage:
    """`max_sequence_length` counts the tokens of the prompt and of the template after it, at most 1024."""

    max_sequence_length: int = 512

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
    text_encoders: ClassVar[tuple[str, ...]] = ()
    unconditional: ClassVar[str] = "own call"
    unguided: ClassVar[float] = 1.0

    def asks_empty_prompt(self, pipe: DiffusionPipeline) -> bool:
        return True

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
        embeddings, mask = pipe.encode_prompt(
            [prompt or EMPTY for prompt in prompts],
            device=pipe.text_encoder.device,
            max_sequence_length=self.max_sequence_length,
        )
        if mask is None:  # no prompt is shorter than another
            mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
        missing = self.max_sequence_length - embeddings.shape[1]
        return {
            "encoder_hidden_states": pad(embeddings, (0, 0, 0, missing)),
            "encoder_hidden_states_mask": pad(mask, (0, missing)),
        }

    def encode_sizes(self, sizes: Tensor) -> dict[str, Tensor]:
        return {}

    def encode_images(self, pipe: DiffusionPipeline, pixels: Tensor) -> tuple[Tensor, Tensor]:
        posterior = pipe.vae.encode(
            pixels.unsqueeze(2).to(pipe.vae.device, pipe.vae.dtype, non_blocking=True)
        ).latent_dist
        mean, std = posterior.mean.squeeze(2).float(), posterior.std.squeeze(2).float()
        config = pipe.vae.config
        shift, spread = (mean.new_tensor(x).view(-1, 1, 1) for x in (config.latents_mean, config.latents_std))
        return (mean - shift) / spread, std / spread

    def idle_layers(self, denoiser: nn.Module) -> list[nn.Module]:
        blocks: Any = denoiser.transformer_blocks
        last = blocks[-1]  # the prompt's tokens that it makes are not read
        return [last.attn.to_add_out, last.txt_mlp]

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, cond: dict[str, Tensor]) -> Tensor:
        rows, channels, height, width = latents.shape
        mask = cond["encoder_hidden_states_mask"]
        longest = int(mask.sum(dim=1).max())  # the padding that all rows share changes nothing and costs time
        packed = denoiser(
            hidden_states=QwenImagePipeline._pack_latents(latents, rows, channels, height, width),
            timestep=timesteps.float() / 1000,  # the unit of its embedding, whatever the schedule's length
            encoder_hidden_states=cond["encoder_hidden_states"][:, :longest],
            encoder_hidden_states_mask=mask[:, :longest],
            img_shapes=[[(1, height // 2, width // 2)]] * rows,
        ).sample
        return QwenImagePipeline._unpack_latents(packed, height, width, vae_scale_factor=1).squeeze(2)
