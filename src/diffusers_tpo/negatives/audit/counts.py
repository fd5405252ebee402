"""Counts over all rows of a data set of mismatched prompts, in one pass and little memory. Judges nothing."""

import hashlib
from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ..language.words import folded
from .blind_test import text_key
from .diversity import spread
from .languages import language_of


def _hash(text: str) -> int:
    """8 bytes; among 10 million texts, two different ones agree with a chance of 1 in 400 000."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass
class Counts:
    """What is counted, row by row; it grows by 8 bytes a caption and 16 a mismatched prompt."""

    captions: array = field(default_factory=lambda: array("Q"))
    pairs: array = field(default_factory=lambda: array("Q"))
    mismatched: array = field(default_factory=lambda: array("Q"))  # without those that equal their own caption
    per_caption: Counter = field(default_factory=Counter)
    principles: Counter = field(default_factory=Counter)
    num_edits: Counter = field(default_factory=Counter)
    length_ratios: Counter = field(default_factory=Counter)
    editors: Counter = field(default_factory=Counter)
    languages: Counter = field(default_factory=Counter)
    several: int = 0  # captions with more than one mismatched prompt
    alike: int = 0  # of these, those whose mismatched prompts all follow one principle

    def add(self, row: dict) -> None:
        prompt, length = text_key(row["prompt"]), max(len(folded(row["prompt"])), 1)
        own = _hash(prompt)
        self.captions.append(own)
        self.per_caption[len(row["negative_prompts"])] += 1
        self.principles.update(row["principles"])
        self.num_edits.update(row["num_edits"])
        if "editor" in row:
            self.editors.update(row["editor"].split(" + "))  # of a merged row
        self.languages[language_of(row["prompt"])] += 1
        if len(row["principles"]) > 1:
            self.several += 1
            self.alike += len(set(row["principles"])) == 1
        for edited in row["negative_prompts"]:
            key = text_key(edited)
            self.pairs.append(_hash(f"{prompt}\n{key}"))
            if _hash(key) != own:
                self.mismatched.append(_hash(key))
            self.length_ratios[round(len(folded(edited)) / length, 3)] += 1

    def figures(self) -> dict:
        captions, pairs = len(self.captions), len(self.pairs)
        different = np.unique(self.captions)
        others = int(np.isin(np.asarray(self.mismatched), different).sum())
        largest = max(self.per_caption)
        fewer = captions - self.per_caption[largest]
        return {
            "captions": captions,
            "mismatched": pairs,
            "per_caption": {
                "largest": largest,
                "fewer": counted(fewer, captions),
                "none": counted(self.per_caption[0], captions),
            },
            "principles": {name: counted(n, pairs) for name, n in sorted(self.principles.items())},
            "editors": {name: counted(n, captions) for name, n in self.editors.most_common()},
            "languages": {name: counted(n, captions) for name, n in self.languages.most_common()},
            "same_principle": counted(self.alike, max(self.several, 1)),
            "num_edits": {str(number): counted(n, pairs) for number, n in sorted(self.num_edits.items())},
            "length_ratio": spread(list(self.length_ratios), list(self.length_ratios.values())),
            "duplicates": {
                "captions": counted(captions - len(different), captions),
                "pairs": counted(pairs - len(np.unique(self.pairs)), pairs),
                "other_captions": counted(others, pairs),
                "own_caption": counted(pairs - len(self.mismatched), pairs),
            },
        }


def counted(number: int, total: int) -> dict:
    return {"count": number, "share": number / total}
