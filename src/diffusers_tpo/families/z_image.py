"""Z-Image: a transformer over one sequence of latents and prompt, told how much of the noise is gone."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch.nn.functional import pad

from .stable_diffusion_3 import StableDiffusion3


@dataclass(frozen=True)
class ZImage(StableDiffusion3):
    """`max_sequence_length` counts the tokens of the prompt and its chat template."""

    max_sequence_length: int = 512

    lora_targets: ClassVar[tuple[str, ...]] = (
        "attention.to_q",
        "attention.to_k",
        "attention.to_v",
        "attention.to_out.0",
    )
    text_encoders: ClassVar[tuple[str, ...]] = ()
    unconditional: ClassVar[str] = "second half"
    unguided: ClassVar[float] = 0.0

    def encode_prompts(self, pipe: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
        device = pipe.text_encoder.device
        texts, _ = pipe.encode_prompt(
            list(prompts),  # the pipeline writes its templates into the list
            device=device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        lengths = torch.tensor([len(text) for text in texts], device=device)
        padded = [pad(text, (0, 0, 0, self.max_sequence_length - len(text))) for text in texts]
        mask = torch.arange(self.max_sequence_length, device=device) < lengths[:, None]
        return {"encoder_hidden_states": torch.stack(padded), "encoder_hidden_states_mask": mask}

    def predict(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, cond: dict[str, Tensor]) -> Tensor:
        texts = zip(cond["encoder_hidden_states"], cond["encoder_hidden_states_mask"], strict=True)
        clean = denoiser(
            list(latents.unsqueeze(2)),  # images of one frame
            (1000 - timesteps) / 1000,
            [text[mask] for text, mask in texts],
        ).sample
        return -torch.stack(clean).squeeze(2)  # it points from noise to image
