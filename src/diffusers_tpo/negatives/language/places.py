"""In how many places an edited caption differs from its caption. Knows nothing of what may differ."""

from . import grammar
from .words import Change, changes


FUNCTION_WORDS = frozenset(
    "a an the of in on at with and or is are was were to from by for near under over behind into onto its his her their".split()
)
ARTICLES = frozenset("a an the".split())
DIRECTIONS = grammar.PREPOSITIONS | frozenset("out away left right top bottom front back".split())


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


def count_places(before: list[str], after: list[str]) -> int:
    """How many edits two captions differ by.

    One word that is left out beside other changes is no edit. What only agrees with another change is none of its own: articles, pronouns, the number of nouns and
    verbs. The same exchange in two places is one edit, and so are two words that change places, and a verb with its
    direction, "puts into" and "takes out of".
    """
    found = [
        (tuple(before[slice(*place.before)]), tuple(after[slice(*place.after)])) for place in places(before, after)
    ]
    edits = {texts for texts in found if not _agrees(*texts)}
    if any(new for _, new in edits):
        edits -= {(old, new) for old, new in edits if len(old) == 1 and not new}
    for texts in sorted(edits):
        if (texts[1], texts[0]) in edits and texts in edits:
            edits.discard((texts[1], texts[0]))
    has_verb = any(grammar.is_any_verb(word) for old, _ in edits for word in old)
    directions = {texts for texts in edits if DIRECTIONS.issuperset(texts[0] + texts[1])}
    if has_verb and len(directions) == 1:
        edits -= directions
    return max(len(edits), 1) if found else 0


def _agrees(old: tuple[str, ...], new: tuple[str, ...]) -> bool:
    """True if a place differs by articles, pronouns or the number of a word alone."""
    if ARTICLES.issuperset(old + new):
        return True
    if len(old) != len(new):
        return False
    return all(_agree(word, other) for word, other in zip(old, new, strict=True))


def _agree(word: str, other: str) -> bool:
    for kind in (grammar.PRONOUNS | {"our", "my", "your"}, grammar.AUXILIARIES, ARTICLES):
        if word in kind and other in kind:
            return True
    return word == other or _is_form(word, other) or _is_form(other, word)


def _is_form(word: str, other: str) -> bool:
    """True if a word is the plural of a noun or the third person of a verb."""
    return other == grammar.base_form(word) or other.isalpha() and grammar.plural(other) == word
