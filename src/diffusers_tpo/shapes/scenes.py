"""Scenes of coloured shapes, their captions and their mismatched captions. Knows nothing of pixels or models.

A scene is one background and one or two groups of like objects; every group says how many, how large, which colour,
which shape and where. A mismatched caption is the caption of an edited scene, so it is as natural as the true one.
"""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..principles import PRINCIPLES


T = TypeVar("T")
COLOURS = {
    "red": (225, 40, 40),
    "green": (40, 165, 60),
    "blue": (45, 75, 225),
    "yellow": (245, 220, 45),
    "purple": (150, 50, 180),
    "cyan": (50, 210, 225),
}
SHAPES = ("circle", "square", "triangle")
SIZES = {"small": 8, "large": 13}  # pixels across
POSITIONS = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
BACKGROUNDS = {
    "at night": (22, 22, 50),
    "in the snow": (246, 246, 250),
    "in the fog": (140, 144, 150),
    "in the sand": (216, 184, 136),
}
NUMBERS = {1: "a", 2: "two", 3: "three"}
HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Group:
    """`count` like objects on one side of the image."""

    count: int
    size: str
    colour: str
    shape: str
    position: str

    def phrase(self) -> str:
        noun = self.shape if self.count == 1 else self.shape + "s"
        return f"{NUMBERS[self.count]} {self.size} {self.colour} {noun} {POSITIONS[self.position]}"


@dataclass(frozen=True)
class Scene:
    """What a caption says: one or two groups of different shape and colour, at most three objects, a background."""

    groups: tuple[Group, ...]
    background: str

    def caption(self) -> str:
        return " and ".join(group.phrase() for group in self.groups) + f" {self.background}"

    def is_valid(self) -> bool:
        """True if the scene can be drawn and every object can be told apart."""
        groups = self.groups
        if any(group.count == 3 and group.size == "large" for group in groups):
            return False
        if len(groups) == 1:
            return 1 <= groups[0].count <= 3
        first, second = groups
        return (
            first.count + second.count <= 3
            and first.shape != second.shape
            and first.colour != second.colour
            and first.position == OPPOSITE[second.position]
        )

    def is_held_out(self) -> bool:
        """True for the tenth of all scenes that training never shows. The order of the groups does not matter."""
        key = " | ".join(sorted(group.phrase() for group in self.groups)) + self.background
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") < HELD_OUT_SHARE * 2**32


def sample_scene(rng: random.Random, held_out: bool = False) -> Scene:
    """Draws one scene of the training split, or of the held-out split."""
    while True:
        position = rng.choice(list(POSITIONS))
        positions = (position, OPPOSITE[position]) if rng.random() < 0.6 else (position,)
        groups = tuple(
            Group(rng.randint(1, 3), rng.choice(list(SIZES)), rng.choice(list(COLOURS)), rng.choice(SHAPES), place)
            for place in positions
        )
        scene = Scene(groups, rng.choice(list(BACKGROUNDS)))
        if scene.is_valid() and scene.is_held_out() == held_out:
            return scene


def _other(rng: random.Random, options: Iterable[T], current: T) -> T:
    return rng.choice([option for option in options if option != current])


def _edit_group(scene: Scene, index: int, **changes: Any) -> Scene:
    groups = list(scene.groups)
    groups[index] = replace(groups[index], **changes)
    return Scene(tuple(groups), scene.background)


def _edit(rng: random.Random, scene: Scene, principle: str) -> Scene:
    """One random edit by one principle; the result may be invalid."""
    index = rng.randrange(len(scene.groups))
    group = scene.groups[index]
    if principle == "content":
        if rng.random() < 0.5:
            return _edit_group(scene, index, count=_other(rng, NUMBERS, group.count))
        return _edit_group(scene, index, shape=_other(rng, SHAPES, group.shape))
    if principle == "attribute":
        if len(scene.groups) == 2 and rng.random() < 0.25:  # the classic binding error: colours exchanged
            first, second = scene.groups
            return _edit_group(_edit_group(scene, 0, colour=second.colour), 1, colour=first.colour)
        if rng.random() < 0.6:
            return _edit_group(scene, index, colour=_other(rng, COLOURS, group.colour))
        return _edit_group(scene, index, size=_other(rng, SIZES, group.size))
    if principle == "spatial":
        place = _other(rng, POSITIONS, scene.groups[0].position)
        places = (place, OPPOSITE[place])
        return Scene(
            tuple(replace(g, position=p) for g, p in zip(scene.groups, places, strict=False)), scene.background
        )
    if principle == "contextual":
        return Scene(scene.groups, _other(rng, BACKGROUNDS, scene.background))
    raise ValueError(f"principle must be one of {', '.join(PRINCIPLES)}, got {principle!r}")


def mismatched_scene(rng: random.Random, scene: Scene, principle: str) -> Scene | None:
    """A scene that differs from `scene` by one edit of the given principle, drawn from the same split.

    Held-out scenes never become training captions; held-out rows may be edited into any scene. Returns `None` for the
    rare training scene whose every edit is held out.
    """
    for _ in range(100):
        edited = _edit(rng, scene, principle)
        if edited != scene and edited.is_valid() and (scene.is_held_out() or not edited.is_held_out()):
            return edited
    return None
