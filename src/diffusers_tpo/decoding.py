"""Opens images of any kind, and none that may harm. Knows nothing of crops, data sets or models."""

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .errors import BadRow, UserError, reason
from .show import shorten


HEADER_TELLS_SIZE = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "WEBP")  # others may change it while they are decoded
WANTED = {*HEADER_TELLS_SIZE, "DIB", "ICO", "JPEG2000", "PPM", "TIFF"}  # not EPS, which is run as a program
WARNINGS = threading.Lock()  # what is done with warnings is one setting of the whole process
Image.init()
FORMATS = sorted(WANTED & set(Image.OPEN))  # what this build of Pillow can read


@contextmanager
def opened(value, row_id) -> Iterator[Image.Image]:
    """The image of an undecoded cell (bytes or a path) or a PIL image, of which only the header has been read.

    Raises:
        BadRow: naming the row, if the image cannot be read here or inside the block, or says that it is too large.
    """
    try:
        if isinstance(value, Image.Image):
            yield value
            return
        with opened_file(value) as file:
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


def check_pixels(image: Image.Image, row_id) -> None:
    """Raises [`BadRow`] for an image with more pixels than are safe to decode."""
    pixels = image.width * image.height
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise too_large(f"{pixels} pixels", row_id)


def too_large(size: str, row_id) -> BadRow:
    problem = f"its image has {size}, more than the {Image.MAX_IMAGE_PIXELS} that are safe to decode"
    return BadRow(f"row {row_id}: {problem}; make it smaller or remove this row")


def opened_file(cell) -> BinaryIO:
    """The file of an undecoded cell.

    Raises:
        OSError: if the cell holds no bytes and no path of a file.
    """
    if not isinstance(cell, dict) or not (cell.get("bytes") or cell.get("path")):
        raise OSError(f"the cell holds no image but {shorten(repr(cell), 100)}")
    if cell.get("bytes"):
        return io.BytesIO(cell["bytes"])
    if not Path(cell["path"]).is_file():  # a device or a pipe might never end
        raise FileNotFoundError(f"there is no file {shorten(repr(cell['path']), 200)}")
    return open(cell["path"], "rb")


def read_bytes(cell, row_id) -> bytes:
    """The content of the file of an undecoded cell.

    Raises:
        BadRow: naming the row.
    """
    try:
        with opened_file(cell) as file:
            return file.read()
    except (OSError, ValueError, TypeError) as error:
        raise BadRow(f"row {row_id}: its image cannot be read ({type(error).__name__}: {reason(error)})") from error


def decode_image(value, row_id) -> Image.Image:
    """Opens an undecoded image cell (bytes, a path or a PIL image) upright and in RGB; transparency becomes white.

    Of several frames it is the first.

    Raises:
        BadRow: naming the row, if the image cannot be read or has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    with opened(value, row_id) as image:
        image = ImageOps.exif_transpose(image)
        check_pixels(image, row_id)  # some formats only now tell their size
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
        BadRow: as [`decode_image`].
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
