"""The exact verifier of the embedded world as a scorer of images. Knows nothing of how they were made."""

from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import UserError
from ...shapes.captions import parse_caption
from ...shapes.images import RESOLUTION
from ...shapes.world import FACTS, verify_images


class ShapesScorer:
    """Says of every image which facts of its caption hold, as 0 or 1. It loads no model, so it needs none of its arguments.

    `shapes/clean`, whether every object has a crisp shape, is the aesthetic one; the others are about the caption.
    """

    kinds = {f"shapes/{fact}": "aesthetics" if fact == "clean" else "adherence" for fact in FACTS}

    def __init__(self, device: str = "cpu", cache_dir: str | Path | None = None, token: str | None = None):
        pass

    def __call__(self, images: list[Image.Image], prompts: list[str]) -> dict[str, list[float]]:
        """Scores images of 32x32 pixels.

        Raises:
            UserError: if a prompt is no caption of this world, or an image has another size.
        """
        for index, image in enumerate(images):
            if image.size != (RESOLUTION, RESOLUTION):
                raise UserError(
                    f"the scorer 'shapes' takes images of {RESOLUTION}x{RESOLUTION} pixels, "
                    f"got {image.width}x{image.height} for image {index}"
                )
        pixels = [np.asarray(image.convert("RGB")) for image in images]
        facts = verify_images(np.stack(pixels), [parse_caption(prompt) for prompt in prompts])
        return {f"shapes/{name}": values.astype(float).tolist() for name, values in facts.items()}
