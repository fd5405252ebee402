"""Turns batches into latents and conditioning with the frozen parts of a pipeline, on the device only while they work.

Knows nothing of losses or of what is trained, but that trained text encoders stay where they are.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ..data.batch import Batch
from ..data.crops import Crop
from ..data.dataset import TextPreferenceDataset
from ..families import Conditioning, Family
from ..models.text_encoders import TrainedTextEncoders
from ..noising import Scheduler, sample_latents
from .cache import Cache, Entry, fingerprint, settings
from .trained import FrozenParts, TrainedModels


def templates(pipe: DiffusionPipeline) -> dict[str, object]:
    """The texts and numbers that a pipeline object keeps, such as the template that it puts around a prompt, and its settings."""
    kept = {name: value for name, value in vars(pipe).items() if isinstance(value, str | int | float | list | tuple)}
    configured = {name: value for name, value in pipe.config.items() if name not in pipe.components}
    told = sorted((kept | configured).items())
    return {f"pipe.{name}": value for name, value in told if not name.startswith("_")}


@dataclass
class Encoder:
    """Encodes the images and prompts of batches.

    Attributes:
        frozen: the parts of the pipeline that it needs.
        text: the text encoders that are trained; `None` if none is.
        prompts: kept conditioning by prompt, see [`~Encoder.keep_prompts`].
    """

    pipe: DiffusionPipeline
    family: Family
    frozen: FrozenParts
    text: TrainedTextEncoders | None = None
    prompts: Cache | None = None

    @classmethod
    def of(cls, models: TrainedModels) -> "Encoder":
        """Of the models of a run."""
        return cls(models.pipe, models.family, models.frozen, models.text)

    @property
    def device(self) -> torch.device:
        return self.frozen.device

    def keep_images(self, dataset: TextPreferenceDataset, folder: Path, batch_size: int) -> None:
        """Encodes every crop of a data set once, into `folder`, and lets the data set read that; call it on every process.

        The autoencoder is off the device from then on.

        Raises:
            UserError: naming an image that cannot be read, or `encodings_dir`.
        """
        cache = Cache(folder / f"images-{self._fingerprint('vae')}")
        crops = dataset.crops()

        def cut(indices: list[int]) -> list[Crop | None]:
            return [dataset.crop(*crops.row_and_mirror(index)) for index in indices]

        def encode(cut: list[Crop | None]) -> list[Entry]:
            entries: list[Entry] = [{} for _ in cut]
            for shape in {crop.pixels.shape for crop in cut if crop}:
                alike = {place: crop for place, crop in enumerate(cut) if crop and crop.pixels.shape == shape}
                pixels = torch.stack([crop.pixels for crop in alike.values()])
                encoded = zip(alike.items(), *self.family.encode_images(self.pipe, pixels), strict=True)
                for (place, crop), mean, std in encoded:
                    sizes = torch.tensor(crop.sizes)
                    entries[place] = {"mean": mean.clone(), "std": std.clone(), "sizes": sizes}
            return entries

        with torch.no_grad(), self.frozen.working(self.frozen.autoencoder):
            cache.fill(crops, encode, batch_size, "images", cut)
        dataset.use_encoded(cache, crops)
        self.frozen.retire(self.frozen.autoencoder)

    def keep_prompts(self, prompts: list[str], folder: Path, batch_size: int) -> None:
        """Encodes every prompt once, into `folder`, and reads that from then on; call it on every process.

        The text encoders are off the device from then on.

        Raises:
            UserError: naming `encodings_dir`.
        """
        self.prompts = Cache(folder / f"prompts-{self._fingerprint('text_encoder', 'tokenizer')}")

        def encode(indices: list[int]) -> list[Entry]:
            cond = self.family.encode_prompts(self.pipe, [prompts[index] for index in indices])
            return [{name: value[row].clone() for name, value in cond.items()} for row in range(len(indices))]

        with torch.no_grad(), self.frozen.working(self.frozen.text_encoders):
            self.prompts.fill(prompts, encode, batch_size, "prompts")
        self.frozen.retire(self.frozen.text_encoders)

    def _fingerprint(self, *kinds: str, besides: tuple = ()) -> str:
        parts = {name: part for name, part in self.pipe.components.items() if name.startswith(kinds)}
        told = {name: value for name, value in vars(self.family).items() if besides or name != "guidance_scale"}
        told = {} if kinds == ("vae",) else told | templates(self.pipe)
        return fingerprint(parts, type(self.family).__name__, told, *besides)

    def reference_folder(self, folder: Path, scheduler: Scheduler, *besides: object) -> Path:
        """Where the reference's errors belong, by all weights that they depend on, without adapters, and what else counts."""
        kinds = ("vae", "text_encoder", "tokenizer", self.family.denoiser)
        return folder / f"reference-{self._fingerprint(*kinds, besides=(settings(scheduler), *besides))}"

    @torch.no_grad()
    def encode_images(self, batch: Batch) -> Tensor:
        """Sampled, scaled latents `(B, C, ...)` of the images, float32, on the device."""
        if batch.encoded is not None:
            mean, std = (part.to(self.device, non_blocking=True) for part in batch.encoded)
            return sample_latents(mean, std, batch.draws)
        assert batch.pixels is not None  # a batch has one or the other
        with self.frozen.working(self.frozen.autoencoder):
            mean, std = self.family.encode_images(self.pipe, batch.pixels)
            return sample_latents(mean, std, batch.draws)

    def encode_prompts(self, batch: Batch, needs_reference: bool) -> tuple[Conditioning, Conditioning | None]:
        """What policy and reference are told of all rows, those of the empty prompt last.

        Returns:
            The conditioning of the policy, and that of the reference where it is another: if text encoders are trained, and
            `needs_reference`.
        """
        prompts = batch.prompts + [""] * batch.num_empty
        of_images = batch.sizes.to(self.device, non_blocking=True)
        of_rows = torch.cat([of_images.repeat(batch.prompts_per_image, 1), of_images[: batch.num_empty]])
        sizes = self.family.encode_sizes(of_rows)
        if self.prompts is not None:
            entries = [self.prompts[prompt] for prompt in prompts]
            stacked = {name: torch.stack([entry[name] for entry in entries]) for name in entries[0]}
            return {name: part.to(self.device, non_blocking=True) for name, part in stacked.items()} | sizes, None
        with self.frozen.working(self.frozen.text_encoders):
            if self.text is None:
                with torch.no_grad():
                    return self.family.encode_prompts(self.pipe, prompts) | sizes, None
            reference = self.text.encode_reference(prompts) | sizes if needs_reference else None
            return self.text.encode(prompts) | sizes, reference
