"""Reads captions of the embedded world back into scenes."""

import re
from collections.abc import Iterable

from ..errors import UserError
from .scenes import BACKGROUNDS, COLOURS, NUMBERS, POSITIONS, SHAPES, SIZES, Group, Scene


def _one_of(options: Iterable[str]) -> str:
    return "(" + "|".join(options) + ")"


GROUP = re.compile(
    rf"{_one_of(NUMBERS.values())} {_one_of(SIZES)} {_one_of(COLOURS)} {_one_of(SHAPES)}s? {_one_of(POSITIONS.values())}"
)


BACKGROUND = re.compile(f" {_one_of(BACKGROUNDS)}$")


def read_scene(caption: str) -> Scene | None:
    """The scene that a caption describes, or `None` if it is no caption of this world."""
    counts = {word: count for count, word in NUMBERS.items()}
    places = {phrase: position for position, phrase in POSITIONS.items()}
    groups = tuple(
        Group(counts[count], size, colour, shape, places[place])
        for count, size, colour, shape, place in GROUP.findall(caption)
    )
    background = BACKGROUND.search(caption)
    scene = Scene(groups, background[1]) if background and groups else None
    return scene if scene is not None and scene.caption() == caption and scene.is_valid() else None


def parse_caption(text: str) -> Scene:
    """The scene that a caption describes.

    Raises:
        UserError: if it is no caption of this world.
    """
    scene = read_scene(text)
    if scene is None:
        raise UserError(
            f"prompt {text!r} is no caption of the shapes world; the scorer 'shapes' reads prompts such as "
            "'a small red circle on the left at night'"
        )
    return scene
