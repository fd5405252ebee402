"""A caption taken apart: its words, what the lexicon knows of them, and its noun phrases."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from . import grammar
from .grammar import DETERMINERS, SEVERAL, SINGULAR
from .index import Entry, Phrase, phrases, word_set
from .lexicon import ADJECTIVES, NUMBERS, SHADES
from .words import TOKEN


NEUTRAL = word_set(ADJECTIVES) | SHADES.keys()
NEGATIONS = word_set("no not without neither nor never nothing nobody none don't isn't aren't")
GATHERED = word_set("group herd flock pair couple pack school bunch pile row crowd number family line dozen variety collection")
JOINERS = frozenset("-/_@#&'’")
SENTENCE_ENDS = frozenset(".!?:\"“”(;|")
QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|<[^<>]*>|(?<!\w)'[^']*'(?!\w)")


class Hit(NamedTuple):
    """Words of the lexicon at the tokens `[start, end)` of a caption."""

    start: int
    end: int
    phrase: Phrase


class Replacement(NamedTuple):
    """New words for the tokens `[start, end)`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class NounPhrase:
    """A noun with what stands before it.

    Args:
        start: token where it starts, with article, number and adjectives.
        noun: the entry of the lexicon.
        determiner: its first word if that is an article or the like, else `None`.
        number: index of the token that is a number, or `None`.
        adjectives: hits of the adjectives between.
        neutral: words between that suit any noun.
        compound: whether the noun is the last word of a compound, such as "cap" in "a red baseball cap".
    """

    start: int
    end: int
    head: Hit
    noun: Entry
    determiner: str | None
    number: int | None
    adjectives: tuple[Hit, ...]
    neutral: tuple[str, ...]
    compound: bool


@lru_cache(maxsize=20_000)
def is_part_of_compound(word: str) -> bool:
    """True for words that may be the first part of a compound: nouns in the singular that nothing else is known of."""
    return (
        word.isalpha()
        and len(word) > 2
        and not grammar.ends_noun(word)
        and not grammar.ends_noun(word, determiner="a")
        and word not in DETERMINERS
        and word not in grammar.PRONOUNS
        and word not in NEGATIONS
        and word not in NUMBERS
        and grammar.is_noun(word)
    )


class Caption:
    """A caption's tokens and the hits of the lexicon among them."""

    def __init__(self, text: str):
        self.text = text
        matches = list(TOKEN.finditer(text))
        self.spans = [match.span() for match in matches]
        self.words = [match.group().casefold() for match in matches]
        if " - " in text:
            self.words = [
                ";" if word == "-" and text[start - 1 : start + 2] == " - " else word
                for word, (start, _) in zip(self.words, self.spans, strict=True)
            ]
        self.known = frozenset(self.words)
        self.title = False
        self.headline = self.known.isdisjoint(("a", "an"))
        self._hyphens: set[int] = set()
        blocked = self._blocked()
        self.hits = [
            hit for hit in find_hits(self.words)
            if not blocked.intersection(range(hit.start, hit.end))
            and not self._hyphens.intersection((hit.start - 1, hit.end))
        ]  # fmt: skip
        self.starting = {hit.start: hit for hit in self.hits if not hit.phrase.open}
        self.ending = {hit.end: hit for hit in self.hits if not hit.phrase.open}
        self.nouns = frozenset(hit.phrase.noun.lemma for hit in self.hits if hit.phrase.noun)
        self._phrases: dict[int, NounPhrase | None] = {}

    def word(self, index: int) -> str | None:
        """The word at an index; `None` before the start and after the end."""
        return self.words[index] if 0 <= index < len(self.words) else None

    def _blocked(self) -> set[int]:
        """Tokens that are left alone: names, quotations, markup, and what is said not to be there."""
        blocked = set()
        if not self.text.islower():
            capitals = [i for i, (start, _) in enumerate(self.spans) if self.text[start].isupper()]
            letters = sum(word[0].isalpha() for word in self.words)
            self.title = len(capitals) > max(2, 0.6 * letters)
            if not self.title:
                blocked.update(i for i in capitals if i and self.words[i - 1] not in SENTENCE_ENDS)
        if not self.known.isdisjoint(JOINERS):
            for i, word in enumerate(self.words):
                if word in JOINERS and self._joins(i):
                    self._hyphens.add(i)
        if not NEGATIONS.isdisjoint(self.known):
            for i, word in enumerate(self.words):
                if word in NEGATIONS:
                    clause = self.words[i:]
                    blocked.update(range(i, i + next((n for n, w in enumerate(clause) if w in ".,;!?"), len(clause))))
        if not self.known.isdisjoint('"“<\''):
            for match in QUOTED.finditer(self.text):
                blocked.update(i for i, (start, _) in enumerate(self.spans) if match.start() <= start < match.end())
        return blocked

    def _joins(self, index: int) -> bool:
        """True if a hyphen or the like stands at a word without a space."""
        start, end = self.spans[index]
        before = index and self.spans[index - 1][1] == start
        return before or index + 1 < len(self.spans) and self.spans[index + 1][0] == end

    def noun_phrase(self, hit: Hit) -> NounPhrase | None:
        """The noun phrase whose last word a hit is; `None` if it is part of a compound, or its number does not fit."""
        if hit.start not in self._phrases:
            self._phrases[hit.start] = self._find_noun_phrase(hit)
        return self._phrases[hit.start]

    def _find_noun_phrase(self, hit: Hit) -> NounPhrase | None:
        if not hit.phrase.nouns:
            return None
        inner = hit.start
        start, adjectives, neutral = self._adjectives(inner)
        if (compound := self._compound(start)) is not None:
            inner = compound
            start, adjectives, neutral = self._adjectives(inner)
        number = start - 1 if self.word(start - 1) in NUMBERS else None
        first = start if number is None else number
        determiner = self.word(first - 1)
        if determiner in DETERMINERS and determiner != "no":
            first -= 1
        else:
            determiner = None
        number_word = None if number is None else self.words[number]
        fitting = [noun for noun in hit.phrase.nouns.values() if self._agrees(noun, determiner, number_word, first)]
        if len(fitting) != 1:
            return None
        noun = fitting[0]
        if hit.phrase.adjective and noun.tag == "NN" and determiner is None:  # "one orange" may be a colour
            return None
        singular = determiner in SINGULAR or number_word == "one"
        if not grammar.ends_noun(self.word(hit.end), noun.tag == "NNS", "a" if singular else determiner):
            return None
        return NounPhrase(first, hit.end, hit, noun, determiner, number, tuple(adjectives), tuple(neutral), inner != hit.start)

    def _compound(self, index: int) -> int | None:
        """Index of the first of at most two words that make a compound with the noun after them, if it is clear."""
        inner = index
        for _ in range(2):
            inner -= 1
            word = self.word(inner)
            if self.word(inner - 1) == "-" and inner - 1 in self._hyphens:
                inner -= 2
            elif word is None or not is_part_of_compound(word):
                return None
            first = self._adjectives(inner)[0]
            before = self.word(first - 1)
            if before is None or before in ".,;(" or before in DETERMINERS or before in NUMBERS:
                return inner
            if self.headline and before in grammar.PREPOSITIONS:
                return inner
        return None

    def _adjectives(self, index: int) -> tuple[int, list[Hit], list[str]]:
        """Index of the first adjective before a noun, the hits of adjectives, and the neutral ones."""
        hits, neutral = [], []
        for _ in range(5):
            hit = self.ending.get(index)
            word = self.word(index - 1)
            if hit is not None and hit.phrase.adjective is not None:
                hits.append(hit)
                index = hit.start
            elif word in NEUTRAL:
                neutral.append(word)
                index -= 1
            elif word == "and" and hits and (joined := self.ending.get(index - 1)) and joined.phrase.adjective:
                index -= 1
            else:
                break
        return index, hits, neutral

    def _agrees(self, noun: Entry, determiner: str | None, number: str | None, start: int) -> bool:
        mass, before = noun.group.grammar == "mass", self.word(start - 1)
        if number is not None and NUMBERS[number] != 1:
            return noun.tag == "NNS"
        if noun.tag == "NNS":
            return determiner not in SINGULAR
        if before == "of" and determiner is None and not mass and self.word(start - 2) in GATHERED:
            return False
        if determiner is not None:
            return determiner not in SEVERAL and not (mass and determiner in ("a", "an"))
        return mass or number is not None or self.headline and before not in grammar.AUXILIARIES or before in (None, "of") or not (before[0].isalnum() or before in "-/'’")

    def noun_phrase_at(self, index: int) -> NounPhrase | None:
        """The noun phrase that starts at an index."""
        start = index
        if self.word(index) in DETERMINERS:
            index += 1
        if self.word(index) in NUMBERS:
            index += 1
        for _ in range(6):
            hit = self.starting.get(index)
            if hit is not None:
                if hit.phrase.noun and (phrase := self.noun_phrase(hit)):
                    return phrase if phrase.start == start else None
                index = hit.end
            elif (word := self.word(index)) is not None and (word in NEUTRAL or is_part_of_compound(word)):
                index += 1
            elif index + 1 in self._hyphens:
                index += 3
            else:
                return None
        return None

    def has_outside(self, words: frozenset[str], start: int, end: int) -> bool:
        """True if one of the words stands outside the tokens `[start, end)`."""
        return not words.isdisjoint(self.known) and any(
            word in words for i, word in enumerate(self.words) if not start <= i < end
        )

    def replaced(self, replacements: Iterable[Replacement]) -> str:
        """The caption with new words, their capitals and articles adapted."""
        pieces, position = [], 0
        for start, end, new in sorted(replacements):
            first, last = self.spans[start][0], self.spans[end - 1][1]
            before = self.spans[start - 1]
            if start and self.words[start - 1] in ("a", "an") and before[0] >= position:
                article = grammar.article(new.split()[0])
                article = article.upper() if self.text.isupper() else article
                pieces += [self.text[position : before[0]], grammar.match_case(article, self.text[slice(*before)])]
                position = before[1]
            pieces += [self.text[position:first], grammar.match_case(new, self.text[first:last], self.title)]
            position = last
        return "".join(pieces) + self.text[position:]


def find_hits(words: list[str]) -> list[Hit]:
    """What the lexicon knows in a caption; inside a longer phrase, verbs apart, nothing else is found."""
    hits, position, known = [], 0, phrases()
    for start, word in enumerate(words):
        if start < position or word not in known:
            continue
        for phrase in known[word]:
            end = start + len(phrase.words)
            if len(phrase.words) == 1 or tuple(words[start:end]) == phrase.words:
                hits.append(Hit(start, end, phrase))
                if not phrase.open:
                    position = end
                    break
    return hits
