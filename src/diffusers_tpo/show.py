"""Makes texts and images fit to be shown, on a page or in a terminal. Knows nothing of what they mean."""

import base64
import io
import re
from pathlib import Path

import jinja2
from PIL import Image, ImageOps


# characters that steer a terminal or the direction of text, or that no file can hold
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SMALL = 128  # pixels of the longer side up to which an image is kept exactly


def harmless(text: str) -> str:
    """The text with a visible sign for each control character, and without what no file or terminal can take."""

    def sign(match: re.Match) -> str:
        code = ord(match.group())
        return chr(0x2400 + code) if code < 0x20 else "\N{REPLACEMENT CHARACTER}"

    return CONTROL.sub(sign, text)


def inside_code(text: str) -> str:
    """The text so that it stays between backticks, in a cell of a Markdown table too."""
    return harmless(text).replace("`", "'").replace("|", "\\|")


def shorten(text: str, width: int) -> str:
    """The text on at most `width` characters; of a longer one the start and the end, where names differ."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + text[len(text) - tail :]


def thumbnail(image: Image.Image, side: int) -> str:
    """A copy as a data URI, at most `side` pixels on its longer side: a PNG if it is small, or else a JPEG."""
    copy = ImageOps.exif_transpose(image)
    copy.thumbnail((side, side))
    file = io.BytesIO()
    if max(copy.size) <= SMALL:
        copy.convert("RGB").save(file, "PNG", optimize=True)
        return data_uri(file.getvalue(), "png")
    copy.convert("RGB").save(file, "JPEG", quality=85)
    return data_uri(file.getvalue(), "jpeg")


def data_uri(content: bytes, kind: str) -> str:
    """The content of an image file (`png`, `jpeg`) as an address that needs no file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def fill_page(template: Path, **values: object) -> str:
    """A page filled in; every value is escaped, and every text is made harmless first."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        finalize=lambda value: harmless(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)


def as_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line, in a cell of a table too."""
    return re.sub(r"([\\`*\[\]<>|~#&$!]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", harmless(" ".join(text.split())))


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns are also aligned as plain text."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = [[str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [header, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
