"""Edits of what surrounds the things. Adjectives, nouns and phrases of surroundings follow the rules of all others."""

from collections.abc import Iterator

from ..language import grammar, lexicon
from ..language.caption import Caption, Hit, Replacement
from ..language.index import Entry, word_set
from .sites import Option, is_guarded, is_single, others


SCENES = {noun: scene for scene, nouns in lexicon.SCENES.items() for noun in nouns.split()}
TELLS = {scene: word_set(words) for scene, words in lexicon.TELLS.items()}
OUTDOORS = frozenset("forest field mountain".split())


def place_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """ "In a dense forest" becomes "on the beach"."""
    phrase = caption.noun_phrase(hit)
    if phrase is None or phrase.number is not None or caption.word(hit.end) == "of":
        return
    if phrase.determiner not in ("a", "an", "the") and not (phrase.determiner is None and caption.is_headline):
        return
    before = "in" if caption.word(phrase.start - 1) == "inside" else caption.word(phrase.start - 1)
    for entry in entries:
        if entry.lemma.split()[0] != before or not is_single(caption, entry):
            continue
        if not is_guarded(caption, entry.group, phrase.start - 1, hit.end):
            for other in others(caption, entry):
                yield (Replacement(phrase.start - 1, hit.end, with_article(other.lemma, phrase.determiner)),)


def scene_options(caption: Caption, index: int) -> Iterator[Option]:
    """ "In a dark enchanted forest" becomes "on a beach", if nothing else tells of the forest."""
    end = scene_end(caption, index)
    if end is None:
        return
    scene = SCENES[caption.words[end - 1]]
    tells = TELLS[scene] | {
        noun for noun, other in SCENES.items() if other == scene or scene in OUTDOORS and other in OUTDOORS
    }
    if caption.has_outside(tells, index, end) or caption.word(index - 1) in ("up", "down", "out", "back"):
        return
    for other, place in lexicon.PLACES_INSTEAD.items():
        if other != scene and not caption.has_outside(TELLS[other], index, end):
            yield (Replacement(index, end, place),)


def scene_end(caption: Caption, index: int) -> int | None:
    """Where a place ends that begins with a preposition at an index; `None` if none does."""
    if caption.word(index + 1) not in ("a", "an", "the"):
        return None
    for end in range(index + 3, min(index + 6, len(caption.words) + 1)):
        word = caption.words[end - 1]
        if end - 1 in caption.blocked or {end - 1, end} & caption.hyphens or not word.isalpha():
            return None
        if word in SCENES and grammar.ends_noun(caption.word(end)) and caption.word(end) != "of":
            return end
        if word in grammar.PREPOSITIONS | grammar.CONJUNCTIONS | grammar.AUXILIARIES:
            return None
    return None


def with_article(place: str, article: str | None) -> str:
    """ "in a park" with the article of another place, or with none in a headline."""
    preposition, own, noun = place.split(" ", 2)
    if article is None:
        return f"{preposition} {noun}"
    if article == "the" or own == "the":
        return f"{preposition} the {noun}"
    return f"{preposition} {grammar.article(noun)} {noun}"
