"""The lexicon made ready for look-ups: every form of every word, with what may replace it."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from . import grammar, lexicon
from .lexicon import Group
from .words import TOKEN


NOUNS = ("noun", "plural", "mass")


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
    """Words of the lexicon as they stand in captions, and all that they can be; nothing for a phrase of `FIXED`."""

    words: tuple[str, ...]
    entries: tuple[Entry, ...]

    @cached_property
    def nouns(self) -> dict[str | None, Entry]:
        """An entry that says which noun it is, for the singular and the plural; "sheep" is both."""
        return {entry.tag: entry for entry in reversed(self.entries) if entry.group.grammar in NOUNS}

    @cached_property
    def noun(self) -> str | None:
        """The noun that it may be."""
        return next((entry.lemma for entry in self.nouns.values()), None)

    @cached_property
    def adjective(self) -> str | None:
        """The adjective that it may be."""
        return next((entry.lemma for entry in self.entries if entry.group.grammar == "adjective"), None)

    @cached_property
    def is_attribute(self) -> bool:
        """True for a word such as "orange", which may be a noun as well as what something is like."""
        return any(
            entry.group.grammar == "adjective" and entry.group.principle == "attribute" for entry in self.entries
        )

    @cached_property
    def is_open(self) -> bool:
        """True for a verb of several words, such as "sit on", whose words are found by themselves as well."""
        grammars = {entry.group.grammar for entry in self.entries}
        return len(self.words) > 1 and grammars == {"verb"}

    @cached_property
    def by_principle(self) -> dict[str, dict[str, tuple[Entry, ...]]]:
        """Principle and grammar to entries."""
        found: dict = defaultdict(lambda: defaultdict(tuple))
        for entry in self.entries:
            found[entry.group.principle][entry.group.grammar] += (entry,)
        return {principle: dict(grammars) for principle, grammars in found.items()}


@dataclass(frozen=True)
class Phrases:
    """All phrases of the lexicon.

    Args:
        lengths: how many words the phrases have that begin with a word, longest first.
    """

    lengths: dict[str, tuple[int, ...]]
    table: dict[tuple[str, ...], Phrase]


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def phrase_list(text: str) -> list[str]:
    return [phrase.strip() for phrase in text.replace("\n", " ").split(",") if phrase.strip()]


def meanings(group: Group) -> list[list[tuple[str, str]]]:
    """The words of every meaning, each with its mark, "" for none."""
    parts = ([word.strip() for word in part.split(",")] for part in group.marked.split("|"))
    return [[(word.lstrip("~=+"), word[0] if word[0] in "~=+" else "") for word in words] for words in parts]


def place_noun(place: str) -> str:
    """ "forest" for "in a forest"."""
    words = place.split()
    return " ".join(words[2:] if words[1] in ("a", "an", "the") else words[1:])


@lru_cache(maxsize=1)
def all_groups() -> tuple[Group, ...]:
    """The groups of the lexicon, and one without a principle for every kind of things."""
    groups = [group for group in lexicon.GROUPS if group.grammar == "place"]
    places = {place_noun(word) for group in groups for words in meanings(group) for word, _ in words}
    singular = " | ".join(sorted(place for place in places if not place.endswith("s")))
    things = [Group("", kind, "noun", words) for kind, words in lexicon.THINGS.items()]
    masses = [Group("", kind, "mass", words) for kind, words in lexicon.MASSES.items()]
    return (*lexicon.GROUPS, *things, *masses, Group("", "places of groups", "noun", singular))


@lru_cache(maxsize=1)
def kinds() -> dict[str, frozenset[str]]:
    """The nouns of every kind."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for group in all_groups():
        if group.grammar in NOUNS:
            found[group.kind.replace(" ", "_")].update(word for words in meanings(group) for word, _ in words)
    return {kind: frozenset(nouns) for kind, nouns in found.items()}


@lru_cache(maxsize=1_000)
def resolve(spec: str) -> frozenset[str]:
    """The words that a text of words, @classes, @kinds and @nouns stands for; those after `!` are left out."""
    found: set[str] = set()
    left_out: set[str] = set()
    for part in spec.split():
        if part[0] == "@":
            name = part[1:]
            noun = frozenset([name.replace("_", " ")])
            found |= resolve(lexicon.CLASSES[name]) if name in lexicon.CLASSES else kinds().get(name, noun)
        else:
            (left_out if part[0] == "!" else found).add(part.lstrip("!").replace("_", " "))
    return frozenset(found - left_out)


@lru_cache(maxsize=1_000)
def guard(group: Group) -> tuple[frozenset[str], frozenset[str]]:
    """The words, and the nouns of the @classes, beside which a group is left alone."""
    parts = group.unless.split()
    words = frozenset(part for part in parts if part[0] != "@")
    return words, resolve(" ".join(part for part in parts if part[0] == "@"))


@lru_cache(maxsize=1)
def suits() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """The nouns that an adjective suits as a matter of course, and these with those that it suits if a caption says so."""
    natural: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
    strange: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
    for group in lexicon.GROUPS:
        if group.grammar == "adjective":
            for word, mark in (word for words in meanings(group) for word in words):
                (strange if mark == "=" else natural)[word] |= resolve(group.of)
    return {word: (natural[word], natural[word] | strange[word]) for word in {*natural, *strange}}


def forms(group: Group, word: str) -> Iterator[tuple[str, str | None]]:
    """The forms of a word in which captions contain it, with their tags."""
    if group.grammar == "noun":
        yield word, "NN"
        yield grammar.plural(word), "NNS"
    elif group.grammar == "verb":
        for tag in ("VB", "VBZ", "VBG"):
            yield grammar.inflected(word, tag), tag
    elif group.grammar == "place":
        yield place_noun(word), None
    else:
        yield word, {"mass": "NN", "plural": "NNS"}.get(group.grammar)


def entries_of(group: Group) -> Iterator[tuple[str, Entry]]:
    """Every form of every word of a group that captions may contain."""
    found, put_in = [], defaultdict(list)
    for number, words in enumerate(meanings(group)):
        for word, mark in words:
            for form, tag in forms(group, word):
                if mark in ("", "+"):
                    put_in[tag].append(Other(number, form, word))
                if mark != "+":
                    found.append((number, word, form, tag))
            if group.grammar == "noun" and mark != "+" and word in grammar.OTHER_PLURALS:
                found.append((number, word, grammar.OTHER_PLURALS[word], "NNS"))
    for number, word, form, tag in found:
        others = tuple(other for other in put_in[tag] if other.meaning != number)
        yield form, Entry(group, number, word, tag, others)


@lru_cache(maxsize=1)
def phrases() -> Phrases:
    """Every form of every word of the lexicon, and the fixed phrases."""
    found: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for phrase in phrase_list(lexicon.FIXED):
        found[tuple(TOKEN.findall(phrase))] = []
    for group in all_groups():
        for form, entry in entries_of(group):
            found[tuple(TOKEN.findall(form))].append(entry)
    lengths = defaultdict(set)
    for words in found:
        lengths[words[0]].add(len(words))
    return Phrases(
        {first: tuple(sorted(numbers, reverse=True)) for first, numbers in lengths.items()},
        {words: Phrase(words, tuple(entries)) for words, entries in found.items()},
    )
