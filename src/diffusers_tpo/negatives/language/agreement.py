"""Finds where articles, numbers and verbs of an English text do not agree. Knows nothing of what an edit is."""

from collections.abc import Iterator

from . import grammar
from .lexicon import NUMBERS


ARTICLES = frozenset(("a", "an"))
SINGULAR_VERBS = frozenset("is was has".split())
PLURAL_VERBS = frozenset("are were have".split())
ONE = frozenset("a an another each every".split())
BOTH_NUMBERS = frozenset("people police cattle folk clergy poultry aircraft spacecraft offspring".split())
WORDS_BETWEEN = 3  # adjectives between a number and its noun that are looked past


def disagreements(words: list[str]) -> set[tuple[str, ...]]:
    """The places where an English text is not grammatical, as the words that do not go together.

    Args:
        words: in lower case, with punctuation marks.
    """
    return {*_articles(words), *_numbers(words)}


def is_english_so_far(words: list[str]) -> bool:
    """False if an article of a text is none of English, as "an" in "an der Wand"."""
    return not set(_articles(words, known_only=False))


def _articles(words: list[str], known_only: bool = True) -> Iterator[tuple[str, ...]]:
    for article, word in zip(words, words[1:], strict=False):
        if article in ARTICLES and word.isalpha() and len(word) > 1 and grammar.article(word) != article:
            if not known_only or grammar.is_known(word):
                yield article, word


def _numbers(words: list[str]) -> Iterator[tuple[str, ...]]:
    for index, word in enumerate(words):
        value = NUMBERS.get(word, 0)
        if not (value > 1 or word in ONE):
            continue
        end = _noun_end(words, index + 1)
        if end is None:
            continue
        if words[end] in BOTH_NUMBERS:
            continue
        noun, verb = words[end], words[end + 1] if end + 1 < len(words) else ""
        is_plural = grammar.singular_of(noun) is not None
        is_singular = not is_plural and grammar.plural(noun) != noun
        if value > 1 and is_singular or word in ONE and is_plural and not grammar.may_be_singular(noun):
            yield word, noun
        if index and words[index - 1].isalpha():  # not the subject of a sentence
            continue
        if value > 1 and is_plural and verb in SINGULAR_VERBS or word in ONE and is_singular and verb in PLURAL_VERBS:
            yield word, noun, verb


def _noun_end(words: list[str], start: int) -> int | None:
    """The last word of the noun phrase that begins at an index, if it is clear: a noun that nothing but adjectives precede."""
    for index in range(start, min(start + WORDS_BETWEEN + 1, len(words))):
        word = words[index]
        if word in grammar.SEVERAL or not word.isalpha() or not grammar.is_known(word):
            return None
        after = words[index + 1] if index + 1 < len(words) else None
        if grammar.is_plain_noun(word) and (after is None or grammar.ends_any_noun(after)):
            return index
        if not grammar.is_plain_adjective(word):
            return None
    return None
