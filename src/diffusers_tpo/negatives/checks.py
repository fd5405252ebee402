"""Says whether an edited caption can be used, from the two texts alone. Knows nothing of editors or data sets."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import groupby

from .language.grammar import is_same_verb
from .language.lexicon import NUMBERS, SYNONYMS
from .language.words import Change, changes, folded, words


REASONS = {
    "malformed": "the answer could not be read",
    "empty": "it is empty",
    "unchanged": "it equals the caption",
    "duplicate": "it equals another edit of the caption",
    "refusal": "it refuses or talks about the task",
    "language": "it is in another language than the caption",
    "too_long": "it is much longer than the caption",
    "too_many_edits": "it changes the caption in too many places",
    "contradicts_nothing": "an image of the caption could also show it: it only adds, leaves out, reorders or rephrases",
}
REFUSAL = re.compile(
    r"(i'?m|i am) (sorry|unable|not able)|i (can'?t|cannot|won'?t|will not|do not|don'?t) (help|assist|edit|create|provide"
    r"|comply|generate|fulfill|see|do that)|as an ai\b|as a language model|(here is|here's) (the|your|an?) (edited|modified)"
    r"|the (edited|modified|original) caption|unfortunately,? i\b|\A(sure|certainly|of course)\b"
    r"|\b(chang|replac|swapp)(ed|ing)\b.*\b(to|with|by|for)\b|\bnothing else\b"
)
FUNCTION_WORDS = frozenset(
    "a an the of in on at with and or is are was were to from by for near under over behind into onto its his her their".split()
)
NEGATIONS = frozenset("no not without never nothing nobody none isn't aren't".split())
LATIN = re.compile(r"[A-Za-zªµº\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]")
# marks of markup, JSON and labels: only a caption that has them may keep them
STRANGE = re.compile(r"[*_`#{}\[\]<>|\\\"“”→:\ufffd]")
ENTITY = re.compile(r"&(?:#\d+|#x[0-9a-f]+|[a-z]+\d*);", re.IGNORECASE)  # of HTML, which a caption would be shown with
MOST_MARKS = 3  # accents and the like upon one letter, or beyond those of a caption in Latin letters
SYMMETRIC = re.compile(r"(?:,|\b(?:and|or|with|near|beside|next to)\b)+")  # both sides may change places
PHRASES = {  # synonyms of more than one word
    "next to": "beside",
    "at dawn": "at sunrise",
    "at dusk": "at sunset",
    "in fall": "in autumn",
    "pencil drawing": "pencil sketch",
}
PHRASE = re.compile(rf"\b(?:{'|'.join(PHRASES)})\b")


@dataclass(frozen=True)
class Limits:
    """How far an edit may go from its caption.

    Args:
        length_ratio: longest edit as a multiple of the caption's words.
        places_per_edit: places where the words may differ, for each wanted edit; an exchange of two colours is one edit
            in two places.
        changed_share: largest share of the caption's words that may change; it may always be 4 words, but all of them only
            if they are one or two, exchanged for as many.
    """

    length_ratio: float = 1.5
    places_per_edit: int = 2
    changed_share: float = 0.5


def places(before: list[str], after: list[str]) -> list[Change]:
    """Where two captions differ; "on the left" and "at the top" differ in one place, though both say "the"."""
    found: list[Change] = []
    for change in changes(before, after):
        gap = before[found[-1].before[1] : change.before[0]] if found else []
        if len(gap) == 1 and gap[0] in FUNCTION_WORDS:
            last = found.pop()
            change = Change((last.before[0], change.before[1]), (last.after[0], change.after[1]))
        found.append(change)
    return found


def count_edits(prompt: str, edited: str) -> int:
    """In how many places the words of an edit differ from its caption."""
    return len(places(folded(prompt), folded(edited)))


def _latin_share(text: str) -> float:
    letters = [character for character in text if character.isalpha()]
    return len(LATIN.findall(text)) / max(len(letters), 1)


def _other_language(before: list[str], after: list[str], prompt: str, edited: str) -> bool:
    """Letters of another script, or an English caption whose edit keeps no English function word."""
    if _latin_share(prompt) > 0.9 and any(c.isalpha() and not LATIN.match(c) for c in set(edited) - set(prompt)):
        return True
    if _latin_share(prompt) < 0.3 and _latin_share(edited) > 0.7:
        return any(character.isalpha() for character in prompt)
    known = FUNCTION_WORDS.intersection(before)
    kept = len(set(before) & set(after))
    return len(known) >= 2 and not FUNCTION_WORDS.intersection(after) and kept <= len(set(before)) / 3


def _changes_much(before: list[str], after: list[str], num_edits: int, limits: Limits) -> bool:
    allowed = max(limits.changed_share * len(before), 4)
    kept = (Counter(before) & Counter(after)).total()
    if not kept and (len(before) > 2 or len(before) != len(after)):
        return True
    if len(after) - kept > allowed:  # spares `changes` the hopeless long texts
        return True
    changed = sum(max(c.before[1] - c.before[0], c.after[1] - c.after[0]) for c in changes(before, after))
    return changed > allowed or len(places(before, after)) > limits.places_per_edit * num_edits


def _is_reordering(prompt: str, edited: str) -> bool:
    """True if only what has no order changed places: members of a list, or both sides of "next to"."""
    if Counter(folded(prompt)) != Counter(folded(edited)):
        return False

    def members(text: str) -> Counter[str]:
        return Counter(part.strip(" .") for part in SYMMETRIC.split(" ".join(words(text.casefold()))))

    return members(prompt) == members(edited)


def _meaning(text: list[str]) -> list[str]:
    """The words with one word for each group of synonyms and digits for numbers, "a" among them."""
    one = {"a": "1", "an": "1"}
    plain = (one.get(word) or str(NUMBERS.get(word, SYNONYMS.get(word, word))) for word in text)
    return PHRASE.sub(lambda phrase: PHRASES[phrase[0]], " ".join(plain)).split()


def _contradicts(change: Change, before: list[str], after: list[str]) -> bool:
    """True if an image of the old words cannot show the new ones, as far as words can tell."""
    old, new = set(before[slice(*change.before)]), set(after[slice(*change.after)])
    if (old ^ new) & NEGATIONS:
        return True
    if not old:
        return any(word in NUMBERS and word != "1" for word in new)
    if not new:
        return False
    articles = {"the"} if old & NUMBERS.keys() else {"the", "1"}
    return any(not any(is_same_verb(word, there) for there in old) for word in new - old - articles)


def _contradict(before: list[str], after: list[str]) -> bool:
    before, after = _meaning(before), _meaning(after)
    return any(_contradicts(change, before, after) for change in changes(before, after))


def _marks(text: str) -> tuple[int, int]:
    """How many accents and the like stand in a text beyond those that are part of a letter, and the most in a row."""
    composed = unicodedata.normalize("NFC", text)
    runs = [
        len(list(run))
        for is_mark, run in groupby(composed, lambda c: unicodedata.category(c) in ("Mn", "Me"))
        if is_mark
    ]
    return sum(runs), max(runs, default=0)


def is_strange(edited: str, prompt: str) -> bool:
    """True if an edit has what its caption has not: markup, characters that nobody sees or that mean nothing, heaps of accents."""
    added = set(edited) - set(prompt)
    if any(STRANGE.match(character) or unicodedata.category(character)[0] == "C" for character in added):
        return True
    if "\ud800" <= max(edited) and any(unicodedata.category(character) == "Cs" for character in edited):
        return True  # half characters, which UTF-8 cannot hold, though the caption has them
    if {found.casefold() for found in ENTITY.findall(edited)} - {found.casefold() for found in ENTITY.findall(prompt)}:
        return True
    if edited.isascii():
        return False
    (number, longest), (before, longest_before) = _marks(edited), _marks(prompt)
    is_latin = _latin_share(prompt) > 0.9
    return longest > max(MOST_MARKS, longest_before) or (is_latin and number > before + MOST_MARKS)


def check_edit(
    prompt: str, edited: str, num_edits: int = 1, others: tuple[str, ...] = (), limits: Limits | None = None
) -> str | None:
    """Checks one edited caption.

    Args:
        prompt: the caption that fits.
        edited: the candidate that should not.
        num_edits: how many edits were asked for.
        others: edits of the same caption that are already there.

    Returns:
        `None` if it can be used, else a key of [`REASONS`].
    """
    limits = limits or Limits()
    if not edited.strip():
        return "empty"
    if is_strange(edited.strip(), prompt):
        return "malformed"
    before, after = folded(prompt), folded(edited)
    if before == after:
        return "unchanged"
    if any(after == folded(other) for other in others):
        return "duplicate"
    lowered = edited.casefold().replace("’", "'")
    if REFUSAL.search(lowered) and not REFUSAL.search(prompt.casefold().replace("’", "'")):
        return "refusal"
    if len(after) > max(limits.length_ratio * len(before), len(before) + 4):
        return "too_long"
    if not after or _other_language(before, after, prompt, edited):
        return "language"
    if _changes_much(before, after, num_edits, limits):
        return "too_many_edits"
    if _is_reordering(prompt, edited) or not _contradict(before, after):
        return "contradicts_nothing"
    return None
