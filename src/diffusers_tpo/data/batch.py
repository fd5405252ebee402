"""Joins examples into the batch of a step. Knows nothing of data sets or models."""

import logging
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..noising import Draw
from ..show import harmless
from .crops import Crop, EncodedCrop
from .reader import Example, Problems


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """`B` images with `P` prompts each, in blocks: prompt 1 of every image, then prompt 2 of every image, ...

    `P` is `1 + num_mismatched`, the matched prompt first; 1 for unpaired rows and supervised fine-tuning.

    Attributes:
        pixels: `(B, 3, H, W)` in [-1, 1]; `None` if the images are encoded.
        encoded: mean and standard deviation of their latents, `(B, C, ...)` each; `None` if they are pixels.
        sizes: of their [`~diffusers_tpo.data.crops.Crop`]s, `(B, 6)`.
        draws: of their crops, noise and timesteps, one for each image.
        prompts: `P * B` texts.
        is_matched: which of them match their image, `(P * B,)`.
        num_empty: the first so many images are asked about the empty prompt too.
        skipped: rows of the data set in whose place others stand, and what is wrong with them.
    """

    pixels: Tensor | None
    encoded: tuple[Tensor, Tensor] | None
    sizes: Tensor
    draws: list[Draw]
    prompts: list[str]
    is_matched: Tensor
    num_empty: int = 0
    skipped: Problems = field(default_factory=dict)

    @property
    def prompts_per_image(self) -> int:
        return len(self.prompts) // len(self.draws)

    def pin_memory(self) -> "Batch":
        """The same in memory from which a GPU copies while the host goes on; a `DataLoader` asks for it."""
        pixels = None if self.pixels is None else self.pixels.pin_memory()
        encoded = None
        if self.encoded is not None:
            mean, std = self.encoded
            encoded = (mean.pin_memory(), std.pin_memory())
        return replace(self, pixels=pixels, encoded=encoded, sizes=self.sizes.pin_memory())


class SkippedRows:
    """Warns of every row that is skipped while training, once."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def metrics(self, batch: Batch) -> dict[str, Tensor]:
        """`data/skipped`, the number of rows in whose place others stand in this batch."""
        for problem in set(batch.skipped.values()) - self.seen:
            self.seen.add(problem)
            logger.warning(harmless(f"{problem}; another row takes its place, {len(self.seen)} skipped so far"))
        return {"data/skipped": torch.tensor(float(len(batch.skipped)))}


def collate(examples: list[Example | None], empty_share: float = 0.0) -> Batch | None:
    """Joins examples with the same number of prompts into a [`Batch`]; `None` for those that a resumed run leaves out."""
    there = [example for example in examples if example is not None]
    if not there:
        return None
    return join(there, empty_share)


def join(examples: list[Example], empty_share: float = 0.0) -> Batch:
    """Joins examples with the same number of prompts.

    Args:
        empty_share: of the images are asked about the empty prompt too. A batch has as many as it can, or one more: so in
            the mean it is this share, and the work of a step is nearly the same every time.
    """
    crops = [example.crop for example in examples]
    pixels = [crop.pixels for crop in crops if isinstance(crop, Crop)]
    encoded = [crop for crop in crops if isinstance(crop, EncodedCrop)]
    means, deviations = [crop.mean for crop in encoded], [crop.std for crop in encoded]
    return Batch(
        pixels=torch.stack(pixels) if pixels else None,
        encoded=(torch.stack(means), torch.stack(deviations)) if encoded else None,
        sizes=torch.tensor([crop.sizes for crop in crops], dtype=torch.float32),
        draws=[example.draw for example in examples],
        prompts=in_blocks([example.prompts for example in examples]),
        is_matched=torch.tensor(in_blocks([example.is_matched for example in examples])),
        num_empty=num_empty([example.draw for example in examples], empty_share),
        skipped={row_id: problem for example in examples for row_id, problem in example.skipped.items()},
    )


def num_empty(draws: list[Draw], share: float) -> int:
    """A share of a batch of images as a whole number that is right in the mean, drawn by the first image's draw."""
    whole, part = divmod(len(draws) * share, 1)
    return int(whole) + int(torch.rand((), generator=draws[0].generator("empty prompt")) < part)


def in_blocks(of_images: list[list]) -> list:
    """The first value of every image, then the second of every image, ..."""
    return [value for block in zip(*of_images, strict=True) for value in block]
