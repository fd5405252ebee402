#!/usr/bin/env python
"""Draws the README's picture from what `make quickstart` left: a row of its data with the changed words marked, and renders before and after.

    python docs/picture.py [--quickstart quickstart] [--output docs/quickstart.png]

The row is the first with a mismatched caption of every principle, the renders are of the first held-out captions: nothing is chosen by its looks.
"""

import argparse
from pathlib import Path

import datasets
import matplotlib
import numpy as np
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

from diffusers_tpo.evaluation.shapes import load_model
from diffusers_tpo.negatives.preview import Segment, mark
from diffusers_tpo.principles import PRINCIPLES
from diffusers_tpo.shapes.world import draw_images, make_scenes, verify_images


matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 - after the backend is chosen


ROOT = Path(__file__).resolve().parents[1]
RENDERS = 8
INK, FAINT, PAPER, MARKED = (
    "#1f2328",
    "#57606a",
    "#f6f8fa",
    "#ffd33d",
)  # its own paper: readable on a light and on a dark page
RIGHT, WRONG = "#1a7f37", "#cf222e"


def write(axis, y: float, pieces: list[Segment], x: float = 0.0, size: float = 13, **style) -> None:
    """One line of text, its changed words on a marked ground."""
    words = []
    for piece in pieces:
        shown = {"color": INK, "size": size, "family": "DejaVu Sans"} | style
        if piece.changed:
            shown |= {"weight": "bold", "bbox": {"facecolor": MARKED, "edgecolor": "none", "pad": 1.5}}
        words.append(TextArea(piece.text.replace(" ", "\N{NO-BREAK SPACE}"), textprops=shown))
    line = HPacker(children=words, align="baseline", pad=0, sep=1)
    place = {"bbox_to_anchor": (x, y), "bbox_transform": axis.transAxes, "borderpad": 0}
    axis.add_artist(AnchoredOffsetbox("center left", child=line, pad=0, frameon=False, **place))


def show_row(figure, row: dict) -> None:
    """The image, its caption, and the captions that do not fit."""
    image = figure.add_axes((0.02, 0.58, 0.2, 0.385))
    image.imshow(np.asarray(row["image"]), interpolation="nearest")
    image.set(xticks=[], yticks=[])
    text = figure.add_axes((0.25, 0.555, 0.73, 0.43))
    text.axis("off")
    _, mismatched = mark(row | {"num_edits": [1] * len(row["principles"])})
    write(text, 0.93, [Segment("An image and its caption", False)], size=11, color=FAINT)
    write(text, 0.80, [Segment(row["prompt"], False)], weight="bold", size=14)
    write(text, 0.58, [Segment("The same caption, edited so that it no longer fits", False)], size=11, color=FAINT)
    for number, (pieces, principle, _) in enumerate(mismatched):
        y = 0.44 - 0.125 * number
        write(text, y, [Segment(principle, False)], size=11, color=FAINT, style="italic")
        write(text, y, pieces, x=0.14)


def show_renders(figure, captions: list[str], rows: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """A line of renders for each model, under the captions; a sign and a frame say whether every fact is right."""
    width, left = 0.114, 0.083
    heading = "Captions that it never saw, drawn before and after training; ✓ every fact of the caption is right"
    figure.text(0.02, 0.5, heading, color=FAINT, size=11, va="center")
    for line, (name, (images, right)) in enumerate(rows.items()):
        bottom = 0.215 - 0.205 * line
        figure.text(0.02, bottom + 0.1, name, color=INK, size=13, weight="bold", va="center")
        for column, (pixels, is_right) in enumerate(zip(images, right, strict=True)):
            axis = figure.add_axes((left + column * width, bottom, width * 0.88, 0.19))
            axis.imshow(pixels, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            color = RIGHT if is_right else WRONG
            for spine in axis.spines.values():
                spine.set(color=color, linewidth=3)
            sign = {"color": "white", "size": 11, "weight": "bold", "ha": "right", "va": "top"}
            ground = {"facecolor": color, "edgecolor": "none", "pad": 2}
            axis.text(0.97, 0.97, "✓" if is_right else "✗", transform=axis.transAxes, bbox=ground, **sign)
            if line == 0:
                words = captions[column].split()
                lines = "\n".join(" ".join(words[start : start + 3]) for start in range(0, len(words), 3))
                axis.set_title(lines, size=8, color=INK, pad=4, va="baseline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quickstart", type=Path, default=ROOT / "quickstart", help="folder that make quickstart left"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "quickstart.png")
    args = parser.parse_args()

    data = datasets.load_dataset("parquet", data_files=str(args.quickstart / "data" / "train.parquet"), split="train")
    row = next(row for row in data if len(row["principles"]) == len(PRINCIPLES))

    scenes = make_scenes(RENDERS, 0, held_out=True)
    rows = {}
    for name, model in {"before": load_model(), "after": load_model(args.quickstart)}.items():
        images = draw_images(model, scenes, seed=0, guidance_scale=1.0, steps=10, progress=False)
        rows[name] = (images, verify_images(images, scenes)["aligned"])

    figure = plt.figure(figsize=(12, 7.2), facecolor=PAPER)
    show_row(figure, row)
    show_renders(figure, [scene.caption() for scene in scenes], rows)
    figure.savefig(args.output, dpi=130, facecolor=PAPER)
    print(f"In {args.output}: {[int(right.sum()) for _, right in rows.values()]} of {RENDERS} right, before and after")


if __name__ == "__main__":
    main()
