"""The four ways in which a caption can stop fitting its image. Knows nothing of who edits, trains or judges."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Principle:
    """A kind of edit; the four kinds are those of the paper (https://huggingface.co/papers/2509.25771)."""

    name: str
    definition: str
    examples: tuple[tuple[str, str], ...]


PRINCIPLES = {
    principle.name: principle
    for principle in (
        Principle(
            "content",
            "which objects are there and how many: the number, the presence or the identity of an object",
            (
                ("three trees inside a glass house", "five trees inside a glass house"),
                ("a cat asleep on a red sofa", "a rabbit asleep on a red sofa"),
            ),
        ),
        Principle(
            "attribute",
            "what an object is like: colour, material, texture, size, shape, age, state, clothing, or the style of the image",
            (
                ("a wooden bowl of green apples", "a steel bowl of green apples"),
                ("an old lighthouse, watercolor painting", "an old lighthouse, charcoal drawing"),
            ),
        ),
        Principle(
            "spatial",
            "where objects are and how they move: position, arrangement, direction, pose, motion or relation to one another",
            (
                ("a dog lying under the table", "a dog lying on top of the table"),
                ("a boy running towards the camera", "a boy running away from the camera"),
            ),
        ),
        Principle(
            "contextual",
            "what surrounds the objects: background, place, weather, season, light or time of day",
            (
                ("a fishing boat at sunrise", "a fishing boat at midnight"),
                ("two deer in a snowy forest", "two deer in a sunlit meadow"),
            ),
        ),
    )
}
