"""Cuts crops out of images. Knows nothing of data sets or models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import BadRow
from ..noising import Draw


PROCESSOR = VaeImageProcessor(do_resize=False)  # to make one takes longer than what it does to a small image


@dataclass(frozen=True)
class Crop:
    """Pixels `(3, H, W)` in [-1, 1], and where they come from.

    `sizes` are original height and width, top and left of the crop after resizing, height and width of the crop.
    """

    pixels: Tensor
    sizes: tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class EncodedCrop:
    """The same after the autoencoder: mean and standard deviation `(C, ...)` of the scaled latents."""

    mean: Tensor
    std: Tensor
    sizes: tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class Crops(Sequence[str]):
    """The keys of every crop that a step may ask for if crops are central, each made when it is asked for.

    A key changes with the content of the image, the size of the crop and the mirror.

    Attributes:
        rows: that are cropped, int64.
        digests: of the image files of all rows, `(n, 16)` uint8.
        shapes: height and width of the crops of all rows.
        mirrors: whether the crops of each row are mirrored.
    """

    rows: np.ndarray
    digests: np.ndarray
    shapes: Sequence[tuple[int, int] | None]
    mirrors: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.rows) * len(self.mirrors)

    def row_and_mirror(self, index: int) -> tuple[int, bool]:
        return int(self.rows[index // len(self.mirrors)]), self.mirrors[index % len(self.mirrors)]

    def key(self, row_id: int, mirror: bool) -> str:
        shape = self.shapes[row_id]
        assert shape is not None  # only rows without a usable image have none, and no one asks for their crops
        height, width = shape
        return f"{self.digests[row_id].tobytes().hex()}-{height}x{width}-{mirror:d}"

    def __getitem__(self, index: int) -> str:  # type: ignore[override] # no slices
        return self.key(*self.row_and_mirror(index))


def is_mirrored(draw: Draw) -> bool:
    """Whether a random flip mirrors the image this time."""
    return bool(torch.rand((), generator=draw.generator("flip")) < 0.5)


def transform_image(image: Image.Image, draw: Draw, size: tuple[int, int], center_crop: bool, mirror: bool) -> Crop:
    """Resizes an image so that it just covers `size`, crops that, at random or at the centre, and mirrors it if asked.

    Args:
        size: height and width of the crop in pixels.

    Raises:
        BadRow: naming the row, if the image is so thin that it would become huge.
    """
    height, width = size
    scale = max(height / image.height, width / image.width)
    cover = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    if Image.MAX_IMAGE_PIXELS is not None and cover[0] * cover[1] > Image.MAX_IMAGE_PIXELS:
        thin = (
            f"its image of height {image.height} and width {image.width} is too thin to cover {height}x{width} pixels"
        )
        raise BadRow(f"row {draw.row}: {thin}; crop it or remove this row")
    resized = image.resize(cover, Image.Resampling.LANCZOS)
    slack_x, slack_y = resized.width - width, resized.height - height
    generator = draw.generator("crop")
    left = slack_x // 2 if center_crop else int(torch.randint(slack_x + 1, (), generator=generator))
    top = slack_y // 2 if center_crop else int(torch.randint(slack_y + 1, (), generator=generator))
    crop = resized.crop((left, top, left + width, top + height))
    if mirror:
        crop, left = ImageOps.mirror(crop), slack_x - left
    pixels = PROCESSOR.preprocess(crop)[0]
    return Crop(pixels, (image.height, image.width, top, left, height, width))
