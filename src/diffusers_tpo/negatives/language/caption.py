"""A caption taken apart: its words, what the lexicon knows of them, and its noun phrases."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from . import grammar, lexicon
from .grammar import DETERMINERS, PREPOSITIONS, SEVERAL, SINGULAR
from .index import Entry, Phrase, phrases, word_set
from .lexicon import NUMBERS, SHADES, Group
from .words import TOKEN


NEUTRAL = word_set(lexicon.ADJECTIVES) | SHADES.keys()
GATHERED = word_set(lexicon.GATHERED)
JOINERS = frozenset("-/_@#&'’")
YEARS = frozenset("year years yo".split())
SENTENCE_ENDS = frozenset('.!?:"“”(;|')
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
    """A noun with what stands before it, at the tokens `[start, end)`.

    Args:
        head: the hit of the noun.
        noun: its entry of the lexicon, which says whether it is singular.
        determiner: the first word if that is an article or the like, else `None`.
        number: index of the token that is a number, or `None`.
        adjectives: hits of the adjectives between.
        neutral: words between that suit any noun.
        is_compound: whether the noun is the last part of a compound, such as "cap" in "a red baseball cap".
    """

    start: int
    end: int
    head: Hit
    noun: Entry
    determiner: str | None
    number: int | None
    adjectives: tuple[Hit, ...]
    neutral: tuple[str, ...]
    is_compound: bool


class Caption:
    """A caption's tokens and the hits of the lexicon among them."""

    def __init__(self, text: str):
        self.text = text
        matches = list(TOKEN.finditer(text))
        self.spans = [match.span() for match in matches]
        self.words = [match.group().casefold() for match in matches]
        if " - " in text:
            for index, (start, _) in enumerate(self.spans):
                if text[start - 1 : start + 2] == " - ":
                    self.words[index] = ";"
        self.known = frozenset(self.words)
        self.is_title = False
        self.is_headline = self.known.isdisjoint(("a", "an"))
        self.hyphens = self._find_hyphens()
        self.blocked = self._find_blocked()
        self.hits = [
            hit for hit in find_hits(self.words)
            if self.blocked.isdisjoint(range(hit.start, hit.end))
            and hit.start - 1 not in self.hyphens and hit.end not in self.hyphens
        ]  # fmt: skip
        closed = [hit for hit in self.hits if not hit.phrase.is_open]
        self.starting = {hit.start: hit for hit in closed}
        self.ending = {hit.end: hit for hit in closed}
        self.nouns = frozenset(hit.phrase.noun for hit in self.hits if hit.phrase.noun)
        self._noun_phrases: dict[int, NounPhrase | None] = {}
        self._meanings: dict[Group, dict[int, list[Hit]]] = {}

    def word(self, index: int) -> str | None:
        """The word at an index; `None` before the start and after the end."""
        return self.words[index] if 0 <= index < len(self.words) else None

    def meanings(self, group: Group) -> dict[int, list[Hit]]:
        """The hits of every meaning of a group that occurs."""
        if group not in self._meanings:
            found: dict[int, list[Hit]] = {}
            for hit in self.hits:
                entry = next((entry for entry in hit.phrase.entries if entry.group is group), None)
                if entry is not None:
                    found.setdefault(entry.meaning, []).append(hit)
            self._meanings[group] = found
        return self._meanings[group]

    def has_outside(self, words: frozenset[str], start: int, end: int) -> bool:
        """True if one of the words stands outside the tokens `[start, end)`."""
        return not words.isdisjoint(self.known) and any(
            word in words for index, word in enumerate(self.words) if not start <= index < end
        )

    def _find_hyphens(self) -> set[int]:
        """Hyphens and the like that stand at a word without a space."""
        if self.known.isdisjoint(JOINERS):
            return set()
        spans = [(-1, -1), *self.spans, (-1, -1)]
        return {
            index for index, word in enumerate(self.words)
            if word in JOINERS and (spans[index][1] == spans[index + 1][0] or spans[index + 1][1] == spans[index + 2][0])
        }  # fmt: skip

    def _find_blocked(self) -> set[int]:
        """Tokens that are left alone: names, quotations, markup, what is said not to be there, and what an emoji shows as well."""
        blocked: set[int] = set()
        if not self.text.islower():
            capitals = [index for index, (start, _) in enumerate(self.spans) if self.text[start].isupper()]
            self.is_title = len(capitals) > max(2, 0.6 * sum(word[0].isalpha() for word in self.words))
            if not self.is_title:
                names = lexicon.NAMES
                blocked.update(
                    i for i in capitals if i and self.words[i - 1] not in SENTENCE_ENDS and self.words[i] not in names
                )
        if not grammar.NEGATIONS.isdisjoint(self.known):
            is_negated = False
            for index, word in enumerate(self.words):
                is_negated = word in grammar.NEGATIONS or is_negated and word not in ".,;!?"
                if is_negated:
                    blocked.add(index)
        if not self.known.isdisjoint("\"“<'"):
            for match in QUOTED.finditer(self.text):
                blocked.update(i for i, (start, _) in enumerate(self.spans) if match.start() <= start < match.end())
        blocked.update(
            i for i, word in enumerate(self.words) if word == "old" and YEARS & set(self.words[max(0, i - 2) : i])
        )
        shown = emoji_words(self.text)
        blocked.update(i for i, word in enumerate(self.words) if word in shown or grammar.singular_of(word) in shown)
        return blocked

    def noun_phrase(self, hit: Hit) -> NounPhrase | None:
        """The noun phrase whose noun a hit is; `None` if it is only part of a compound, or its number does not fit."""
        if hit.start not in self._noun_phrases:
            self._noun_phrases[hit.start] = self._find_noun_phrase(hit)
        return self._noun_phrases[hit.start]

    def noun_phrase_before(self, index: int) -> NounPhrase | None:
        """The noun phrase that ends before an index."""
        hit = self.ending.get(index)
        return self.noun_phrase(hit) if hit is not None else None

    def noun_phrase_at(self, index: int) -> NounPhrase | None:
        """The noun phrase that starts at an index."""
        place = index + (self.word(index) in DETERMINERS)
        place += self.word(place) in NUMBERS
        for _ in range(6):
            hit, word = self.starting.get(place), self.word(place)
            if hit is not None:
                phrase = self.noun_phrase(hit)
                if phrase is not None:
                    return phrase if phrase.start == index else None
                place = hit.end
            elif word is not None and (word in NEUTRAL or grammar.is_part_of_compound(word)):
                place += 1
            elif place + 1 in self.hyphens:
                place += 3
            else:
                return None
        return None

    def _find_noun_phrase(self, hit: Hit) -> NounPhrase | None:
        if not hit.phrase.nouns:
            return None
        inner = hit.start
        start, adjectives, neutral = self._adjectives(inner)
        if (compound := self._compound(start)) is not None:
            inner = compound
            start, adjectives, neutral = self._adjectives(inner)
        number = start - 1 if self.word(start - 1) in NUMBERS else None
        start = start if number is None else number
        determiner = self.word(start - 1) if self.word(start - 1) in DETERMINERS else None
        start -= determiner is not None
        count = None if number is None else self.words[number]
        nouns = [noun for noun in hit.phrase.nouns.values() if self._agrees(noun, determiner, count, start)]
        if len(nouns) != 1:
            return None
        if (
            hit.phrase.is_attribute
            and nouns[0].tag == "NN"
            and nouns[0].group.grammar == "noun"
            and determiner is None
        ):
            return None
        singular = determiner in SINGULAR or count == "one"
        if not grammar.ends_noun(self.word(hit.end), nouns[0].tag == "NNS", singular):
            return None
        about = determiner, number, tuple(adjectives), tuple(neutral), inner != hit.start
        return NounPhrase(start, hit.end, hit, nouns[0], *about)

    def _adjectives(self, index: int) -> tuple[int, list[Hit], list[str]]:
        """Index of the first adjective before a noun, the hits of adjectives, and the neutral ones."""
        hits, neutral = [], []
        for _ in range(5):
            hit, word = self.ending.get(index), self.word(index - 1)
            if hit is not None and hit.phrase.adjective is not None:
                hits.append(hit)
                index = hit.start
            elif word in NEUTRAL:
                neutral.append(word)
                index -= 1
            elif word == "and" and hits and is_of_one_kind(self.ending.get(index - 1), hits[-1]):
                index -= 1
            else:
                break
        return index, hits, neutral

    def _compound(self, index: int) -> int | None:
        """Index of the first of at most two words that make a compound with the noun after them, if it is clear."""
        for _ in range(2):
            index -= 1
            word = self.word(index)
            if index - 1 in self.hyphens:
                index -= 2
            elif word is None or not grammar.is_part_of_compound(word):
                return None
            before = self.word(self._adjectives(index)[0] - 1)
            if before is None or before in ".,;(" or before in DETERMINERS or before in NUMBERS:
                return index
            if self.is_headline and before in PREPOSITIONS:
                return index
        return None

    def _agrees(self, noun: Entry, determiner: str | None, number: str | None, start: int) -> bool:
        """True if what stands before a noun fits its number; "a" does not stand before a mass."""
        before, is_mass = self.word(start - 1), noun.group.grammar == "mass"
        if number is not None and NUMBERS[number] != 1:
            return noun.tag == "NNS"
        if noun.tag == "NNS":
            return determiner not in SINGULAR
        if determiner is not None:
            return determiner not in SEVERAL and not (is_mass and determiner in ("a", "an"))
        if is_mass or number is not None or before is None:
            return True
        if before == "of":
            return self.word(start - 2) not in GATHERED
        if self.is_headline:
            return before not in grammar.AUXILIARIES
        return not before[0].isalnum() and before not in JOINERS

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
            pieces += [self.text[position:first], grammar.match_case(new, self.text[first:last], self.is_title)]
            position = last
        return "".join(pieces) + self.text[position:]


def emoji_words(text: str) -> frozenset[str]:
    """What the emoji of a text show, by their names: "cat" and "face" for one."""
    if text.isascii():
        return frozenset()
    names = (unicodedata.name(character, "") for character in set(text) if unicodedata.category(character) == "So")
    return frozenset(word for name in names for word in name.casefold().split())


def is_of_one_kind(first: Hit | None, second: Hit) -> bool:
    """True for two adjectives such as "red" and "white"."""
    if first is None or first.phrase.adjective is None:
        return False
    groups = {entry.group for entry in second.phrase.entries if entry.group.grammar == "adjective"}
    return any(entry.group in groups for entry in first.phrase.entries)


def find_hits(words: list[str]) -> list[Hit]:
    """What the lexicon knows in a caption; inside a longer phrase, verbs apart, nothing else is found."""
    hits, position = [], 0
    lengths, table = phrases().lengths, phrases().table
    for start, word in enumerate(words):
        if start < position or word not in lengths:
            continue
        for length in lengths[word]:
            end = start + length
            phrase = table.get(tuple(words[start:end])) if end <= len(words) else None
            if phrase is not None:
                hits.append(Hit(start, end, phrase))
                if not phrase.is_open:
                    position = end
                    break
    return hits
