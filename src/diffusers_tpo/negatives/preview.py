"""Shows captions beside their mismatched prompts with what changed, on a page and in the terminal. Judges nothing."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..decoding import decode_image
from ..errors import BadRow, require
from ..show import fill_page, harmless, thumbnail
from .language.words import TOKEN, changes


if TYPE_CHECKING:
    from rich.console import Console


THUMBNAIL = 256  # pixels of the longer side
STYLES = {"content": "magenta", "attribute": "yellow", "spatial": "cyan", "contextual": "green"}
Span = tuple[int, int]


class Segment(NamedTuple):
    """A piece of a text, and whether it changed."""

    text: str
    changed: bool


def changed_spans(before: str, after: str) -> tuple[list[Span], list[Span]]:
    """Where two texts differ in their words and punctuation: character ranges `[start, end)` in each, in order."""
    tokens = [list(TOKEN.finditer(text)) for text in (before, after)]
    places = changes(*([token.group() for token in side] for side in tokens))

    def spans(side: list[re.Match], ranges: Iterable[Span]) -> list[Span]:
        return [(side[start].start(), side[end - 1].end()) for start, end in ranges if start < end]

    return spans(tokens[0], [c.before for c in places]), spans(tokens[1], [c.after for c in places])


def segments(text: str, spans: Iterable[Span]) -> list[Segment]:
    """Cuts a text at ranges, which may overlap; the pieces join to the text."""
    pieces, done = [], 0
    for start, end in sorted(spans):
        pieces += [Segment(text[done:start], False), Segment(text[max(start, done) : end], True)]
        done = max(done, end)
    return [piece for piece in [*pieces, Segment(text[done:], False)] if piece.text]


class Marked(NamedTuple):
    """One mismatched prompt, ready to be shown."""

    segments: list[Segment]
    principle: str
    num_edits: int


def mark(row: dict) -> tuple[list[Segment], list[Marked]]:
    """A row's prompt, where every word is marked that some mismatched prompt replaces, and those prompts, marked."""
    replaced, marked = [], []
    edits = zip(row["negative_prompts"], row["principles"], row["num_edits"], strict=True)
    for edited, principle, num_edits in edits:
        before, after = changed_spans(row["prompt"], edited)
        replaced += before
        marked.append(Marked(_shown(edited, after), harmless(principle), num_edits))
    return _shown(row["prompt"], replaced), marked


def _shown(text: str, spans: Iterable[Span]) -> list[Segment]:
    return [Segment(harmless(piece), changed) for piece, changed in segments(text, spans)]


def preview_html(rows: Iterable[dict], path: Path, title: str) -> None:
    """Writes one page that needs no other file and runs no script.

    Args:
        rows: few enough for one page, with `key`, `prompt`, `negative_prompts`, `principles`, `num_edits`, `editor`,
            and perhaps an `image`, an undecoded cell or a PIL image; one that cannot be read is not shown.
    """
    cards = []
    for row in rows:
        prompt, mismatched = mark(row)
        cards.append((harmless(row["key"]), harmless(row["editor"]), picture(row), prompt, mismatched))
    page = fill_page(
        Path(__file__).parent / "templates" / "preview.html", title=title, cards=cards, principles=list(STYLES)
    )
    Path(path).write_text(page, encoding="utf-8")


def picture(row: dict) -> str | None:
    """A small copy of a row's image for a page; `None` if it has none that can be read."""
    if row.get("image") is None:
        return None
    try:
        return thumbnail(decode_image(row["image"], row["key"]), THUMBNAIL)
    except BadRow:
        return None


def preview_terminal(rows: Iterable[dict], console: "Console | None" = None) -> None:
    """Prints rows with coloured changes; nothing in a caption is taken for markup.

    Args:
        console: a `rich.console.Console`; one for standard output by default.

    Raises:
        UserError: if rich is missing.
    """
    console = console or require("rich.console", "negatives").Console()
    text_class = require("rich.text", "negatives").Text
    for row in rows:
        prompt, mismatched = mark(row)
        line = text_class("\n").append(harmless(row["key"]), "dim").append("  ")
        for piece, changed in prompt:
            line.append(piece, "bold underline" if changed else "bold")
        console.print(line)
        for pieces, principle, num_edits in mismatched:
            style = STYLES.get(principle, "blue")
            line = text_class(f"  {principle:<10} {num_edits} ", style)
            for piece, changed in pieces:
                line.append(piece, f"bold {style}" if changed else "default")
            console.print(line)
