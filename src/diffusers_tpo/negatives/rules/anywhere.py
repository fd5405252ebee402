"""Edits that suit things of which the lexicon knows nothing: opposites, and relations that any two things can have."""

from collections.abc import Iterator

from ..language import grammar, lexicon
from ..language.caption import NEUTRAL, Caption, Hit, Replacement
from ..language.grammar import DETERMINERS, PREPOSITIONS, PRONOUNS
from ..language.index import Entry, resolve, word_set
from ..language.lexicon import NUMBERS
from .content import NUMBER_WORDS, is_likened
from .sites import Option, phrase_options


COLOURS = word_set(lexicon.COLOURS)
UNCOLOURED = word_set(lexicon.UNCOLOURED)
BUILDINGS = "@building @other_building"
POSES, SCENERY, IN_A_HAND = map(word_set, (lexicon.POSES, lexicon.SCENERY, lexicon.IN_A_HAND))
AROUND = frozenset(
    "sky air camera viewer other light lights darkness night fog mist smoke clouds rain snow world".split()
)
SITTING = frozenset("sitting sits standing stands riding rides lying walking hand hands arms head shoulder".split())
LANDMARKS = {relation: resolve(nouns) for relation, nouns in lexicon.LANDMARKS.items()}
AND = frozenset("and & / + x".split())
COUNTS = (2, 3, 4)


def opposite_options(caption: Caption, index: int) -> Iterator[Option]:
    """ "A giant mushroom" becomes "a tiny mushroom", whatever is giant."""
    word, after = caption.words[index], {caption.word(index + 1), caption.word(index + 2)}
    if not is_before_noun(caption, index) or caption.words.count(word) > 1:
        return
    if not after.isdisjoint(lexicon.NO_OPPOSITES.get(word, "").split()):
        return
    if word in lexicon.LOOKS and after.isdisjoint(resolve("@human @animal")):
        return
    if word in lexicon.PERIODS and len(caption.known & lexicon.PERIODS) > 1:
        return
    other = lexicon.OPPOSITES[word]
    if other not in caption.known:
        yield (Replacement(index, index + 1, other),)


def colour_options(caption: Caption, index: int) -> Iterator[Option]:
    """Another colour of something that the lexicon does not know."""
    if not is_before_noun(caption, index) or caption.starting.get(index + 1) is not None:
        return
    if caption.word(index + 1) in UNCOLOURED or caption.word(index - 1) in lexicon.SHADES:
        return
    if caption.words.count(caption.words[index]) > 1:
        return
    for other in sorted(COLOURS - caption.known):
        yield (Replacement(index, index + 1, other),)


def is_before_noun(caption: Caption, index: int) -> bool:
    """True if the next word is a noun, and neither is part of a name, of a word with hyphens or of a longer phrase."""
    after = caption.word(index + 1)
    if any(hit.start <= index < hit.end and hit.end - hit.start > 1 for hit in caption.hits):
        return False
    if (
        after is None
        or index + 1 in caption.blocked
        or not after.isalpha()
        or {index - 1, index + 1} & caption.hyphens
    ):
        return False
    if grammar.ends_any_noun(after) or after in NUMBERS or after in DETERMINERS:
        return False
    return grammar.is_noun(after) or after in NEUTRAL


def relation_anywhere_options(caption: Caption, index: int) -> Iterator[Option]:
    """ "A walrus next to a piano" becomes "a walrus far away from a piano"."""
    for old, new in lexicon.RELATIONS_ANYWHERE[caption.words[index]]:
        words = old.split()
        end = index + len(words)
        if caption.words[index:end] != words or caption.words.count(words[0]) > 1:
            continue
        if words[0] in POSES and caption.nouns & resolve(BUILDINGS):
            continue
        if is_landmark(caption, old, new, end) and is_after_subject(caption, index):
            yield (Replacement(index, end, new),)


def is_after_subject(caption: Caption, index: int) -> bool:
    """True if what stands before a relation may be whose relation it is."""
    before = caption.word(index - 1)
    if before is None or before in PREPOSITIONS or before in DETERMINERS:
        return False
    return before[0].isalnum() or before in ",;)"


def is_landmark(caption: Caption, old: str, new: str, index: int) -> bool:
    """True if the thing that begins at an index suits an old relation and a new one."""
    words = [caption.word(place) for place in range(index, index + 4)]
    if words[0] not in DETERMINERS and words[0] not in NUMBERS:
        return False
    if old in LANDMARKS:
        phrase = caption.noun_phrase_at(index)
        return phrase is not None and phrase.noun.lemma in LANDMARKS[old] and caption.word(phrase.end) != "of"
    if old.startswith("holding"):
        return IN_A_HAND.isdisjoint(words) and SITTING.isdisjoint(caption.known)
    return (AROUND if new == "far away from" else SCENERY).isdisjoint(words)


def count_anywhere_options(caption: Caption, index: int) -> Iterator[Option]:
    """ "A teacup on a shelf" becomes "three teacups on a shelf", where nothing else speaks of the teacup."""
    if index and (caption.word(index - 1) != "of" or caption.word(index - 2) not in lexicon.IMAGES.split()):
        return
    place = index + 1
    while caption.word(place) is not None and grammar.is_plain_adjective(caption.words[place]):
        place += 1
    noun, after = caption.word(place), caption.word(place + 1)
    if (
        noun is None
        or not grammar.is_plain_noun(noun)
        or {place - 1, place + 1} & caption.hyphens
        or place in caption.blocked
    ):
        return
    if after not in (None, ",", ".", "on", "in", "at", "under", "behind") or caption.known & (
        PRONOUNS | lexicon.ONE_ONLY
    ):
        return
    many = grammar.plural(noun)
    if many == noun or many in caption.known or caption.words.count(noun) > 1 or grammar.singular_of(noun):
        return
    if is_likened_from(caption, place + 1):
        return
    for number in COUNTS:
        yield Replacement(index, index + 1, NUMBER_WORDS[number]), Replacement(place, place + 1, many)


def is_likened_from(caption: Caption, index: int) -> bool:
    return is_likened(caption, index) or any(
        word in grammar.AUXILIARIES or grammar.is_third_person(word) for word in caption.words[index:]
    )


def name_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """Another character, if nothing else tells who it is."""
    after = caption.word(hit.end)
    if caption.known & PRONOUNS or not (after is None or grammar.ends_noun(after, singular=True)) or after in AND:
        return
    if hit.end in caption.blocked or caption.word(hit.start - 1) in AND:
        return
    yield from phrase_options(caption, hit, entries)


def artist_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """Another artist, if a caption names one alone."""
    after, later = caption.word(hit.end), caption.starting.get(hit.end + 1)
    if caption.words.count("by") > 1 or after in AND or after is not None and after not in ",.;":
        return
    is_tag = later is not None and caption.word(later.end) in (None, ",", ".", ";")
    if after in (None, ".") or is_tag:
        yield from phrase_options(caption, hit, entries)
