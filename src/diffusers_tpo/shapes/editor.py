"""Edits captions of the shapes world exactly, through their scenes. An editor like any other for building negatives."""

import json
import random
import re
from collections.abc import Iterable, Iterator

from ..negatives.editors import Answer, EditRequest
from ..negatives.principles import Wanted
from .scenes import BACKGROUNDS, COLOURS, NUMBERS, POSITIONS, SHAPES, SIZES, Group, Scene, mismatched_scene


DRAWS = 8  # edits drawn to find one that the row has not yet


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


def edit_scene(rng: random.Random, caption: str, wanted: Wanted) -> str | None:
    """The caption of a scene with the wanted number of edits, `None` if there is no such scene in the same split."""
    scene = read_scene(caption)
    for _ in range(wanted.num_edits):
        scene = scene and mismatched_scene(rng, scene, wanted.principle)
    return scene.caption() if scene else None


class ShapesEditor:
    """Writes the caption of an edited scene, which is as natural as the true one."""

    name = "shapes"

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Answer]]:
        for request in requests:
            edits, used = [], {*request.accepted, request.caption}
            for number, wanted in enumerate(request.wanted):
                rng = random.Random(f"shapes/{request.seed}/{request.row}/{request.attempt}/{number}")
                drawn = [edit_scene(rng, request.caption, wanted) for _ in range(DRAWS)]
                caption = next((text for text in drawn if text not in used), drawn[0])
                used.add(caption)
                edits.append({"principle": wanted.principle, "caption": caption})
            yield request, Answer(json.dumps({"edits": edits}))
