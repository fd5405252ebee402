"""Edits of what surrounds the things. Adjectives, nouns and phrases of surroundings follow the rules of all others."""

from collections.abc import Iterator

from ..language import grammar
from ..language.caption import Caption, Hit, Replacement
from ..language.index import Entry
from .sites import Option, is_guarded, is_single, others


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


def with_article(place: str, article: str | None) -> str:
    """ "in a park" with the article of another place, or with none in a headline."""
    preposition, own, noun = place.split(" ", 2)
    if article is None:
        return f"{preposition} {noun}"
    if article == "the" or own == "the":
        return f"{preposition} the {noun}"
    return f"{preposition} {grammar.article(noun)} {noun}"
