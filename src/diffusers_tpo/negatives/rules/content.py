"""Edits of which things are there and how many."""

from collections.abc import Iterator

from ..language import grammar, lexicon
from ..language.caption import Caption, Hit, NounPhrase, Replacement
from ..language.grammar import AUXILIARIES, DETERMINERS, PLURAL_OF_AUXILIARY, PREPOSITIONS, PRONOUNS
from ..language.index import Entry, phrase_list, resolve, word_set
from ..language.lexicon import NUMBERS, SEXES, Group
from .sites import Option, has_possessive, is_guarded, is_suited, others


COUNTING, GATHERED, IMAGES, SEXED, SINGLE, SOLO, TIED_WITH, UNITS, WHOLES = map(
    word_set,
    (
        lexicon.COUNTING, lexicon.GATHERED, lexicon.IMAGES, lexicon.SEXED, lexicon.SINGLE, lexicon.SOLO,
        lexicon.TIED_WITH, lexicon.UNITS, lexicon.WHOLES,
    ),
)  # fmt: skip
TWO_ONLY = phrase_list(lexicon.TWO_ONLY)
COLLECTIVES = {word: word_set(nouns) for word, nouns in lexicon.COLLECTIVES.items()}
NO_OBJECTS = frozenset("like as than without except".split())
NO_COUNT_AFTER = frozenset("at - . / # : $ no size to about type chapter or between".split())
ENDS_CLAUSE = frozenset("on in and at . , ;".split())
NUMBER_WORDS = {value: word for word, value in NUMBERS.items() if not word.isdigit()}


def is_free(caption: Caption, phrase: NounPhrase, group: Group) -> bool:
    """True if nothing around a noun phrase ties its noun, as "slice of" or "plays the" would."""
    before, after = caption.word(phrase.start - 1), caption.word(phrase.end)
    if after in ("of", "made") or after == "with" and phrase.noun.lemma not in resolve(lexicon.FREE_WITH):
        return False
    if group.after:
        return (before or "^") in group.after.split()
    if before in NO_OBJECTS:
        return False
    if before is None or not before[0].isalpha() or before in grammar.CONJUNCTIONS or before in AUXILIARIES:
        return True
    if before == "of":
        return caption.word(phrase.start - 2) in WHOLES | COLLECTIVES.keys()
    if before in PREPOSITIONS:
        return before != "with" or caption.word(phrase.start - 2) not in TIED_WITH
    return before in grammar.verb_forms(lexicon.OBJECT_VERBS) or before in grammar.verb_forms(group.verbs)


def noun_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """Another thing; a thing that is named twice becomes another one in both places."""
    phrase = caption.noun_phrase(hit)
    if phrase is None:
        return
    for entry in entries:
        group = entry.group
        if (
            entry.tag != phrase.noun.tag
            or is_guarded(caption, group, hit.start, hit.end)
            or not is_free(caption, phrase, group)
        ):
            continue
        hits = caption.meanings(group)[entry.meaning]
        phrases = [each for each in map(caption.noun_phrase, hits) if each is not None and not each.is_compound]
        if len(phrases) < len(hits) or len(hits) > 2 or has_possessive(caption, hits):
            continue
        is_part = caption.word(phrase.start - 1) == "of"
        collective = COLLECTIVES.get(caption.word(phrase.start - 2) or "") if is_part else None
        for other in others(caption, entry):
            is_usual = collective is None or other.lemma in collective
            if is_usual and all(is_suited(each, other.lemma) for each in phrases):
                yield tuple(
                    Replacement(each.head.start, each.end, form_like(each, group, other.lemma)) for each in phrases
                )


def form_like(phrase: NounPhrase, group: Group, lemma: str) -> str:
    """Another noun of a group in the number of a noun phrase."""
    return next(
        other.text
        for entry in phrase.head.phrase.entries
        for other in entry.others
        if entry.group is group and entry.tag == phrase.noun.tag and other.lemma == lemma
    )


def sex_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    """ "A man with his dog" becomes "a woman with her dog", if the caption speaks of one person only."""
    spots = [index for index, word in enumerate(caption.words) if word in PRONOUNS]
    people = [each for each in caption.hits if each.phrase.noun in resolve("@human")]
    phrase = caption.noun_phrase(hit)
    if len(spots) != 1 or people != [hit] or phrase is None or phrase.is_compound or has_possessive(caption, [hit]):
        return
    pronoun = caption.words[spots[0]]
    if pronoun == "her":
        new = "him" if grammar.ends_noun(caption.word(spots[0] + 1)) else "his"
    else:
        new = lexicon.PRONOUNS.get(pronoun)
    if new is not None and SEXED.isdisjoint(caption.known):
        yield (
            Replacement(hit.start, hit.end, SEXES[caption.words[hit.start]]),
            Replacement(spots[0], spots[0] + 1, new),
        )


def counts_again(caption: Caption) -> bool:
    """True if the caption counts its things a second time, or says what only two can do."""
    text = " ".join(caption.words)
    if not COUNTING.isdisjoint(caption.known) or any(phrase in text for phrase in TWO_ONLY):
        return True
    following = [*caption.words[1:], ""]
    return any(word in ("one", "ones") and after != "of" for word, after in zip(caption.words, following, strict=True))


def plural_after(caption: Caption, index: int) -> bool:
    """True if a noun in the plural follows, perhaps after words that may be its adjectives."""
    for place in range(index, index + 4):
        word = caption.word(place)
        if word is None or not word.isalpha() or word in DETERMINERS | PREPOSITIONS | AUXILIARIES | UNITS:
            return False
        hit = caption.starting.get(place)
        if hit is not None and "NNS" in hit.phrase.nouns and caption.word(hit.end) not in UNITS:
            if grammar.ends_noun(caption.word(hit.end), True):
                return True
        elif grammar.singular_of(word) and grammar.ends_noun(caption.word(place + 1), True):
            return True
    return False


def new_numbers(value: int) -> list[int]:
    if value <= 6:
        return [number for number in range(2, 8) if number != value]
    if value <= 12:
        return [number for number in range(3, 13) if abs(number - value) > 1]
    return [number for number in (10, 20, 30, 40, 50) if abs(number - value) > 5]


def number_options(caption: Caption, index: int) -> Iterator[Option]:
    """Another number before a plural noun."""
    word, before, earlier = caption.words[index], caption.word(index - 1), caption.word(index - 2)
    is_name = word.isdigit() and before is not None and before.isalpha() and not grammar.is_known(before)
    if caption.word(index + 1) == "d" or is_name and before not in PREPOSITIONS:  # "3 d", "zorp 5"
        return
    value = NUMBERS[word]
    if (
        not 2 <= value <= 60
        or before in NO_COUNT_AFTER
        or before == "and"
        and earlier in NUMBERS
        or counts_again(caption)
    ):
        return
    if before == "of" and earlier not in ("set", "photo") and earlier not in GATHERED:
        return
    if plural_after(caption, index + 1):
        for number in new_numbers(value):
            yield (Replacement(index, index + 1, str(number) if word.isdigit() else NUMBER_WORDS[number]),)


def several_options(caption: Caption, index: int) -> Iterator[Option]:
    """ "Several boats" becomes "two boats", "a couple of dogs" becomes "five dogs"."""
    word, before, after = caption.words[index], caption.word(index - 1), caption.word(index + 1)
    if word == "couple":
        is_count = before == "a" and after == "of" and plural_after(caption, index + 2)
        if is_count and COUNTING & caption.known == {"couple"}:
            for number in range(4, 8):
                yield (Replacement(index - 1, index + 2, NUMBER_WORDS[number]),)
    elif before not in DETERMINERS and plural_after(caption, index + 1) and not counts_again(caption):
        yield (Replacement(index, index + 1, "two"),)


def group_options(caption: Caption, index: int) -> Iterator[Option]:
    """ "A group of friends sits" becomes "two friends sit"."""
    phrase = caption.noun_phrase_at(index + 2) if caption.word(index + 1) == "of" else None
    if phrase is None or phrase.noun.tag != "NNS" or phrase.start != phrase.head.start or counts_again(caption):
        return
    start = index - (caption.word(index - 1) == "a")
    verbs = agreeing_verbs(caption, phrase)
    if verbs is not None and caption.word(start - 1) in (None, ".", "of"):
        yield (Replacement(start, index + 2, "two"), *verbs)


def more_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    """ "A dog is sitting" becomes "three dogs are sitting"."""
    phrase = caption.noun_phrase(hit)
    if phrase is None or phrase.noun.tag != "NN" or phrase.determiner not in ("a", "an"):
        return
    lemma, after = phrase.noun.lemma, caption.word(phrase.end)
    if lemma not in resolve(lexicon.MANY) or after == "with" or not is_alone(caption, phrase):
        return
    if is_likened(caption, phrase.end):
        return
    if after == "and" and caption.word(phrase.end + 1) not in DETERMINERS:  # "a bride and groom"
        return
    before = caption.word(phrase.start - 1)
    changes = [Replacement(hit.start, hit.end, grammar.plural(lemma))]
    verbs = agreeing_verbs(caption, phrase)
    if before in ("is", "was") and caption.word(phrase.start - 2) == "there":
        changes.append(Replacement(phrase.start - 1, phrase.start, PLURAL_OF_AUXILIARY[before]))
    elif before is not None and before != ".":
        verbs = [] if may_be_several(caption, phrase, before) else None
    if verbs is not None:
        numbers = (2, 3, 4) if lemma in resolve("@big @vehicle") else (2, 3, 4, 5)
        for number in (number for number in numbers if NUMBER_WORDS[number] not in caption.known):
            yield (Replacement(phrase.start, phrase.start + 1, NUMBER_WORDS[number]), *changes, *verbs)


def is_alone(caption: Caption, phrase: NounPhrase) -> bool:
    """True if nothing else speaks of a thing once more, or of something that only one person uses."""
    lemma = phrase.noun.lemma
    if caption.known & (PRONOUNS | COUNTING) or grammar.plural(lemma) in caption.known or SINGLE & set(phrase.neutral):
        return False
    if sum(hit.phrase.noun == lemma for hit in caption.hits) > 1:
        return False
    is_tied = caption.known & SOLO or caption.nouns & resolve(lexicon.ALONE) - {lemma}
    return not is_tied or lemma not in resolve("@human @animal")


def is_likened(caption: Caption, index: int) -> bool:
    """True if the words from an index say what a thing is as well, in the singular: "a fox as a sailor"."""
    pairs = zip(caption.words[index:], caption.words[index + 1 :], strict=False)
    return any(word in ("as", "like", "into") and after in ("a", "an") for word, after in pairs)


def may_be_several(caption: Caption, phrase: NounPhrase, before: str) -> bool:
    """True if there may as well be several of a thing that is not the subject of a sentence."""
    earlier = caption.word(phrase.start - 2)
    if caption.word(phrase.end) not in ENDS_CLAUSE | {None}:
        return False
    if before in ("and", ",", "with"):
        return earlier not in TIED_WITH
    return earlier in IMAGES if before == "of" else before in grammar.verb_forms(lexicon.SEVERAL_OBJECTS)


def agreeing_verbs(caption: Caption, phrase: NounPhrase) -> list[Replacement] | None:
    """The changes of verbs that a subject in the plural asks for; `None` if they are not clear."""
    index = phrase.end
    word = caption.word(index)
    if word in AUXILIARIES:
        new = PLURAL_OF_AUXILIARY.get(word)
    elif word is None or grammar.ends_any_noun(word) or not grammar.is_third_person(word):
        return None if has_later_verb(caption, index) else []
    else:
        new = grammar.base_form(word)
    if new is None or has_later_verb(caption, index + 1):
        return None
    return [Replacement(index, index + 1, new)]


def has_later_verb(caption: Caption, start: int) -> bool:
    """True if a verb that agrees with a singular subject may follow in the same sentence."""
    for index in range(start, len(caption.words)):
        word = caption.words[index]
        if word in ".;":
            return False
        if word in PLURAL_OF_AUXILIARY or word in ("that", "who", "which", "while", "each"):
            return True
        if word.endswith("s") and grammar.is_third_person(word) and caption.noun_phrase_before(index + 1) is None:
            return True
    return False
