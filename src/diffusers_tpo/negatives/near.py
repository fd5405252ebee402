"""Finds captions that are nearly the same as an earlier one. Knows nothing of images or edits."""

from collections.abc import Iterable
from zlib import crc32

import numpy as np

from .language.words import folded


HASHES, BANDS = 128, 32  # bands of 4: pairs of similarity 0.8 share one with 99.99 %, pairs of 0.3 with 23 %
SHINGLE = 3  # words in a row


def shingles(text: str) -> frozenset[str]:
    """Groups of words in a row; of a shorter text the text itself."""
    words = folded(text)
    groups = zip(*(words[start:] for start in range(SHINGLE)), strict=False)
    return frozenset(map(" ".join, groups)) or frozenset([" ".join(words) or text.strip()])


def similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard: the share of all groups that both have."""
    return len(one & other) / len(one | other)


class MinHash:
    """Signatures of sets, so that two agree in a place as often as their sets are similar
    ([Broder](https://doi.org/10.1109/SEQUEN.1997.666900))."""

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.factors, self.offsets = rng.integers(0, 2**64, (2, HASHES), dtype=np.uint64)

    def bands(self, groups: frozenset[str]) -> list[bytes]:
        """Pieces of the signature; similar sets share one of them."""
        values = np.array([crc32(group.encode("utf-8", "surrogatepass")) for group in groups], dtype=np.uint64)
        hashes = (values[:, None] * self.factors + self.offsets) >> np.uint64(32)  # multiply-shift, modulo 2**64
        signature = hashes.min(axis=0)
        return [bytes([band]) + piece.tobytes() for band, piece in enumerate(np.split(signature, BANDS))]


def near_duplicates(texts: Iterable[str], threshold: float) -> list[int]:
    """Numbers of the texts that resemble an earlier one which stays, by groups of three words.

    MinHash finds who may be near; the similarity itself is then counted, so nothing is taken for near that is not.
    Memory grows by a few kilobytes a text.

    Args:
        threshold: least Jaccard similarity, above 0 and at most 1.
    """
    minhash, near = MinHash(), []
    places: dict[bytes, list[int]] = {}
    kept: dict[int, frozenset[str]] = {}
    for number, text in enumerate(texts):
        own = shingles(text)
        bands = minhash.bands(own)
        candidates = {other for band in bands for other in places.get(band, ())}
        if any(similarity(own, kept[other]) >= threshold for other in candidates):
            near.append(number)
            continue
        kept[number] = own
        for band in bands:
            places.setdefault(band, []).append(number)
    return near
