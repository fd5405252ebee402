"""The little grammar that exchanged words need: forms, articles, capitals, and what may stand beside a noun."""

import re
from functools import lru_cache

from ..errors import require


DETERMINERS = frozenset(
    "a an the this that these those his her its their my your our each every another one some several many few no both".split()
)
PREPOSITIONS = frozenset(
    "of in on at with without by near under over behind beside beneath underneath above below inside outside into onto from to "
    "through across along around against between among towards toward during for amid next atop off up down like as".split()
)
CONJUNCTIONS = frozenset("and or but while as that which who whose where when".split())
AUXILIARIES = frozenset("is are was were has have had can could will would be being been".split())
PRONOUNS = frozenset("he him his himself she her hers herself it its itself they them their themselves".split())
# Words in -ing that are nouns beside another noun ("dog training", "office building").
NOUNS_IN_ING = frozenset(
    "building painting drawing ceiling evening morning ring king string wing spring swing wedding clothing bedding railing "
    "lighting setting thing ping crossing landing parking training racing boxing shopping fishing housing dressing pudding "
    "filling topping icing frosting stuffing engraving carving etching ending meeting opening".split()
)
MEASURES = frozenset("day days morning afternoon evening night weather sky street city forest landscape beach".split())


@lru_cache(maxsize=1)
def _engine():
    return require("inflect", extra="negatives").engine()


@lru_cache(maxsize=100_000)
def article(word: str) -> str:
    """ "a" or "an" for the word that follows."""
    return _engine().a(word).split()[0]


@lru_cache(maxsize=100_000)
def plural(noun: str) -> str:
    return _engine().plural_noun(noun)


@lru_cache(maxsize=100_000)
def verb_form(lemma: str, tag: str) -> str | None:
    """The form of a verb with a Penn tag (VB, VBZ, VBG), or `None`."""
    return next(iter(require("lemminflect", extra="negatives").getInflection(lemma, tag=tag)), None)


@lru_cache(maxsize=100_000)
def singular_of(word: str) -> str | None:
    """The singular of a plural noun, or `None` if the word is not the plural of another word."""
    lemmas = require("lemminflect", extra="negatives").getAllLemmas(word, upos="NOUN").get("NOUN", ())
    return next((lemma for lemma in lemmas if lemma != word and plural(lemma) == word), None)


@lru_cache(maxsize=100_000)
def is_verb_form(word: str) -> bool:
    """True for words such as "sitting" or "parked" that can follow a noun without making a compound of it."""
    if word in NOUNS_IN_ING or not word.endswith(("ing", "ed")):
        return False
    lemmas = require("lemminflect", extra="negatives").getAllLemmas(word, upos="VERB").get("VERB", ())
    return any(lemma != word for lemma in lemmas)


@lru_cache(maxsize=100_000)
def is_third_person(word: str) -> bool:
    """True for words such as "sits" that may be a verb in the third person."""
    if not word.endswith("s") or len(word) < 4:
        return False
    lemmas = require("lemminflect", extra="negatives").getAllLemmas(word, upos="VERB").get("VERB", ())
    return any(lemma != word for lemma in lemmas)


@lru_cache(maxsize=100_000)
def is_noun(word: str) -> bool:
    return bool(require("lemminflect", extra="negatives").getAllLemmas(word, upos="NOUN"))


def ends_noun(word: str | None) -> bool:
    """True if a noun before this word (or before the end) is complete, and no part of a compound."""
    return (
        word is None
        or not word[0].isalnum()
        and word not in "-/'’&"
        or word in PREPOSITIONS
        or word in CONJUNCTIONS
        or word in AUXILIARIES
        or is_verb_form(word)
    )


def match_case(new: str, old: str) -> str:
    """Gives new words the capitals of the old ones."""
    letters = re.sub(r"[^\w]", "", old)
    if len(letters) > 1 and letters.isupper():
        return new.upper()
    heads = [word[0] for word in old.split() if word[0].isalpha()]
    if len(heads) > 1 and all(head.isupper() for head in heads):
        return new.title()
    return new[0].upper() + new[1:] if heads and heads[0].isupper() else new
