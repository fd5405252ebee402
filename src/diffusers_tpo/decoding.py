"""Opens images of any kind, and none that may harm: nothing else in this package decodes. Knows nothing of crops or models."""

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from .errors import BadRow, UserError, reason
from .image_files import EMBEDDED, ImageFiles
from .show import shorten


HEADER_TELLS_SIZE = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "WEBP")  # others may change it while they are decoded
WANTED = {*HEADER_TELLS_SIZE, "DIB", "ICO", "JPEG2000", "PPM", "TIFF"}  # not EPS, which is run as a program
WARNINGS = threading.Lock()  # what is done with warnings is one setting of the whole process
Image.init()
FORMATS = sorted(WANTED & set(Image.OPEN))  # what this build of Pillow can read


@contextmanager
def opened(value: Any, row_id: int | str, files: ImageFiles = EMBEDDED) -> Iterator[Image.Image]:
    """The image of an undecoded cell (bytes or a path) or a PIL image, of which only the header has been read.

    Args:
        files: that the cell may name.

    Raises:
        BadRow: naming the row, if the image cannot be read here or inside the block, or says that it is too large.
    """
    try:
        if isinstance(value, Image.Image):
            yield value
            return
        with opened_file(value, files) as file:
            with WARNINGS, warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of what is an error below
                image = Image.open(file, formats=FORMATS)
            check_pixels(image, row_id)
            yield image
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        size = str(error).partition("(")[2].partition(")")[0]  # such as 900000000 pixels
        raise too_large(size, row_id) from error
    except UnidentifiedImageError as error:
        raise BadRow(f"row {row_id}: its image cannot be read (it is none of {', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow raises many kinds; each means that this row has no image
        raise BadRow(f"row {row_id}: its image cannot be read ({type(error).__name__}: {reason(error)})") from error


def check_pixels(image: Image.Image, row_id: int | str) -> None:
    """Raises [`BadRow`] for an image with more pixels than are safe to decode."""
    pixels = image.width * image.height
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise too_large(f"{pixels} pixels", row_id)


def too_large(size: str, row_id: int | str) -> BadRow:
    problem = f"its image has {size}, more than the {Image.MAX_IMAGE_PIXELS} that are safe to decode"
    return BadRow(f"row {row_id}: {problem}; make it smaller or remove this row")


def opened_file(cell: Any, files: ImageFiles = EMBEDDED) -> BinaryIO:
    """The file of an undecoded cell.

    Raises:
        OSError: if the cell holds no bytes, and no path of one of `files`.
    """
    if not isinstance(cell, dict) or not (cell.get("bytes") or cell.get("path")):
        raise OSError(f"the cell holds no image but {shorten(repr(cell), 100)}")
    return io.BytesIO(cell["bytes"]) if cell.get("bytes") else files.open(cell["path"])


def read_bytes(cell: Any, row_id: int | str, files: ImageFiles = EMBEDDED) -> bytes:
    """The content of the file of an undecoded cell.

    Raises:
        BadRow: naming the row.
    """
    try:
        with opened_file(cell, files) as file:
            return file.read()
    except Exception as error:  # archives and the network raise many kinds
        raise BadRow(f"row {row_id}: its image cannot be read ({type(error).__name__}: {reason(error)})") from error


def decode_image(value: Any, row_id: int | str, files: ImageFiles = EMBEDDED) -> Image.Image:
    """Opens an undecoded image cell (bytes, a path or a PIL image) upright and in sRGB; transparency becomes white.

    Of several frames it is the first. Colours are those that its ICC profile says.

    Args:
        files: that the cell may name.

    Raises:
        BadRow: naming the row, if the image cannot be read or has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    with opened(value, row_id, files) as image:
        profile = image.info.get("icc_profile")
        image = ImageOps.exif_transpose(image)
        check_pixels(image, row_id)  # some formats only now tell their size
        if image.mode == "F" or image.mode.startswith("I"):
            image = to_eight_bits(image)
        if not image.has_transparency_data:
            return in_srgb(image, profile)
        image = image.convert("RGBA")
        colours = in_srgb(image.convert("RGB"), profile)
        colours.putalpha(image.getchannel("A"))
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")


def decode_file(path: Path) -> Image.Image:
    """Opens an image that a run has written, as [`decode_image`].

    Raises:
        BadRow: naming the file, if it is missing or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadRow(f"{path.name}: its image cannot be read ({reason(error)})") from error
    return decode_image({"bytes": content, "path": None}, path.name)


WHITES = (255, 4095, 65535)  # the largest value of 8, 12 and 16 bits


def to_eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of integers or floats, which Pillow would clip, in 8 bits; a transparent grey becomes an alpha channel.

    White is the smallest of 1 (of floats), [`WHITES`] that no pixel exceeds: many files keep 8 or 12 bits in larger numbers.

    Raises:
        ValueError: if the values are those of no picture.
    """
    values = np.asarray(image)
    low, high = values.min(), values.max()
    white = next((white for white in ((1, *WHITES) if image.mode == "F" else WHITES) if high <= white), None)
    if white is None or not low >= -0.01 * white:
        raise ValueError(
            f"its grey values reach from {low:g} to {high:g}, and white is 255, 4095 or 65535; convert it"
        )
    grey = scale_to_bytes(values, white)
    if "transparency" not in image.info:
        return Image.fromarray(grey)
    transparent = Image.fromarray(grey)
    transparent.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return transparent


def scale_to_bytes(values: np.ndarray, white: int) -> np.ndarray:
    """Grey values from 0 to `white` as bytes: the highest bits of integers, the nearest of floats."""
    if values.dtype.kind == "f":
        return (values.clip(0, white) * (255 / white)).round().astype(np.uint8)
    return (values.clip(0) >> {255: 0, 4095: 4, 65535: 8}[white]).astype(np.uint8)


SRGB = ImageCms.createProfile("sRGB")


def in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An opaque image in RGB, its colours those of sRGB; a profile that is damaged or of other channels is passed over."""
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, lab_to_srgb())  # type: ignore[return-value] # `None` only in place
    if profile:
        kind = image.mode if image.mode in ("L", "CMYK") else "RGB"
        try:
            transform = to_srgb(profile, kind)
        except ImageCms.PyCMSError:
            transform = None
        if transform is not None:
            return ImageCms.applyTransform(image.convert(kind), transform)  # type: ignore[return-value] # as above
    return image.convert("RGB")


@lru_cache(maxsize=16)
def to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB, `None` where it is sRGB already. Raises `PyCMSError` if the profile does not fit the mode."""
    given = ImageCms.getOpenProfile(io.BytesIO(profile))
    if mode == "RGB" and ImageCms.getProfileDescription(given).startswith("sRGB"):
        return None
    return ImageCms.buildTransform(given, SRGB, mode, "RGB")


@lru_cache(maxsize=1)
def lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), SRGB, "LAB", "RGB")


def upright_size(value: Any, row_id: int | str, files: ImageFiles = EMBEDDED) -> tuple[int, int]:
    """Height and width that [`decode_image`] gives, in most formats from the header alone.

    Raises:
        BadRow: as [`decode_image`].
    """
    with opened(value, row_id, files) as image:
        opened_file: Any = image  # which has a `fp`
        if image.format not in HEADER_TELLS_SIZE or (image.format == "PNG" and has_late_texts(opened_file.fp)):
            decoded = decode_image(value, row_id, files)
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
