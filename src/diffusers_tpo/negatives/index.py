"""The lexicon made ready for look-ups: every form of every word, with what may replace it."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from . import grammar, lexicon
from .lexicon import Group
from .words import TOKEN


@dataclass(frozen=True)
class Other:
    """A word with another meaning, in the same form.

    Args:
        lemma: the word as the lexicon has it.
    """

    meaning: int
    text: str
    lemma: str


@dataclass(frozen=True, eq=False)
class Entry:
    """One form of one word of a group.

    Args:
        tag: NN, NNS, VB, VBZ or VBG; `None` for what has one form.
    """

    group: Group
    meaning: int
    lemma: str
    tag: str | None
    others: tuple[Other, ...]


@dataclass(frozen=True, eq=False)
class Phrase:
    """Words of the lexicon as they stand in captions, and all that they can be."""

    words: tuple[str, ...]
    entries: tuple[Entry, ...]

    @cached_property
    def nouns(self) -> dict[str, Entry]:
        """An entry that says which noun it is, for the singular and the plural; "sheep" is both."""
        nouns = [entry for entry in self.entries if entry.group.grammar in ("noun", "plural", "mass")]
        return {entry.tag: entry for entry in reversed(nouns)}

    @cached_property
    def noun(self) -> Entry | None:
        return next(iter(self.nouns.values()), None)

    @cached_property
    def open(self) -> bool:
        """True for a verb of several words, such as "sit on", whose words are found by themselves as well."""
        return len(self.words) > 1 and all(entry.group.grammar == "verb" for entry in self.entries) and bool(self.entries)

    @cached_property
    def adjective(self) -> str | None:
        return next((entry.lemma for entry in self.entries if entry.group.grammar == "adjective"), None)

    @cached_property
    def by_principle(self) -> dict[str, dict[str, tuple[Entry, ...]]]:
        """Principle and grammar to entries."""
        found = defaultdict(lambda: defaultdict(tuple))
        for entry in self.entries:
            found[entry.group.principle][entry.group.grammar] += (entry,)
        return {principle: dict(grammars) for principle, grammars in found.items()}


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def phrase_list(text: str) -> list[str]:
    return [phrase.strip() for phrase in text.replace("\n", " ").split(",") if phrase.strip()]


def meanings(group: Group) -> list[list[tuple[str, str]]]:
    """The words of every meaning, each with its mark."""
    parts = ([word.strip() for word in part.split(",")] for part in group.marked.split("|"))
    return [[(word.lstrip("~=+"), word[0] if word[0] in "~=+" else "") for word in words] for words in parts]


def split(words: str) -> list[str]:
    """The words of a group without marks."""
    return [word.strip(" ~=+") for word in words.replace("|", ",").split(",")]


def place_noun(place: str) -> str:
    """ "forest" for "in a forest"."""
    words = place.split()
    return " ".join(words[2:] if words[1] in ("a", "an", "the") else words[1:])


@lru_cache(maxsize=1)
def all_groups() -> tuple[Group, ...]:
    """The groups of the lexicon, and one without a principle for every kind of things."""
    places = {place_noun(word) for group in lexicon.GROUPS if group.grammar == "place" for word in split(group.marked)}
    things = [Group("", kind, "noun", words) for kind, words in lexicon.THINGS.items()]
    things.append(Group("", "places", "noun", " | ".join(place for place in sorted(places) if not place.endswith("s"))))
    masses = [Group("", kind, "mass", words) for kind, words in lexicon.MASSES.items()]
    return (*lexicon.GROUPS, *things, *masses)


@lru_cache(maxsize=1)
def kinds() -> dict[str, frozenset[str]]:
    """The nouns of every kind."""
    found = defaultdict(set)
    for group in all_groups():
        if group.grammar in ("noun", "plural", "mass"):
            found[group.kind.replace(" ", "_")].update(word for words in meanings(group) for word, _ in words)
    return {kind: frozenset(nouns) for kind, nouns in found.items()}


@lru_cache(maxsize=1_000)
def resolve(spec: str) -> frozenset[str]:
    """The words that a text of words, @classes, @kinds and @nouns stands for; those after `!` are left out."""
    found, left_out = set(), set()
    for part in spec.split():
        if part[0] == "@":
            name = part[1:]
            noun = frozenset([name.replace("_", " ")])
            found |= resolve(lexicon.CLASSES[name]) if name in lexicon.CLASSES else kinds().get(name, noun)
        else:
            (left_out if part[0] == "!" else found).add(part.lstrip("!").replace("_", " "))
    return frozenset(found - left_out)


@lru_cache(maxsize=2_000)
def guard(group: Group) -> tuple[frozenset[str], frozenset[str]]:
    """The words, and the nouns of the @classes, beside which a group is left alone."""
    parts = group.unless.split()
    return (
        frozenset(part for part in parts if part[0] != "@"),
        resolve(" ".join(part for part in parts if part[0] == "@")),
    )


def forms(grammar_kind: str, word: str) -> Iterator[tuple[str, str | None]]:
    """The forms of a word in which captions contain it, with their tags."""
    if grammar_kind == "noun":
        yield word, "NN"
        yield grammar.plural(word), "NNS"
    elif grammar_kind == "verb":
        for tag in ("VB", "VBZ", "VBG"):
            yield grammar.inflected(word, tag), tag
    elif grammar_kind == "place":
        yield place_noun(word), "NN"
    else:
        yield word, {"mass": "NN", "plural": "NNS"}.get(grammar_kind)


def entries_of(group: Group) -> Iterator[tuple[str, Entry]]:
    """Every form of every word of a group."""
    words = meanings(group)
    put_in = [(number, word) for number, meaning in enumerate(words) for word, mark in meaning if mark in ("", "+")]
    others = defaultdict(list)
    for number, word in put_in:
        for form, tag in forms(group.grammar, word):
            others[tag].append(Other(number, form, word))
    for number, meaning in enumerate(words):
        for word in [word for word, mark in meaning if mark != "+"]:
            for form, tag in forms(group.grammar, word):
                rest = tuple(other for other in others[tag] if other.meaning != number)
                yield form, Entry(group, number, word, tag, rest)


@lru_cache(maxsize=1)
def phrases() -> dict[str, tuple[Phrase, ...]]:
    """The lexicon by first word, longest phrases first."""
    found: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for phrase in phrase_list(lexicon.FIXED):
        found[tuple(TOKEN.findall(phrase))] = []
    for group in all_groups():
        for form, entry in entries_of(group):
            found[tuple(TOKEN.findall(form))].append(entry)
    by_first = defaultdict(list)
    for words, entries in found.items():
        by_first[words[0]].append(Phrase(words, tuple(entries)))
    return {first: tuple(sorted(all_, key=lambda phrase: -len(phrase.words))) for first, all_ in by_first.items()}


@lru_cache(maxsize=1)
def suits() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """The nouns that an adjective suits as a matter of course, and those that it suits only where a caption says so."""
    natural, strange = defaultdict(frozenset), defaultdict(frozenset)
    for group in lexicon.GROUPS:
        if group.grammar == "adjective":
            for word, mark in (word for words in meanings(group) for word in words):
                (strange if mark == "=" else natural)[word] |= resolve(group.of)
    return {word: (natural[word], natural[word] | strange[word]) for word in {*natural, *strange}}
