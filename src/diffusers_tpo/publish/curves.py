"""Draws the curves of a training run as one PNG. Knows nothing of models, and leaves matplotlib's global state alone."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from matplotlib.axes import Axes


PANELS = {
    "loss": "Loss",
    "preference_loss": "Preference loss",
    "error/matched": "Denoising error of matched prompts",
    "reward/margin": "Reward margin",
    "reward/accuracy": "Reward accuracy",
    "reward/matched_relative": "Matched reward / reference's error",
    "eval/guidance/built_in": "Built-in guidance",
}
NEUTRAL = {
    "reward/margin": 0,
    "reward/accuracy": 0.5,
    "reward/matched_relative": 0,
    "eval/guidance/built_in": 0,
}  # of an untrained model
BLUE, INK, SOFT, FAINT = "#0072b2", "#22211e", "#6d6b64", "#e3e2dd"


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of each value and up to `window - 1` before it; nan is left out."""
    there = ~np.isnan(values)
    sums, counts = np.cumsum(np.where(there, values, 0)), np.cumsum(there)
    sums[window:], counts[window:] = sums[window:] - sums[:-window], counts[window:] - counts[:-window]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def draw_training(rows: list[dict[str, float]], path: Path) -> None:
    """Draws the metrics that the rows of a training log hold: every step, and the running mean over a twentieth of them; of an
    evaluation its own steps.

    Args:
        rows: with `step` and metrics by name; at least one.
        path: the PNG; the same rows give the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in PANELS if any(name in row for row in rows)]
    if "preference_loss" in names:
        names.remove("loss")  # most of which is the anchor
    if "reward/matched_relative" in names:
        names.remove("error/matched")  # which the reward shows against the reference's
    window, lines = max(1, len(rows) // 20), -(-len(names) // 2)
    figure = Figure(figsize=(9, 3 * lines), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    top, bottom = 1 - 0.3 / (3 * lines), 0.55 / (3 * lines)  # a layout that matplotlib finds takes twice the time
    figure.subplots_adjust(left=0.07, right=0.985, top=top, bottom=bottom, hspace=0.4, wspace=0.18)
    steps = np.array([row["step"] for row in rows])
    for axes, name in zip(figure.subplots(lines, 2, squeeze=False).flat, names, strict=False):
        values = np.array([row.get(name, np.nan) for row in rows], dtype=float)
        values[~np.isfinite(values)] = np.nan
        if name.startswith("eval/"):
            is_there = ~np.isnan(values)
            axes.plot(steps[is_there], values[is_there], color=BLUE, linewidth=1.8, marker=".")
        else:
            is_alone = window == 1
            axes.plot(steps, values, color=BLUE, alpha=1 if is_alone else 0.25, linewidth=1, marker="." * is_alone)
        if window > 1 and not name.startswith("eval/"):
            axes.plot(steps, running_mean(values, window), color=BLUE, linewidth=1.8)
        if name in NEUTRAL:
            axes.axhline(NEUTRAL[name], color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        _style(axes, PANELS[name])
    for axes in figure.axes[len(names) :]:
        axes.remove()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": None})


def _style(axes: "Axes", title: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=10.5, fontweight="bold")
    axes.set_xlabel("optimizer step", color=SOFT, fontsize=9)
    axes.locator_params(axis="x", integer=True)
    axes.ticklabel_format(useOffset=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=SOFT, labelsize=8.5, length=3)
    axes.grid(color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
