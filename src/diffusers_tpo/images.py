"""Opens images of any kind and cuts squares out of them. Knows nothing of data sets or models."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps
from torch import Tensor

from .errors import UserError
from .noising import Draw


@dataclass(frozen=True)
class Square:
    """Pixels `(3, H, W)` in [-1, 1], and where they come from: `sizes` are original height and width, top and left of the crop
    after resizing, height and width of the crop."""

    pixels: Tensor
    sizes: tuple[int, int, int, int, int, int]


def decode_image(value, row_id) -> Image.Image:
    """Opens an undecoded image cell (bytes, a path or a PIL image) upright and in RGB; transparency becomes white.

    Raises:
        UserError: naming the row, if the image cannot be read.
    """
    try:
        if isinstance(value, dict):
            value = Image.open(io.BytesIO(value["bytes"]) if value.get("bytes") else value["path"])
        image = ImageOps.exif_transpose(value)
        if image.mode.startswith("I"):  # 16 bits, which Pillow would clip and not scale
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")
    except Exception as error:  # Pillow raises many kinds; each means that this row has no image
        raise UserError(f"row {row_id}: its image cannot be read ({type(error).__name__}: {error})") from error


def transform_image(image: Image.Image, draw: Draw, resolution: int, center_crop: bool, random_flip: bool) -> Square:
    """Resizes the shorter side to `resolution`, crops a square and maybe mirrors it."""
    scale = resolution / min(image.size)
    resized = image.resize([max(resolution, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    slack_x, slack_y = (side - resolution for side in resized.size)
    generator = draw.generator("crop")
    left = slack_x // 2 if center_crop else int(torch.randint(slack_x + 1, (), generator=generator))
    top = slack_y // 2 if center_crop else int(torch.randint(slack_y + 1, (), generator=generator))
    square = resized.crop((left, top, left + resolution, top + resolution))
    if random_flip and torch.rand((), generator=draw.generator("flip")) < 0.5:
        square, left = ImageOps.mirror(square), slack_x - left
    pixels = VaeImageProcessor(do_resize=False).preprocess(square)[0]
    return Square(pixels, (image.height, image.width, top, left, resolution, resolution))
