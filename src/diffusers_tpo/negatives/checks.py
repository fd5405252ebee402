"""Says whether an edited caption can be used, from the two texts alone. Knows nothing of editors or data sets."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import groupby

from .language.agreement import disagreements, is_english_so_far
from .language.grammar import NEGATIONS, is_same, singular_of
from .language.index import resolve
from .language.lexicon import KINDS_OF, NUMBERS, SYNONYMS
from .language.places import FUNCTION_WORDS, count_places
from .language.principle import possible_principles
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
    "negation": "it says what is not there instead of what is",
    "ungrammatical": "its articles, numbers or verbs do not agree",
    "wrong_principle": "it follows another principle than the one asked for",
    "contradicts_nothing": "an image of the caption could also show it: it only adds, leaves out, reorders or rephrases",
}
REFUSAL = re.compile(
    r"(i'?m|i am) (sorry|unable|not able)|i (can'?t|cannot|could ?n[o']t|won'?t|will not|do not|don'?t) (help|assist|edit"
    r"|create|provide|comply|generate|fulfill|see|do that|alter|change|modify|make|rewrite)|\bi apologi[sz]e\b|\bmy apologies"
    r"|as an ai\b|as a language model|(here is|here's) (the|your|an?) (edited|modified)"
    r"|the (edited|modified|original) caption|unfortunately,? i\b|\A(sure|certainly|of course|sorry)\b"
    r"|\b(chang|replac|swapp)(ed|ing)\b.*\b(to|with|by|for)\b|\bnothing else\b"
    r"|\((?:[^()]*\s)?(edit|edited|chang\w+|modif\w+|swapp\w+|replac\w+|alter\w+|adjusted|principle|unchanged|original)\b[^()]*\)"
    r"|\A\W*(unchanged|no changes?|not? (applicable|possible|changed|edited|edits?|available|suitable)|same( as (before|above|the \w+))?"
    r"|n/?a|null|none|nil|nothing( to (change|edit))?|unknown|undefined|impossible|(edited|modified|new) caption|caption|edit)\W*\Z"
)
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
    "at twilight": "at sunset",
    "at nightfall": "at sunset",
    "in fall": "in autumn",
    "pencil drawing": "pencil sketch",
    "on top of": "on",
    "in back of": "behind",
    "close to": "near",
}
TURNS = frozenset("away backwards".split())  # words that turn round what is said when they are added
PHRASE = re.compile(rf"\b(?:{'|'.join(PHRASES)})\b")


@dataclass(frozen=True)
class Limits:
    """How far an edit may go from its caption.

    Args:
        length_ratio: longest edit as a multiple of the caption's words.
        places_per_edit: places where the words may differ, for each wanted edit, as [`count_edits`] counts them.
        changed_share: largest share of the caption's words that may change; it may always be 4 words, but all of them only
            if they are one or two, exchanged for as many.
    """

    length_ratio: float = 1.5
    places_per_edit: int = 1
    changed_share: float = 0.5


def count_edits(prompt: str, edited: str) -> int:
    """By how many edits a caption differs from another, what only agrees with them apart."""
    return count_places(folded(prompt), folded(edited))


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


def _changes_much(before: list[str], after: list[str], limits: Limits) -> bool:
    allowed = max(limits.changed_share * len(before), 4)
    kept = (Counter(before) & Counter(after)).total()
    if not kept and (len(before) > 2 or len(before) != len(after)):
        return True
    if len(after) - kept > allowed:  # spares `changes` the hopeless long texts
        return True
    return sum(max(c.before[1] - c.before[0], c.after[1] - c.after[0]) for c in changes(before, after)) > allowed


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
    old, new = before[slice(*change.before)], after[slice(*change.after)]
    if not NEGATIONS.isdisjoint(old):
        return True
    if not old:
        return any(word in TURNS or word in NUMBERS and word != "1" for word in new)
    articles = {"the"} if NUMBERS.keys() & set(old) else {"the", "1"}
    strange = [word for word in new if word not in articles and not any(is_same(word, there) for there in old)]
    return bool(strange) and not _is_kind(old, new)


def _is_kind(old: list[str], new: list[str]) -> bool:
    """True if one of two things is a kind of the other, such as "poodle" and "dog", in the same number."""
    (first, many), (second, more) = _thing(old), _thing(new)
    return many == more and (first in resolve(KINDS_OF.get(second, "")) or second in resolve(KINDS_OF.get(first, "")))


def _thing(text: list[str]) -> tuple[str, bool]:
    """The noun of some words without their article, in the singular, and whether it was a plural."""
    nouns = [word for word in text if word not in ("1", "the")]
    singular = singular_of(nouns[-1]) if nouns else None
    return " ".join(nouns if singular is None else [*nouns[:-1], singular]), singular is not None


def _contradict(before: list[str], after: list[str]) -> bool:
    before, after = _meaning(before), _meaning(after)
    return any(_contradicts(change, before, after) for change in changes(before, after))


def _is_ungrammatical(prompt: str, edited: str) -> bool:
    """True if words of an edit disagree that are not in its English caption."""
    before, after = words(prompt.casefold()), words(edited.casefold())
    return is_english_so_far(before) and not disagreements(after) <= disagreements(before)


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
    prompt: str,
    edited: str,
    num_edits: int = 1,
    others: tuple[str, ...] = (),
    limits: Limits | None = None,
    principle: str | None = None,
) -> str | None:
    """Checks one edited caption.

    Args:
        prompt: the caption that fits.
        edited: the candidate that should not.
        num_edits: how many edits were asked for.
        others: edits of the same caption that are already there.
        principle: the one that was asked for; an edit that surely follows another is refused.

    Returns:
        `None` if it can be used, else a key of [`REASONS`].
    """
    limits = limits or Limits()
    if (reason := _unreadable(prompt, edited)) is not None:
        return reason
    before, after = folded(prompt), folded(edited)
    if any(after == folded(other) for other in others):
        return "duplicate"
    if (reason := _too_far(prompt, edited, limits)) is not None:
        return reason
    if NEGATIONS.intersection(after) - NEGATIONS.intersection(before):
        return "negation"
    if _is_reordering(prompt, edited) or not _contradict(before, after):
        return "contradicts_nothing"
    if count_places(before, after) > limits.places_per_edit * num_edits:
        return "too_many_edits"
    if _is_ungrammatical(prompt, edited):
        return "ungrammatical"
    possible = possible_principles(prompt, edited) if principle is not None else None
    return "wrong_principle" if possible is not None and principle not in possible else None


def _unreadable(prompt: str, edited: str) -> str | None:
    """Why a text is no other caption at all."""
    if not edited.strip():
        return "empty"
    if is_strange(edited.strip(), prompt):
        return "malformed"
    before, after = folded(prompt), folded(edited)
    if before == after:
        return "unchanged"
    lowered = edited.casefold().replace("’", "'")
    if REFUSAL.search(lowered) and not REFUSAL.search(prompt.casefold().replace("’", "'")):
        return "refusal"
    return None if after else "language"


def _too_far(prompt: str, edited: str, limits: Limits) -> str | None:
    """Why a text is the caption of something else altogether."""
    before, after = folded(prompt), folded(edited)
    if len(after) > max(limits.length_ratio * len(before), len(before) + 4):
        return "too_long"
    if _other_language(before, after, prompt, edited):
        return "language"
    return "too_many_edits" if _changes_much(before, after, limits) else None
