"""PixArt-Sigma and PixArt-Alpha: a transformer told the prompt by T5 that predicts noise, and its variance besides."""

from dataclasses import dataclass
from typing import ClassVar

from diffusers import DiffusionPipeline
from diffusers.utils import is_bs4_available, is_ftfy_available
from torch import Tensor, nn

from .stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class PixArtSigma(StableDiffusion):
    """`max_sequence_length` counts T5's tokens. The transformer takes no adapters, so there is nothing for LoRA to aim at."""

    max_sequence_length: int = 300

    denoiser: ClassVar[str] = "transformer"
    lora_targets: ClassVar[tuple[str, ...]] = ()
    text_encoders: ClassVar[tuple[str, ...]] = ()

    def asks_empty_prompt(self, pipe: DiffusionPipeline) -> bool:
        return True

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
        embeddings, mask, _, _ = pipe.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            device=pipe.text_encoder.device,
            clean_caption=is_bs4_available() and is_ftfy_available(),  # as the pipeline's call does
            max_sequence_length=self.max_sequence_length,
        )
        return {"encoder_hidden_states": embeddings, "encoder_attention_mask": mask}

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, cond: dict[str, Tensor]) -> Tensor:
        prediction = denoiser(
            latents,
            timestep=timesteps,
            encoder_hidden_states=cond["encoder_hidden_states"],
            encoder_attention_mask=cond["encoder_attention_mask"],
            added_cond_kwargs={name: cond.get(name) for name in ("resolution", "aspect_ratio")},
        ).sample
        return prediction[:, : latents.shape[1]]  # the other half is the variance


@dataclass(frozen=True)
class PixArtAlpha(PixArtSigma):
    """The model for 1024 pixels is also told the size of the image; the others do not look at it."""

    max_sequence_length: int = 120

    def encode_sizes(self, sizes: Tensor) -> dict[str, Tensor]:
        height, width = sizes[:, 4:5], sizes[:, 5:6]
        return {"resolution": sizes[:, 4:6], "aspect_ratio": height / width}
