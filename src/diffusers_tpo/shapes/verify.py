"""Exact answers to "does this image show this scene", one per principle. Knows nothing of models."""

import numpy as np

from .images import RESOLUTION, Object, read_image
from .scenes import PRINCIPLES, Group, Scene


CLEAN_FIT = 0.8  # an object is clean if its overlap (IoU) with the ideal shape reaches this


def _members(objects: list[Object], group: Group) -> list[Object]:
    """The objects that a group speaks of: those of its shape, or of its colour where the shape is missing."""
    return [o for o in objects if o.shape == group.shape] or [o for o in objects if o.colour == group.colour]


def _is_at(members: list[Object], position: str) -> bool:
    """True if the centre of the members lies in that quarter: further out along its axis than off it."""
    middle = (RESOLUTION - 1) / 2
    dy, dx = (float(np.mean([getattr(o, axis) for o in members])) - middle for axis in ("y", "x"))
    along, across = (dx, dy) if position in ("left", "right") else (dy, dx)
    outward = -along if position in ("left", "top") else along
    return outward > abs(across)


def verify(pixels: np.ndarray, scene: Scene) -> dict[str, bool]:
    """Says which facts of a scene hold in an image.

    Args:
        pixels: uint8 image (32, 32, 3).
        scene: the scene that the prompt describes.

    Returns:
        One boolean per principle, `aligned` (all of them) and `clean` (every object has a crisp shape):
        *content* - exactly the named shapes in the named numbers; *attribute* - every group has its colour and size;
        *spatial* - every group is on its side; *contextual* - the background is right.
    """
    objects, background = read_image(pixels)
    groups = [(group, _members(objects, group)) for group in scene.groups]
    facts = {
        "content": len(objects) == sum(group.count for group in scene.groups)
        and all(sum(o.shape == group.shape for o in objects) == group.count for group in scene.groups),
        "attribute": all(
            members and all((o.colour, o.size) == (group.colour, group.size) for o in members)
            for group, members in groups
        ),
        "spatial": all(members and _is_at(members, group.position) for group, members in groups),
        "contextual": background == scene.background,
    }
    facts = {name: bool(value) for name, value in facts.items()}
    facts["aligned"] = all(facts[principle] for principle in PRINCIPLES)
    facts["clean"] = bool(objects) and all(o.fit >= CLEAN_FIT for o in objects)
    return facts
