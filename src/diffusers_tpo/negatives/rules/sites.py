"""What the four kinds of edits share: what an edit is, and when a group of the lexicon is left alone."""

from collections.abc import Iterator

from ..language import grammar
from ..language.caption import Caption, Hit, NounPhrase, Replacement
from ..language.grammar import AUXILIARIES, PREPOSITIONS
from ..language.index import Entry, Other, guard, resolve, suits, word_set
from ..language.lexicon import FIGURES, HOLDERS, SHADES, Group


Option = tuple[Replacement, ...]  # one edit, which may touch several places

HELD_BY, SHAPED_LIKE = word_set(HOLDERS), word_set(FIGURES)
SHADE_COLOURS = {shade: word_set(colours) for shade, colours in SHADES.items()}
PERSONAL = frozenset("he she i we they".split())
LINKS = frozenset("who that which to".split())
ENDS_ITEM = frozenset(",;.|()[]")
WORN_OR_HELD = frozenset("in with".split())


def is_guarded(caption: Caption, group: Group, start: int, end: int) -> bool:
    """True if words elsewhere in the caption forbid to touch the group at the tokens `[start, end)`."""
    words, nouns = guard(group)
    if caption.has_outside(words, start, end):
        return True
    return not nouns.isdisjoint(caption.nouns) and any(
        hit.phrase.noun in nouns and not start <= hit.start < end for hit in caption.hits
    )


def is_single(caption: Caption, entry: Entry) -> bool:
    """True if the caption speaks of this meaning once: an exchange in one of two places would contradict itself."""
    return len(caption.meanings(entry.group)[entry.meaning]) == 1


def others(caption: Caption, entry: Entry) -> list[Other]:
    """The words of the group with another meaning that the caption does not use already."""
    used = caption.meanings(entry.group)
    return [other for other in entry.others if other.meaning not in used and other.text not in caption.known]


def is_suited(phrase: NounPhrase, lemma: str) -> bool:
    """True if the adjectives of a noun phrase suit another noun; what is strange for the old one may be so for the new."""
    for hit in phrase.adjectives:
        adjective = hit.phrase.adjective
        if adjective is None:  # of the hits of adjectives none is
            continue
        natural, possible = suits()[adjective]
        if lemma not in (natural if phrase.noun.lemma in natural else possible):
            return False
    return True


def has_possessive(caption: Caption, hits: list[Hit]) -> bool:
    """True if the caption has "cat's" beside "cat"."""
    return any(f"{caption.words[hit.end - 1]}{sign}" in caption.known for hit in hits for sign in ("'s", "’s"))


def start_of_verb(caption: Caption, index: int, verbs: frozenset[str]) -> int:
    """Where a verb phrase starts that ends before an index: after its subject."""
    for _ in range(4):
        word = caption.word(index - 1)
        is_adverb = word is not None and grammar.is_adverb(word) and word not in ("left", "right", "not")
        if not (is_adverb or word in verbs or word in AUXILIARIES or word == "open"):
            break
        index -= 1
    return index


def subjects(caption: Caption, index: int) -> Iterator[str]:
    """Who or what may be what a word at an index speaks of, nearest first: "boy" and "cap" before "in" in "a boy wearing a
    red cap in"."""
    if caption.word(index - 1) == "while":
        human = caption.nouns & resolve("@human")
        yield from human if len(human) == 1 else ()
        return
    for _ in range(4):
        if caption.word(index - 1) in PERSONAL:
            yield caption.words[index - 1]
            return
        phrase = caption.noun_phrase_before(index - (caption.word(index - 1) in LINKS))
        if phrase is None:
            return
        before, whole = caption.word(phrase.start - 1), caption.word(phrase.start - 2)
        index = phrase.start - 1
        if before == "of" and whole in HELD_BY | SHAPED_LIKE:
            continue
        yield phrase.noun.lemma
        if phrase.noun.lemma in resolve("@human @animal"):
            return
        if before is not None and (grammar.is_participle(before) or grammar.is_third_person(before)):
            index = start_of_verb(caption, index, frozenset())
        elif before not in WORN_OR_HELD:
            return


def is_after_preposition(caption: Caption, index: int, allowed: frozenset[str]) -> bool:
    """True if the noun phrase before an index stands after a preposition, as "a horse" in "a man on a horse"."""
    phrase = caption.noun_phrase_before(index)
    return phrase is not None and caption.word(phrase.start - 1) in PREPOSITIONS - allowed


def phrase_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """A phrase that is exchanged word for word."""
    if caption.word(hit.end) == "of" and caption.words[hit.start] in PREPOSITIONS:  # "in the city of Rome"
        return
    for entry in entries:
        if len(caption.meanings(entry.group)) > 1 or not is_single(caption, entry):
            continue
        if not is_guarded(caption, entry.group, hit.start, hit.end):
            for other in others(caption, entry):
                yield (Replacement(hit.start, hit.end, other.text),)


def tail_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """A phrase that ends a noun phrase, perhaps after adjectives."""
    if grammar.ends_noun(caption.word(hit.end)):
        yield from phrase_options(caption, hit, entries)


def item_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """A phrase that stands alone between commas or brackets, perhaps with a weight: "(night:1.2)"."""
    before, after = caption.word(hit.start - 1), caption.word(hit.end)
    is_weighted = after == ":" and (caption.word(hit.end + 1) or "").isdigit()
    if (before is None or before in ENDS_ITEM) and (after is None or after in ENDS_ITEM or is_weighted):
        yield from phrase_options(caption, hit, entries)
