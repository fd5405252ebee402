"""Edits captions of the shapes world exactly, through their scenes. An editor like any other for building negatives."""

import random
from collections.abc import Iterable, Iterator

from ..shapes.captions import read_scene
from ..shapes.scenes import mismatched_scene
from .asking import Wanted
from .editors import EditRequest, Edits


DRAWS = 8  # edits drawn to find one that the row has not yet


def edit_scene(rng: random.Random, caption: str, wanted: Wanted) -> str | None:
    """The caption of a scene with the wanted number of edits, `None` if there is no such scene in the same split."""
    scene = read_scene(caption)
    for _ in range(wanted.num_edits):
        scene = scene and mismatched_scene(rng, scene, wanted.principle)
    return scene.caption() if scene else None


class ShapesEditor:
    """Writes the caption of an edited scene, which is as natural as the true one."""

    name = "shapes"

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Edits]]:
        for request in requests:
            edits = []
            used: set[str | None] = {*request.accepted, request.caption}
            for number, wanted in enumerate(request.wanted):
                rng = random.Random(f"shapes/{request.seed}/{request.row}/{request.attempt}/{number}")
                drawn = [edit_scene(rng, request.caption, wanted) for _ in range(DRAWS)]
                caption = next((text for text in drawn if text not in used), drawn[0])
                used.add(caption)
                edits.append(caption)
            yield request, Edits(tuple(edits))
