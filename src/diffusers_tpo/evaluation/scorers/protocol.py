"""What every scorer looks like, and how one says that it cannot be loaded."""

from typing import Protocol

from PIL import Image

from ...errors import UserError


class Scorer(Protocol):
    """Judges images by their prompts."""

    @property
    def kinds(self) -> dict[str, str]:
        """Says of every metric whether it is of "adherence" or "aesthetics"."""

    def __call__(self, images: list[Image.Image], prompts: list[str]) -> dict[str, list[float]]:
        """One number per image for each metric, higher is better; nan where an image could not be judged."""


def loading_error(name: str, model: str, error: Exception) -> UserError:
    """One sentence for a scorer whose model cannot be loaded."""
    return UserError(f"scorer {name!r} cannot load its model {model!r} ({first_line(error)})")


def first_line(error: Exception) -> str:
    """What an error says first, to stand within a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
