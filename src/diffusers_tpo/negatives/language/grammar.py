"""The little grammar that exchanged words need: forms, articles, capitals, and what may stand beside a noun."""

import re
from functools import lru_cache
from typing import Any

from ...errors import require
from . import lexicon


DETERMINERS = frozenset(
    "a an the this that these those his her its their my your our each every another one some several many few no both".split()
)
SINGULAR = frozenset("a an this that each every another one".split())
SEVERAL = frozenset("several many some few these those both".split())
PREPOSITIONS = frozenset(
    "of in on at with without by near under over behind beside beneath underneath above below inside outside into onto from to "
    "through across along around against between among towards toward during for amid next atop off up down like as past "
    "upon beyond opposite via onto alongside".split()
)
CONJUNCTIONS = frozenset("and or but while as that which who whose where when plus so after before".split())
AUXILIARIES = frozenset("is are was were has have had can could will would be being been".split())
PRONOUNS = frozenset("he him his himself she her hers herself it its itself they them their themselves".split())
ADVERBS = frozenset(
    "outdoors indoors nearby together alone there here asleep upside full high low away back too ahead apart aside left right "
    "still also just now not".split()
)
NOUNS_IN_LY = frozenset(
    "butterfly dragonfly family lily fly jelly belly bully holly trolley italy july assembly".split()
)
# Words in -ing and -ed that are nouns or adjectives beside another noun ("dog training", "office building").
NO_PARTICIPLES = frozenset(
    "building painting drawing ceiling evening morning ring king string wing spring swing wedding clothing bedding railing "
    "lighting setting thing ping landing parking training racing boxing shopping fishing housing dressing pudding "
    "filling topping icing frosting stuffing engraving carving etching ending meeting opening bed shed sled seed feed weed reed "
    "covering earring sibling dumpling duckling awning fencing gathering viking greeting setting wrapping roofing sitting-room".split()
)
NEGATIONS = frozenset("no not without neither nor never nothing nobody none don't isn't aren't".split())
PLURALS = {"cactus": "cacti", "samurai": "samurai", "buffalo": "buffalo", "flamingo": "flamingos"}
OTHER_PLURALS = {
    "cactus": "cactuses", "buffalo": "buffaloes", "flamingo": "flamingoes", "mango": "mangos", "scarf": "scarfs",
}  # fmt: skip
PLURAL_OF_AUXILIARY = {"is": "are", "was": "were", "has": "have"}


@lru_cache(maxsize=1)
def _engine() -> Any:
    return require("inflect", extra="negatives").engine()


@lru_cache(maxsize=20_000)
def article(word: str) -> str:
    """ "a" or "an" for the word that follows."""
    return _engine().a(word).split()[0]


@lru_cache(maxsize=20_000)
def plural(noun: str) -> str:
    return PLURALS.get(noun) or _engine().plural_noun(noun)


@lru_cache(maxsize=20_000)
def verb_form(lemma: str, tag: str) -> str:
    """The form of a verb with a Penn tag (VB, VBZ, VBG, VBN)."""
    return next(iter(require("lemminflect", extra="negatives").getInflection(lemma, tag=tag)), "")


def inflected(phrase: str, tag: str) -> str:
    """A verb and what belongs to it, such as "pick up", with the verb in the form of a tag."""
    head, space, rest = phrase.partition(" ")
    return verb_form(head, tag) + space + rest


@lru_cache(maxsize=20_000)
def _lemmas(word: str, kind: str) -> tuple[str, ...]:
    return require("lemminflect", extra="negatives").getAllLemmas(word, upos=kind).get(kind, ())


@lru_cache(maxsize=20_000)
def singular_of(word: str) -> str | None:
    """The singular of a plural noun, or `None` if the word is not the plural of another word."""
    if not word.isalpha():
        return None
    return next((lemma for lemma in _lemmas(word, "NOUN") if lemma != word and plural(lemma) == word), None)


@lru_cache(maxsize=1_000)
def verb_forms(verbs: str) -> frozenset[str]:
    """All forms of some verbs."""
    return frozenset(verb_form(lemma, tag) for lemma in verbs.split() for tag in ("VB", "VBZ", "VBG", "VBN", "VBD"))


@lru_cache(maxsize=1)
def verb_tags() -> dict[str, frozenset[str]]:
    """The forms of the lexicon's verbs with their tags; those in -s that look like nouns have the tag "noun" as well."""
    tags: dict[str, set[str]] = {}
    for lemma in {*lexicon.VERBS.split(), *lexicon.NOUNS_IN_S.split()}:
        for tag in ("VB", "VBZ", "VBG", "VBN"):
            tags.setdefault(verb_form(lemma, tag), set()).add(tag)
    for lemma in lexicon.NOUNS_IN_S.split():
        tags[verb_form(lemma, "VBZ")].add("noun")
        tags[lemma].add("noun")
    return {word: frozenset(found) for word, found in tags.items()}


@lru_cache(maxsize=20_000)
def is_participle(word: str) -> bool:
    """True for words such as "sitting" or "parked" that can follow a noun without making a compound of it."""
    if word in NO_PARTICIPLES:
        return False
    if verb_tags().get(word, frozenset()) & {"VBG", "VBN"} and word not in lexicon.NOUNS_IN_S.split():
        return True
    return word.endswith(("ing", "ed")) and any(lemma != word for lemma in _lemmas(word, "VERB"))


@lru_cache(maxsize=20_000)
def is_noun(word: str) -> bool:
    return bool(_lemmas(word, "NOUN"))


@lru_cache(maxsize=20_000)
def is_known(word: str) -> bool:
    """True for an English word of the dictionary."""
    return any(_lemmas(word, kind) for kind in ("NOUN", "ADJ", "VERB", "ADV"))


@lru_cache(maxsize=20_000)
def is_plain_noun(word: str) -> bool:
    """True for a word that is a noun and nothing but a noun or a verb, such as "balloon" or "dog"."""
    return is_noun(word) and not _lemmas(word, "ADJ") and not is_adverb(word)


@lru_cache(maxsize=20_000)
def is_plain_adjective(word: str) -> bool:
    """True for a word that is an adjective and no noun, such as "wooden"."""
    return bool(_lemmas(word, "ADJ")) and not is_noun(word)


@lru_cache(maxsize=20_000)
def may_be_singular(word: str) -> bool:
    """True for a noun such as "series" or "bus" that may be singular though it looks like a plural."""
    return word in _lemmas(word, "NOUN") or not word.endswith("s")


@lru_cache(maxsize=20_000)
def is_third_person(word: str) -> bool:
    """True for words such as "sits" that may be a verb in the third person."""
    return word.endswith("s") and len(word) > 3 and any(lemma != word for lemma in _lemmas(word, "VERB"))


@lru_cache(maxsize=20_000)
def base_form(word: str) -> str | None:
    """ "sit" for "sits"."""
    return next((lemma for lemma in _lemmas(word, "VERB") if lemma != word and verb_form(lemma, "VBZ") == word), None)


@lru_cache(maxsize=20_000)
def is_any_verb(word: str) -> bool:
    """True for any form of a word that may be a verb."""
    return word.isalpha() and bool(_lemmas(word, "VERB"))


@lru_cache(maxsize=20_000)
def is_adverb(word: str) -> bool:
    return word in ADVERBS or word.endswith("ly") and word not in NOUNS_IN_LY


@lru_cache(maxsize=20_000)
def ends_any_noun(word: str) -> bool:
    return (
        not word[0].isalnum()
        and word not in "-/'’&"
        or word in PREPOSITIONS
        or word in CONJUNCTIONS
        or word in AUXILIARIES
        or is_adverb(word)
        or is_participle(word)
    )


def ends_noun(word: str | None, plural_noun: bool = False, singular: bool = False) -> bool:
    """True if a noun before this word (or before the end) is complete, and no part of a compound.

    Args:
        plural_noun: whether the noun stands in the plural.
        singular: whether "a" or the like stands before the noun, so that a word such as "pets" after it is a verb.
    """
    if word is None or ends_any_noun(word):
        return True
    if singular:
        return is_third_person(word)
    tags = verb_tags().get(word, frozenset())
    return plural_noun and "VB" in tags or "VBZ" in tags and "noun" not in tags


@lru_cache(maxsize=20_000)
def is_part_of_compound(word: str) -> bool:
    """True for words that may be the first part of a compound: nouns that neither end a noun phrase nor begin one."""
    return (
        word.isalpha()
        and len(word) > 2
        and not (ends_noun(word) or ends_noun(word, singular=True))
        and not (word in DETERMINERS or word in PRONOUNS or word in NEGATIONS or word in lexicon.NUMBERS)
        and is_noun(word)
    )


def match_case(new: str, old: str, title: bool = False) -> str:
    """Gives new words the capitals of the old ones.

    Args:
        title: whether every word of the caption begins with a capital.
    """
    letters = re.sub(r"[^\w]", "", old)
    if len(letters) > 1 and letters.isupper():
        return new.upper()
    heads = [word[0] for word in old.split() if word[0].isalpha()]
    if heads and all(head.isupper() for head in heads) and (title or len(heads) > 1):
        words = [word if word in PREPOSITIONS else word[0].upper() + word[1:] for word in new.split()]
        return " ".join([words[0][0].upper() + words[0][1:], *words[1:]])
    if any(word[0].isupper() and word.casefold() in lexicon.NAMES for word in old.split()):
        words = [word.capitalize() if word in lexicon.NAMES else word for word in new.split()]
        return " ".join([words[0].capitalize() if heads[0].isupper() else words[0], *words[1:]])
    return new[0].upper() + new[1:] if heads and heads[0].isupper() else new


@lru_cache(maxsize=20_000)
def is_same_verb(word: str, other: str) -> bool:
    """True for two forms of one verb that show the same, such as "smiles" and "smiling", or "gazes" and "looking"."""
    first, second = _lemmas(word, "VERB"), _lemmas(other, "VERB")
    if not set(_meanings(first, lexicon.MEANINGS_OF_VERBS)).isdisjoint(_meanings(second, lexicon.MEANINGS_OF_VERBS)):
        return not set(first) & set(second) or word.endswith(("ing", "ed")) or other.endswith(("ing", "ed"))
    if not (word.endswith(("ing", "ed")) or other.endswith(("ing", "ed"))):
        return False  # "duck" and "ducks" may be one duck and two
    return not set(first).isdisjoint(second)


def _meanings(words: tuple[str, ...], table: dict[str, frozenset[int]]) -> set[int]:
    return {number for word in words for number in table.get(word, ())}


@lru_cache(maxsize=20_000)
def is_same(word: str, other: str) -> bool:
    """True for two words of one meaning and number, such as "cars" and "automobiles", and for two forms of one verb."""
    singulars = singular_of(word), singular_of(other)
    if (singulars[0] is None) == (singulars[1] is None):
        pair = singulars if singulars[0] is not None else (word, other)
        if not _meanings((str(pair[0]),), lexicon.MEANINGS).isdisjoint(_meanings((str(pair[1]),), lexicon.MEANINGS)):
            return True
    return is_same_verb(word, other)
