"""Writes a report of plain tables, curves, points and images: one page and a terminal view. Knows nothing of models."""

import io
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..decoding import decode_file
from ..errors import BadRow, UserError
from ..files import publish_file, write_whole
from ..show import SMALL, data_uri, fill_page, harmless, markdown_table, shorten, thumbnail
from .plots import Curves, Scatter, draw_curves, draw_scatter, safe_name


SIDE = 512  # pixels of the longer side of an image on the page
CELL = 48  # characters of a table cell in the terminal
NUMBER = re.compile(r"([\s\d.,:%×/()\[\]<>≤≥≈=+±−–*†-]|nan|inf|e[+-]|\bof\b)*")


@dataclass(frozen=True)
class Table:
    """A table of texts; a column of figures is shown as such."""

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise UserError(
                    f"the table {self.title!r} has a row of {len(row)} cells under {len(self.header)} headings; "
                    "give one cell for every heading"
                )


@dataclass(frozen=True)
class Example:
    """A prompt with images side by side: label, file (`None` if there is none) and caption of each."""

    prompt: str
    note: str
    images: list[tuple[str, Path | None, str]]


@dataclass(frozen=True)
class Report:
    """All that a report shows, in its order."""

    title: str
    facts: dict[str, str]
    warnings: list[str]
    tables: list[Table]
    curves: list[Curves]
    scatters: list[Scatter]
    gains: list[Example]
    losses: list[Example]


def print_report(report: Report) -> None:
    """Prints warnings and tables as plain text; a long cell is shortened."""
    parts = [harmless(report.title)]
    if report.warnings:
        parts.append("\n".join(f"warning: {harmless(warning)}" for warning in report.warnings))
    for table in report.tables:
        header, *rows = ([shorten(harmless(cell), CELL) for cell in row] for row in [table.header, *table.rows])
        parts.append("\n".join(filter(None, [harmless(table.title), harmless(table.note)])))
        parts[-1] += f"\n\n{markdown_table(header, rows)}"
    encoding = sys.stdout.encoding or "utf-8"
    print("\n\n".join(parts).encode(encoding, "replace").decode(encoding))


def write_report(report: Report, folder: Path) -> None:
    """Writes `report.html`, which needs no other file and runs no script, and `plots/<name>.png`.

    Args:
        folder: made if it is not there.
    """
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    plots: list[Curves | Scatter] = [*report.curves, *report.scatters]
    names = _file_names([plot.name for plot in plots])
    curves = [_plot(draw_curves, curves, _alt_curves(curves), folder, next(names)) for curves in report.curves]
    scatters = [
        _plot(draw_scatter, scatter, _alt_scatter(scatter), folder, next(names)) for scatter in report.scatters
    ]
    page = fill_page(
        Path(__file__).parent / "templates" / "report.html",
        report=report,
        tables=[(table, _numeric_columns(table)) for table in report.tables],
        curves=curves,
        scatters=scatters,
        examples=[
            (title, [(example, [_tile(path) for _, path, _ in example.images]) for example in examples])
            for title, examples in (("Largest gains", report.gains), ("Largest losses", report.losses))
        ],
        shorten=shorten,
    )
    write_whole(folder / "report.html", page)


def _file_names(names: list[str]) -> Iterator[str]:
    """A safe name for each, told apart even where the file system ignores case."""
    taken = set()
    for name in names:
        unique = stem = safe_name(name)
        number = 1
        while unique.casefold() in taken:
            number += 1
            unique = f"{stem}-{number}"
        taken.add(unique.casefold())
        yield unique


def _numeric_columns(table: Table) -> list[bool]:
    """Whether each column holds figures: no words, and a digit in some cell."""
    columns = [[row[column].strip() for row in table.rows] for column in range(len(table.header))]
    return [
        all(NUMBER.fullmatch(cell) for cell in cells) and any(char.isdigit() for cell in cells for char in cell)
        for cells in columns
    ]


def _plot(draw: Callable, plot: Curves | Scatter, alt: str, folder: Path, name: str) -> tuple[str, str, str]:
    """Writes a plot's PNG; addresses of the plot for a light and a dark page, and what it shows in words."""
    partial, path, dark = folder / "plots" / f".partial-{name}.png", folder / "plots" / f"{name}.png", io.BytesIO()
    draw(plot, partial)
    draw(plot, dark, dark=True)
    publish_file(partial, path)
    return data_uri(path.read_bytes(), "png"), data_uri(dark.getvalue(), "png"), alt


def _alt_curves(curves: Curves) -> str:
    labels = ", ".join(shorten(line.label, 60) for line in curves.lines)
    return f"{curves.title}. Lines of {curves.ylabel} over {curves.xlabel}: {labels}."


def _alt_scatter(scatter: Scatter) -> str:
    groups = ", ".join(shorten(group, 60) for group in dict.fromkeys(scatter.groups))
    return f"{scatter.title}. {len(scatter.x)} points of {scatter.ylabel} against {scatter.xlabel}: {groups}. {scatter.note}"


def _tile(path: Path | None) -> tuple[str, bool] | None:
    """An image's address on the page and whether it is tiny; nothing if there is none that can be read."""
    if path is None:
        return None
    try:
        image = decode_file(path)
    except BadRow:
        return None
    return thumbnail(image, SIDE), max(image.size) <= SMALL
