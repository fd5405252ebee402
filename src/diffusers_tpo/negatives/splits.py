"""Divides rows into train, validation and test by what they show. Knows nothing of files."""

from dataclasses import dataclass
from hashlib import sha256


SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Shares:
    """How large the splits `validation` and `test` are; the rest is `train`.

    Rows with the same image are in the same split, or with the same caption where there are no images. So nothing that is
    trained on is in another split.
    """

    validation: float = 0.0
    test: float = 0.0
    seed: int = 0

    def split_of(self, content: bytes) -> str:
        """Where rows of an image, or of a caption, belong."""
        digest = sha256(f"split/{self.seed}/".encode() + content).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.test:
            return "test"
        return "validation" if place < self.test + self.validation else "train"
