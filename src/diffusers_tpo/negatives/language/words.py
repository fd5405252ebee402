"""Splits captions into words and finds where two captions differ. Knows nothing of grammar or meaning."""

import re
import unicodedata
from dataclasses import dataclass
from difflib import SequenceMatcher


LONGEST_CAPTION = 20_000  # characters; a longer text is no caption
TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


LARGEST_MATCH = 100_000  # words before times words after; what differs over more is one change


@dataclass(frozen=True)
class Change:
    """One place where two captions differ: word ranges `[start, end)` before and after."""

    before: tuple[int, int]
    after: tuple[int, int]


def words(text: str) -> list[str]:
    """Words and punctuation marks in order."""
    return TOKEN.findall(text)


def folded(text: str) -> list[str]:
    """The words alone, in lower case: what a change of case, punctuation or Unicode form does not touch."""
    text = unicodedata.normalize("NFC", text).casefold()
    return [word for word in TOKEN.findall(text) if word[0].isalnum() or word[0] == "_"]


def changes(before: list[str], after: list[str]) -> list[Change]:
    """The places where two lists of words differ, in order.

    Example: "a red cube and a ball" and "a blue cube and two balls" differ in two places.
    """
    start, end = 0, 0  # common ends are stripped first: captions differ in few words, and matching is quadratic
    shortest = min(len(before), len(after))
    while start < shortest and before[start] == after[start]:
        start += 1
    while end < shortest - start and before[-1 - end] == after[-1 - end]:
        end += 1
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    if len(old) * len(new) > LARGEST_MATCH:
        return [Change((start, len(before) - end), (start, len(after) - end))]
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return [
        Change((start + i, start + j), (start + k, start + m))
        for kind, i, j, k, m in matcher.get_opcodes()
        if kind != "equal"
    ]
