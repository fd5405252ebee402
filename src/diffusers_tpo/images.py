"""Opens images of any kind and cuts crops out of them. Knows nothing of data sets or models."""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from .errors import UserError
from .noising import Draw


HEADER_TELLS_SIZE = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "WEBP")  # others may change it while they are decoded


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


@contextmanager
def opened(value, row_id) -> Iterator[Image.Image]:
    """The image of an undecoded cell (bytes or a path) or a PIL image, of which only the header has been read.

    Raises:
        UserError: naming the row, if the image cannot be read here or inside the block, or says that it is too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if not isinstance(value, dict):
                yield value
                return
            with io.BytesIO(value["bytes"]) if value.get("bytes") else open(value["path"], "rb") as file:
                yield Image.open(file)
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = str(error).partition("(")[2].partition(")")[0]  # such as 900000000 pixels
        problem = f"its image has {size}, more than the {Image.MAX_IMAGE_PIXELS} that are safe to decode"
        raise UserError(f"row {row_id}: {problem}; make it smaller or remove this row") from error
    except Exception as error:  # Pillow raises many kinds; each means that this row has no image
        raise UserError(f"row {row_id}: its image cannot be read ({type(error).__name__}: {error})") from error


def decode_image(value, row_id) -> Image.Image:
    """Opens an undecoded image cell (bytes, a path or a PIL image) upright and in RGB; transparency becomes white.

    Of several frames it is the first.

    Raises:
        UserError: naming the row, if the image cannot be read or has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    with opened(value, row_id) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            image = to_eight_bits(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")


def to_eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits, which Pillow would clip, scaled to 8 bits; a transparent grey becomes an alpha channel."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def upright_size(value, row_id) -> tuple[int, int]:
    """Height and width that [`decode_image`] gives, in most formats from the header alone.

    Raises:
        UserError: as [`decode_image`].
    """
    with opened(value, row_id) as image:
        if image.format not in HEADER_TELLS_SIZE or (image.format == "PNG" and has_late_texts(image.fp)):
            decoded = decode_image(value, row_id)
            return decoded.height, decoded.width
        exif = Image.Image.getexif(image)  # that of PNG files decodes them
        turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return image.size if turned else (image.height, image.width)


def has_late_texts(file: BinaryIO) -> bool:
    """Whether texts or EXIF, which may turn the image, follow the pixels of a PNG file."""
    file.seek(8)
    after_pixels = False
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        after_pixels = after_pixels or kind == b"IDAT"
        if after_pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            return True
        file.seek(length + 4, io.SEEK_CUR)
    return False


def is_mirrored(draw: Draw) -> bool:
    """Whether a random flip mirrors the image this time."""
    return bool(torch.rand((), generator=draw.generator("flip")) < 0.5)


def transform_image(image: Image.Image, draw: Draw, size: tuple[int, int], center_crop: bool, mirror: bool) -> Crop:
    """Resizes an image so that it just covers `size`, crops that, at random or at the centre, and mirrors it if asked.

    Args:
        size: height and width of the crop in pixels.

    Raises:
        UserError: naming the row, if the image is so thin that it would become huge.
    """
    height, width = size
    scale = max(height / image.height, width / image.width)
    cover = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    if Image.MAX_IMAGE_PIXELS is not None and cover[0] * cover[1] > Image.MAX_IMAGE_PIXELS:
        thin = (
            f"its image of height {image.height} and width {image.width} is too thin to cover {height}x{width} pixels"
        )
        raise UserError(f"row {draw.row}: {thin}; crop it or remove this row")
    resized = image.resize(cover, Image.Resampling.LANCZOS)
    slack_x, slack_y = resized.width - width, resized.height - height
    generator = draw.generator("crop")
    left = slack_x // 2 if center_crop else int(torch.randint(slack_x + 1, (), generator=generator))
    top = slack_y // 2 if center_crop else int(torch.randint(slack_y + 1, (), generator=generator))
    crop = resized.crop((left, top, left + width, top + height))
    if mirror:
        crop, left = ImageOps.mirror(crop), slack_x - left
    pixels = VaeImageProcessor(do_resize=False).preprocess(crop)[0]
    return Crop(pixels, (image.height, image.width, top, left, height, width))
