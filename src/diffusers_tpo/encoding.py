"""Turns batches into latents and conditioning with the frozen parts of a pipeline, on the device only while they work.

Knows nothing of losses or of what is trained, but that trained text encoders stay where they are.
"""

import contextlib
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from diffusers.training_utils import offload_models
from torch import Tensor, nn

from .data import Batch
from .families import Conditioning, Family
from .noising import sample_latents
from .text_encoders import TrainedTextEncoders


@dataclass
class Encoder:
    """Encodes the images and prompts of batches.

    Attributes:
        device: of the denoiser.
        offload: keep the autoencoder and the text encoders on the CPU while they are not needed.
        text: the text encoders that are trained; `None` if none is.
    """

    pipe: DiffusionPipeline
    family: Family
    device: torch.device
    offload: bool = False
    text: TrainedTextEncoders | None = None

    def __post_init__(self):
        trained = self.text.names if self.text else []
        copies = list(self.text.copies.values()) if self.text else []
        parts = {name: part for name, part in self.pipe.components.items() if isinstance(part, nn.Module)}
        self.autoencoder = [parts.pop("vae")]
        names = [name for name in parts if name.startswith("text_encoder") and name not in trained]
        self.text_encoders = [parts.pop(name) for name in names]
        parts.pop(self.family.denoiser)
        for part in (*parts.values(), *copies):
            part.to(self.device)
        for part in (*self.autoencoder, *self.text_encoders):
            part.to("cpu" if self.offload else self.device)

    def _working(self, parts: list[nn.Module]):
        return offload_models(*parts, device=self.device, offload=self.offload)

    @contextlib.contextmanager
    def whole_pipeline(self):
        """The pipeline with every part on the device, to render or to judge it."""
        with self._working(self.autoencoder), self._working(self.text_encoders):
            yield self.pipe

    @torch.no_grad()
    def encode_images(self, batch: Batch) -> Tensor:
        """Sampled, scaled latents `(B, C, ...)` of the images, float32, on the device."""
        with self._working(self.autoencoder):
            return sample_latents(*self.family.encode_images(self.pipe, batch.pixels), batch.draws)

    def encode_prompts(self, batch: Batch, needs_reference: bool) -> tuple[Conditioning, Conditioning | None]:
        """What policy and reference are told of all rows.

        Returns:
            The conditioning of the policy, and that of the reference where it is another: if text encoders are trained, and
            `needs_reference`.
        """
        sizes = self.family.encode_sizes(batch.sizes.to(self.device).repeat(batch.prompts_per_image, 1))
        with self._working(self.text_encoders):
            if self.text is None:
                # As in a pipeline, whatever the mixed precision of the denoiser.
                with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                    return self.family.encode_prompts(self.pipe, batch.prompts) | sizes, None
            reference = self.text.encode_reference(batch.prompts) | sizes if needs_reference else None
            return self.text.encode(batch.prompts) | sizes, reference
