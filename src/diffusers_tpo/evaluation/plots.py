"""Draws the plots of a report as PNG files. Knows nothing of models, and leaves matplotlib's global state alone."""

from __future__ import annotations

import re
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..errors import UserError
from ..show import harmless, shorten
from .correlation import line_band


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _same_length(what: str, **columns: list) -> None:
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{len(values)} {name}" for name, values in columns.items())
        raise UserError(f"the {what} has {lengths}; give one of each for every point")


@dataclass(frozen=True)
class Line:
    """Means with their intervals over x; what is not finite is not drawn."""

    label: str
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]

    def __post_init__(self) -> None:
        _same_length(f"line {self.label!r}", x=self.x, mean=self.mean, low=self.low, high=self.high)


@dataclass(frozen=True)
class Curves:
    """A plot of lines; `name` is its file name without the suffix."""

    name: str
    title: str
    xlabel: str
    ylabel: str
    lines: list[Line]


@dataclass(frozen=True)
class Scatter:
    """A plot of points, coloured by group, with the least squares line over all; `note` is its subtitle."""

    name: str
    title: str
    xlabel: str
    ylabel: str
    x: list[float]
    y: list[float]
    groups: list[str]
    note: str

    def __post_init__(self) -> None:
        _same_length(f"scatter plot {self.title!r}", x=self.x, y=self.y, groups=self.groups)


# colours that the colour-blind tell apart (after Okabe and Ito), for a light and for a dark page
COLOURS = {
    False: ("#0072b2", "#d55e00", "#009e73", "#b5529a", "#c28500", "#3a9fd6", "#55534c"),
    True: ("#56b4e9", "#f0803c", "#35c79a", "#dd93c4", "#e6b030", "#8fb4ff", "#c9c7be"),
}
MARKERS = "osD^vPX*<>p"  # their number and that of the colours have no common divisor: 77 pairs differ
STYLES = ("-", "--", "-.", ":")
INK = {False: ("#22211e", "#6d6b64", "#e3e2dd", "#ffffff"), True: ("#ecebe6", "#a19f96", "#383732", "#21211e")}
MOST_LABELS = 48  # of a legend
COLUMNS = {18: 3, 32: 2, 66: 1}  # characters of the longest label: columns of the legend


def safe_name(name: str) -> str:
    """A file name that any file system takes: letters, digits, `-` and `_`, at most 80, never empty."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:80] or "plot"


def draw_curves(curves: Curves, path: Path | BinaryIO, dark: bool = False) -> None:
    """Draws mean lines with markers and shaded intervals; what is not finite is left out.

    Args:
        path: the PNG, or an open file.
        dark: whether it is for a dark page.
    """
    figure, axes = _figure(curves, "", dark)
    handles = []
    for number, line in enumerate(curves.lines):
        x, mean, low, high = (_finite(values) for values in (line.x, line.mean, line.low, line.high))
        look, style = _look(number, dark, edge=0.8), STYLES[number // len(COLOURS[dark]) % len(STYLES)]
        axes.fill_between(x, low, high, color=look["color"], alpha=0.16, linewidth=0)
        alone = _alone(x + low + high)
        axes.vlines(x[alone], low[alone], high[alone], color=look["color"], alpha=0.6, linewidth=1.5)
        handles += axes.plot(x, mean, linestyle=style, linewidth=1.7, markersize=5, **look)
    if all(float(x).is_integer() for line in curves.lines for x in line.x if np.isfinite(x)):
        axes.locator_params(axis="x", integer=True)
    _legend(figure, handles, [line.label for line in curves.lines], dark)
    _save(figure, path)


def draw_scatter(scatter: Scatter, path: Path | BinaryIO, dark: bool = False) -> None:
    """Draws points with a colour and marker for each group, and the least squares line over all with its 95 % band.

    Args:
        path: the PNG, or an open file.
        dark: whether it is for a dark page.
    """
    groups = {group: number for number, group in enumerate(dict.fromkeys(scatter.groups))}
    figure, axes = _figure(scatter, scatter.note, dark)
    x, y = _finite(scatter.x), _finite(scatter.y)
    both = np.isfinite(x) & np.isfinite(y)
    numbers = np.array([groups[group] for group in scatter.groups], dtype=int)
    room = min(1.0, 12 / max(1, both.sum()) ** 0.5)  # 1 up to 144 points
    size, alpha = max(3.0, 6 * room), max(0.3, 0.85 * room)
    handles = []
    for number in groups.values():
        chosen, look = both & (numbers == number), _look(number, dark, edge=0.3)
        handles += axes.plot(x[chosen], y[chosen], linestyle="", markersize=size, alpha=alpha, **look)
    if both.any():
        at = np.linspace(x[both].min(), x[both].max(), 100)
        line, low, high = line_band(x, y, at)
        axes.fill_between(at, low, high, color=INK[dark][0], alpha=0.15, linewidth=0, zorder=2.5)
        axes.plot(at, line, color=INK[dark][0], linewidth=1.6, zorder=3)
    _legend(figure, handles, list(groups), dark)
    _save(figure, path)


def _finite(values: list[float]) -> np.ndarray:
    given = np.asarray(values, dtype=float)
    return np.where(np.isfinite(given), given, np.nan)


def _alone(values: np.ndarray) -> np.ndarray:
    """Where a known value has no known neighbour, so that between them no area can be shaded."""
    known = np.concatenate([[False], np.isfinite(values), [False]])
    return known[1:-1] & ~known[:-2] & ~known[2:]


def _look(number: int, dark: bool, edge: float) -> dict:
    """Colour and marker number `number`; the edge in the page's colour parts those that overlap."""
    colour, marker = COLOURS[dark][number % len(COLOURS[dark])], MARKERS[number % len(MARKERS)]
    return {"color": colour, "marker": marker, "markeredgecolor": INK[dark][3], "markeredgewidth": edge}


def _wrap(text: str, width: int, rows: int) -> str:
    """The text on at most `rows` lines of at most `width` characters; figures stay with their names."""
    text = re.sub(r" ([=<]) ", "\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", shorten(harmless(text), width * rows))
    return "\n".join(textwrap.wrap(text, width)[:rows])


def _figure(plot: Curves | Scatter, note: str, dark: bool) -> tuple[Figure, Axes]:
    """A figure and its axes with title, subtitle and axis labels."""
    from matplotlib.figure import Figure

    ink, soft, faint, page = INK[dark]
    title, note = _wrap(plot.title, 50, 2), _wrap(note, 78, 3)
    note_height = 12 * (note.count("\n") + 1) if note else 0  # points
    height = 3.9 + 0.2 * title.count("\n") + note_height / 72
    figure = Figure(figsize=(6, height), dpi=180, facecolor=page, layout="constrained")
    axes = figure.add_subplot(facecolor=page)
    texts = [axes.set_title(title, loc="left", pad=note_height + 10)]
    texts += [axes.set_xlabel(_wrap(plot.xlabel, 60, 1)), axes.set_ylabel(_wrap(plot.ylabel, 40, 1))]
    texts += [axes.annotate(note, (0, 1), (0, 9), xycoords="axes fraction", textcoords="offset points")]
    for text in texts:
        text.set_parse_math(False)
        text.set(color=soft, fontsize=9.5)
    texts[0].set(color=ink, fontsize=11.5, fontweight="bold")
    texts[3].set(fontsize=8.5, in_layout=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(soft)
    axes.tick_params(colors=soft, labelsize=9, length=3)
    axes.grid(color=faint, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.ticklabel_format(useOffset=False)
    return figure, axes


def _legend(figure: Figure, handles: list, labels: list[str], dark: bool) -> None:
    """Names lines or groups below the axes and makes the figure taller by that; there are no names if all are empty."""
    if not any(labels):
        return
    labels = [_wrap(label, max(COLUMNS), 1) for label in labels]
    if len(labels) > MOST_LABELS:
        rest = len(labels) - MOST_LABELS + 1
        from matplotlib.lines import Line2D

        nothing = Line2D([], [], linestyle="")
        handles = [*handles[: MOST_LABELS - 1], nothing]
        labels = [*labels[: MOST_LABELS - 1], f"… and {rest} more"]
    longest = max(map(len, labels))
    columns = min(len(labels), next(columns for width, columns in COLUMNS.items() if longest <= width))
    legend = figure.legend(
        handles,
        [str(number) for number in range(len(labels))],  # a label that starts with "_" would be left out
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK[dark][0],
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
    for handle in filter(None, legend.legend_handles):
        handle.set(alpha=1, markersize=6)
    figure.set_figheight(figure.get_figheight() + 0.1 + 0.19 * -(-len(labels) // columns))


def _save(figure: Figure, path: Path | BinaryIO) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a sign that the font lacks is drawn as a box
        figure.savefig(path, format="png", metadata={"Software": None})
