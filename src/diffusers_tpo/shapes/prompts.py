"""Held-out captions of the embedded world as prompts to judge models on. Knows nothing of models or scores."""

from ..evaluation.prompts import Prompt
from .world import make_scenes


NUM_PROMPTS = 512
MAX_SCENES = 2**16  # draws that find nearly all of the 3686 captions of the split


def held_out_prompts(num_prompts: int | None = None, seed: int = 0) -> list[Prompt]:
    """Captions of scenes that training never shows, each once and in the order in which `make_scenes` draws them.

    Args:
        num_prompts: how many captions, 512 if `None`; fewer come back only where the held-out split has no more.
        seed: of the scenes.

    Returns:
        Prompts whose category is "one group" or "two groups".
    """
    wanted = NUM_PROMPTS if num_prompts is None else num_prompts
    drawn, captions = min(wanted, MAX_SCENES), {}
    while True:
        for scene in make_scenes(drawn, seed, held_out=True):  # begins with the scenes of the draw before
            captions.setdefault(scene.caption(), "one group" if len(scene.groups) == 1 else "two groups")
        if len(captions) >= wanted or drawn == MAX_SCENES:
            break
        drawn = min(2 * drawn, MAX_SCENES)
    return [Prompt(text, category) for text, category in list(captions.items())[:wanted]]
