"""Draws scenes as 32x32 images and reads images back into objects. Knows nothing of captions or models."""

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES, Group, Scene


RESOLUTION = 32
MINIMUM_AREA = 14  # pixels; a smaller component is a speck, not an object
GAP = 2  # pixels between neighbours


@functools.cache
def shape_mask(shape: str, height: int, width: int) -> np.ndarray:
    """Boolean mask (height, width) of a shape that fills its bounding box."""
    y, x = np.mgrid[0:height, 0:width]
    y, x = (y + 0.5) / height, (x + 0.5) / width
    if shape == "circle":
        return (y - 0.5) ** 2 + (x - 0.5) ** 2 <= 0.25
    if shape == "triangle":
        return np.abs(x - 0.5) <= y / 2
    return np.ones((height, width), dtype=bool)


def _boxes(scene: Scene, rng: random.Random) -> Iterator[tuple[Group, int, int]]:
    """Yields (group, top, left) of every object: a column on the left and right, a row at the top and bottom."""
    for group in scene.groups:
        size = SIZES[group.size]
        length = group.count * size + (group.count - 1) * GAP
        middle, half = RESOLUTION // 2, RESOLUTION // 2
        slack = min(4, (RESOLUTION - 2 - length) // 2)
        along = middle - length // 2 + rng.randint(-slack, slack)
        low, high = (1, half - 1 - size) if group.position in ("left", "top") else (half + 1, RESOLUTION - 1 - size)
        across = rng.randint(low, high)
        for index in range(group.count):
            start = along + index * (size + GAP)
            yield (group, start, across) if group.position in ("left", "right") else (group, across, start)


def render(scene: Scene, rng: random.Random) -> np.ndarray:
    """Draws a scene as uint8 pixels (32, 32, 3); `rng` shifts the objects within their side."""
    pixels = np.empty((RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    pixels[:] = BACKGROUNDS[scene.background]
    for group, top, left in _boxes(scene, rng):
        size = SIZES[group.size]
        window = pixels[top : top + size, left : left + size]
        window[shape_mask(group.shape, size, size)] = COLOURS[group.colour]
    return pixels


@dataclass(frozen=True)
class Object:
    """One object found in an image; `y`, `x` are its centre in pixels, `fit` the overlap (IoU) with its ideal shape."""

    shape: str
    colour: str
    size: str
    y: float
    x: float
    fit: float


def _nearest(colour: np.ndarray, palette: dict) -> str:
    return min(palette, key=lambda name: float(np.sum((colour - np.asarray(palette[name], dtype=float)) ** 2)))


def read_image(pixels: np.ndarray) -> tuple[list[Object], str]:
    """Finds the objects and the background of a uint8 image (32, 32, 3) by colour segmentation and geometry."""
    pixels = pixels.astype(float)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(border, axis=0)
    foreground = np.abs(pixels - ground).sum(axis=-1) > 110
    labels, found = ndimage.label(foreground)
    objects = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        mask = labels[rows, columns] == index
        if mask.sum() < MINIMUM_AREA:
            continue
        fits: dict[str, float] = {}
        for shape in SHAPES:
            ideal = shape_mask(shape, *mask.shape)
            fits[shape] = float((mask & ideal).sum() / (mask | ideal).sum())
        shape = max(fits, key=lambda name: fits[name])
        colour = np.median(pixels[rows, columns][mask], axis=0)
        across = max(mask.shape)
        size = min(SIZES, key=lambda name: abs(SIZES[name] - across))
        y, x = (rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2
        objects.append(Object(shape, _nearest(colour, COLOURS), size, y, x, fits[shape]))
    return objects, _nearest(ground, BACKGROUNDS)
