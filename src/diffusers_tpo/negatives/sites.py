"""What can change in a caption, and into what. Every function here answers with options, or with none if in doubt."""

from collections.abc import Iterator
from functools import lru_cache

from . import grammar, lexicon
from .caption import Caption, Hit, NounPhrase, Replacement
from .grammar import AUXILIARIES, DETERMINERS, PLURAL_OF_AUXILIARY, PREPOSITIONS, PRONOUNS
from .index import Entry, Other, guard, phrase_list, resolve, suits, word_set
from .lexicon import NUMBERS, SHADES, Group


Option = tuple[Replacement, ...]  # one edit, which may touch several places

COUNTING, UNITS, WHOLES, SEXED, SOLO, SINGLE = map(
    word_set, (lexicon.COUNTING, lexicon.UNITS, lexicon.WHOLES, lexicon.SEXED, lexicon.SOLO, lexicon.SINGLE)
)
TWO_ONLY = phrase_list(lexicon.TWO_ONLY)
COLLECTIVES = {word: resolve(nouns) for word, nouns in lexicon.COLLECTIVES.items()}
SHADE_COLOURS = {shade: word_set(colours) for shade, colours in SHADES.items()}
BE = frozenset("is are was were looks painted coloured colored dyed".split())
NO_OBJECTS = frozenset("like as than without except".split())
PERSONAL = frozenset("he she i we they".split())
NUMBER_WORDS = {value: word for word, value in NUMBERS.items() if not word.isdigit()}


@lru_cache(maxsize=1)
def object_verbs() -> frozenset[str]:
    return verb_forms(lexicon.OBJECT_VERBS)


@lru_cache(maxsize=1_000)
def verb_forms(verbs: str) -> frozenset[str]:
    """All forms of some verbs."""
    return frozenset(
        grammar.verb_form(lemma, tag) for lemma in verbs.split() for tag in ("VB", "VBZ", "VBG", "VBN", "VBD")
    )


STANDING = (
    "hang float hover dance sit stand lie lay sleep rest perch park place hide kneel crouch wait seat position set pose eat nap doze squat relax play"
)
MOVING = "walk run drive swim fly look kick crawl throw go move head turn hurry travel climb step jump leap get ride sail dash march lead stroll"


def guarded(caption: Caption, group: Group, start: int, end: int) -> bool:
    """True if words elsewhere in the caption forbid to touch the group at the tokens `[start, end)`."""
    words, nouns = guard(group)
    if caption.has_outside(words, start, end):
        return True
    if nouns.isdisjoint(caption.nouns):
        return False
    return any(
        hit.phrase.noun is not None and hit.phrase.noun.lemma in nouns and not start <= hit.start < end for hit in caption.hits
    )


def present(caption: Caption, group: Group) -> dict[int, list[Hit]]:
    """The hits of every meaning of a group that occurs in a caption."""
    found: dict[int, list[Hit]] = {}
    for hit in caption.hits:
        entry = next((entry for entry in hit.phrase.entries if entry.group is group), None)
        if entry is not None:
            found.setdefault(entry.meaning, []).append(hit)
    return found


def others(caption: Caption, entry: Entry) -> list[Other]:
    """The words of the group with another meaning that the caption does not use already."""
    used = present(caption, entry.group)
    return [other for other in entry.others if other.meaning not in used and other.text not in caption.known]


def is_single(caption: Caption, entry: Entry) -> bool:
    """True if the caption speaks of this meaning once: an exchange in one of two places would contradict itself."""
    return len(present(caption, entry.group)[entry.meaning]) == 1


def suited(phrase: NounPhrase, lemma: str) -> bool:
    """True if the adjectives of a noun phrase suit another noun; what is strange for the old one may be so for the new one."""
    for hit in phrase.adjectives:
        natural, possible = suits()[hit.phrase.adjective]
        if lemma not in (natural if phrase.noun.lemma in natural else possible):
            return False
    return True


# content


def is_free(caption: Caption, phrase: NounPhrase, group: Group) -> bool:
    """True if nothing around a noun phrase ties its noun, such as "slice of" or "plays the"."""
    before, after = caption.word(phrase.start - 1), caption.word(phrase.end)
    if after in ("of", "made") or after == "with" and group.kind not in FREE_WITH:
        return False
    if group.after:
        return (before or "^") in group.after.split()
    if before in NO_OBJECTS:
        return False
    if before is None or not before[0].isalpha() or before in grammar.CONJUNCTIONS or before in AUXILIARIES:
        return True
    if before == "of":
        whole = caption.word(phrase.start - 2)
        return whole in WHOLES or whole in COLLECTIVES
    if before in PREPOSITIONS:
        return caption.word(phrase.start - 2) not in TIED_WITH or before != "with"
    return before in object_verbs() or before in verb_forms(group.verbs)


FREE_WITH = frozenset(
    ["person", "child", "pet", "worker", "hero", "dish from the hand", "bowl dish", "livestock", "royal", "machine man"]
)
TIED_WITH = frozenset("covered filled topped made decorated painted dressed".split())


def noun_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    phrase = caption.noun_phrase(hit)
    if phrase is None or phrase.compound:
        return
    for entry in entries:
        group = entry.group
        if entry.tag != phrase.noun.tag:
            continue
        if guarded(caption, group, hit.start, hit.end) or not is_free(caption, phrase, group):
            continue
        hits = present(caption, group)[entry.meaning]
        phrases = [caption.noun_phrase(other) for other in hits]
        if len(hits) > 2 or None in phrases or any(each.compound for each in phrases) or possessive(caption, hits):
            continue
        before = caption.word(phrase.start - 1)
        collective = COLLECTIVES.get(caption.word(phrase.start - 2)) if before == "of" else None
        for other in others(caption, entry):
            if collective is not None and other.lemma not in collective:
                continue
            if all(suited(each, other.lemma) for each in phrases):
                yield tuple(
                    Replacement(each.head.start, each.end, form_like(each, group, other.lemma)) for each in phrases
                )


def gender_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    """ "A man with his dog" becomes "a woman with her dog", if the caption speaks of one person only."""
    word = caption.words[hit.start]
    spots = [index for index, each in enumerate(caption.words) if each in PRONOUNS]
    people = [each for each in caption.hits if each.phrase.noun and each.phrase.noun.lemma in resolve("@human")]
    if word not in lexicon.SEXES or len(spots) != 1 or people != [hit] or not SEXED.isdisjoint(caption.known):
        return
    pronoun, after = caption.words[spots[0]], caption.word(spots[0] + 1)
    new = lexicon.PRONOUNS.get(pronoun) or (None if pronoun != "her" else "him" if grammar.ends_noun(after) else "his")
    phrase = caption.noun_phrase(hit)
    if new is not None and phrase is not None and not phrase.compound and not possessive(caption, [hit]):
        yield Replacement(hit.start, hit.end, lexicon.SEXES[word]), Replacement(spots[0], spots[0] + 1, new)


def possessive(caption: Caption, hits: list[Hit]) -> bool:
    """True if the caption has "cat's" beside "cat"."""
    return any(f"{caption.words[hit.end - 1]}{sign}" in caption.known for hit in hits for sign in ("'s", "’s"))


def form_like(phrase: NounPhrase, group: Group, lemma: str) -> str:
    """Another noun of a group in the number of a noun phrase."""
    return next(
        other.text
        for entry in phrase.head.phrase.entries
        for other in entry.others
        if entry.group is group and entry.tag == phrase.noun.tag and other.lemma == lemma
    )


def counts_again(caption: Caption) -> bool:
    """True if the caption counts its things a second time, or says what only two can do."""
    text = " ".join(caption.words)
    if not COUNTING.isdisjoint(caption.known) or any(phrase in text for phrase in TWO_ONLY):
        return True
    return any(word in ("one", "ones") and following != "of" for word, following in zip(caption.words, [*caption.words[1:], ""], strict=True))


def new_numbers(value: int) -> list[int]:
    if value <= 6:
        return [number for number in range(2, 8) if number != value]
    if value <= 12:
        return [number for number in range(3, 13) if abs(number - value) > 1]
    return [number for number in (10, 20, 30, 40, 50) if abs(number - value) > 5]


def number_options(caption: Caption, index: int) -> Iterator[Option]:
    """Another number before a plural noun."""
    word = caption.words[index]
    value = NUMBERS[word]
    if value < 2 or value > 60 or counts_again(caption):
        return
    before = caption.word(index - 1)
    if before in ("at", "-", ".", "/", "#", "no", ":", "size", "to", "$", "about", "type", "chapter", "or", "and", "between") and (
        before != "and" or caption.word(index - 2) in NUMBERS
    ):
        return
    if before == "of" and caption.word(index - 2) not in ("set", "group", "pack", "row", "family", "photo"):
        return
    if plural_after(caption, index + 1):
        for number in new_numbers(value):
            yield (Replacement(index, index + 1, str(number) if word.isdigit() else NUMBER_WORDS[number]),)


def plural_after(caption: Caption, index: int) -> bool:
    """True if a noun in the plural follows, perhaps after words that may be its adjectives."""
    for place in range(index, index + 4):
        word = caption.word(place)
        if word is None or not word.isalpha() or word in DETERMINERS or word in PREPOSITIONS or word in AUXILIARIES:
            return False
        if word in UNITS:
            return False
        hit = caption.starting.get(place)
        if hit is not None and hit.phrase.noun and hit.phrase.noun.tag == "NNS" and caption.word(hit.end) not in UNITS:
            if grammar.ends_noun(caption.word(hit.end), True):
                return True
        if grammar.singular_of(word) and grammar.ends_noun(caption.word(place + 1), True):
            return True
    return False


def several_options(caption: Caption, index: int) -> Iterator[Option]:
    """ "Several boats" becomes "two boats", "a couple of dogs" becomes "five dogs"."""
    word = caption.words[index]
    if word == "couple":
        if caption.word(index - 1) == "a" and caption.word(index + 1) == "of" and plural_after(caption, index + 2):
            if COUNTING & caption.known == {"couple"}:
                for number in (4, 5, 6, 7):
                    yield (Replacement(index - 1, index + 2, NUMBER_WORDS[number]),)
    elif word == "group":
        if caption.word(index + 1) == "of" and not counts_again(caption):
            yield from group_options(caption, index)
    elif plural_after(caption, index + 1) and not counts_again(caption) and caption.word(index - 1) not in DETERMINERS:
        yield (Replacement(index, index + 1, "two"),)


def group_options(caption: Caption, index: int) -> Iterator[Option]:
    """ "A group of friends sits" becomes "two friends sit"."""
    phrase = caption.noun_phrase_at(index + 2)
    if phrase is None or phrase.noun.tag != "NNS" or phrase.determiner or phrase.number is not None:
        return
    verb, start = agreement(caption, phrase), index - (caption.word(index - 1) == "a")
    if verb is not None and caption.word(start - 1) in (None, ".", "of"):
        yield (Replacement(start, index + 2, "two"), *verb)


def more_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    """ "A dog is sitting" becomes "three dogs are sitting"."""
    phrase = caption.noun_phrase(hit)
    if phrase is None or phrase.noun.tag != "NN" or phrase.noun.group.grammar != "noun":
        return
    if phrase.determiner not in ("a", "an") or phrase.noun.lemma not in resolve(lexicon.MANY):
        return
    after = caption.word(phrase.end)
    if after == "with" or after == "and" and caption.word(phrase.end + 1) not in DETERMINERS:
        return
    lemma = phrase.noun.lemma
    if caption.known & (PRONOUNS | COUNTING) or grammar.plural(lemma) in caption.known or is_repeated(caption, phrase):
        return
    before = caption.word(phrase.start - 1)
    changes = [Replacement(hit.start, hit.end, grammar.plural(lemma))]
    if before is None or before in ".":
        verb = agreement(caption, phrase)
    elif before in ("is", "was") and caption.word(phrase.start - 2) == "there":
        changes.append(Replacement(phrase.start - 1, phrase.start, PLURAL_OF_AUXILIARY[before]))
        verb = agreement(caption, phrase)
    else:
        verb = [] if may_be_several(caption, phrase, before) else None
    if verb is None:
        return
    for number in (2, 3, 4, 5) if lemma not in resolve("@big @vehicle") else (2, 3, 4):
        yield (Replacement(phrase.start, phrase.start + 1, NUMBER_WORDS[number]), *changes, *verb)


def is_repeated(caption: Caption, phrase: NounPhrase) -> bool:
    """True if the noun occurs once more, or if somebody uses one thing, which three would not use together."""
    same = [hit for hit in caption.hits if hit.phrase.noun and hit.phrase.noun.lemma == phrase.noun.lemma]
    if len(same) > 1 or not SINGLE.isdisjoint(phrase.neutral):
        return True
    tied = not SOLO.isdisjoint(caption.known) or caption.nouns & resolve(lexicon.ALONE) - {phrase.noun.lemma}
    return phrase.noun.lemma in resolve("@human @animal") and bool(tied)


def may_be_several(caption: Caption, phrase: NounPhrase, before: str) -> bool:
    """True if there may as well be several of a thing that stands after another word than a verb with it as subject."""
    if not all(word in ".,;" or word in ENDS_CLAUSE for word in [caption.word(phrase.end) or "."]):
        return False
    if before in ("and", ",", "with"):
        return caption.word(phrase.start - 2) not in TIED_WITH
    if before == "of":
        return caption.word(phrase.start - 2) in ("photo", "picture", "painting", "sketch", "drawing", "photograph", "image")
    return before in verb_forms("hold carry see watch find paint draw photograph")


ENDS_CLAUSE = frozenset("on in and at".split())


def agreement(caption: Caption, phrase: NounPhrase) -> list[Replacement] | None:
    """The changes to verbs that a subject in the plural asks for; `None` if they are not clear."""
    changes, index = [], phrase.end
    word = caption.word(index)
    if word in AUXILIARIES:
        if word not in PLURAL_OF_AUXILIARY:
            return None
        changes.append(Replacement(index, index + 1, PLURAL_OF_AUXILIARY[word]))
        index += 1
    elif word is not None and grammar.is_third_person(word) and not grammar.ends_any_noun(word):
        base = grammar.base_form(word)
        if base is None:
            return None
        changes.append(Replacement(index, index + 1, base))
        index += 1
    return None if later_verb(caption, index) else changes


def later_verb(caption: Caption, start: int) -> bool:
    """True if a verb that agrees with a singular subject may follow in the same sentence."""
    for index in range(start, len(caption.words)):
        word = caption.words[index]
        if word in ".;":
            return False
        if word in PLURAL_OF_AUXILIARY or word in ("that", "who", "which", "while", "each"):
            return True
        if word.endswith("s") and grammar.is_third_person(word):
            hit = caption.ending.get(index + 1)
            if hit is None or caption.noun_phrase(hit) is None:
                return True
    return False


# attribute


def adjective_head(caption: Caption, hit: Hit) -> str | None:
    """The noun that an adjective belongs to, before it or before "is"."""
    left, right = caption.word(hit.start - 1), caption.word(hit.end)
    index, shade = hit.start - 1, False
    if left in SHADE_COLOURS:
        index -= 1
    if caption.word(index) in BE and grammar.ends_noun(right) and right != "with":
        if right == "and" or caption.word(index) == "looks":
            return None
        index -= 1 if caption.word(index) not in ("painted", "dyed") or caption.word(index - 1) not in BE else 2
        subject = caption.ending.get(index + 1)
        phrase = caption.noun_phrase(subject) if subject is not None else None
        return phrase.noun.lemma if phrase else None
    place = hit.end
    for _ in range(4):
        follower = caption.starting.get(place)
        if follower is not None and follower.phrase.noun and (phrase := caption.noun_phrase(follower)):
            inside = phrase.adjectives and any(each.start == hit.start for each in phrase.adjectives)
            return phrase.noun.lemma if inside else None
        if follower is not None and follower.phrase.adjective:
            place = follower.end
        elif caption.word(place) in lexicon_neutral() or caption.word(place) == "and":
            place += 1
        else:
            return None
    return None


@lru_cache(maxsize=1)
def lexicon_neutral() -> frozenset[str]:
    return word_set(lexicon.ADJECTIVES) | SHADES.keys()


def adjective_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    head = adjective_head(caption, hit)
    if head is None:
        return
    shade = SHADE_COLOURS.get(caption.word(hit.start - 1))
    for entry in entries:
        group = entry.group
        if head not in resolve(group.of) or guarded(caption, group, hit.start, hit.end) or not is_single(caption, entry):
            continue
        if group.alone and has_more_adjectives(caption, hit):
            continue
        beside = heads_of(caption, group)
        for other in entry.others:
            if (shade is None or other.text in shade) and head not in beside.get(other.meaning, ()):
                yield (Replacement(hit.start, hit.end, other.text),)
        return


def heads_of(caption: Caption, group: Group) -> dict[int, set[str | None]]:
    """The nouns that the adjectives of a group belong to, for every meaning that occurs."""
    return {meaning: {adjective_head(caption, hit) for hit in hits} for meaning, hits in present(caption, group).items()}


def has_more_adjectives(caption: Caption, hit: Hit) -> bool:
    neighbours = (caption.ending.get(hit.start), caption.starting.get(hit.end))
    return any(other is not None and other.phrase.adjective and not (other.start == hit.end and caption.noun_phrase(other)) for other in neighbours)


def exchange_options(caption: Caption, first: Hit, second: Hit) -> Iterator[Option]:
    """Two adjectives change places: "a red cube and a blue ball" becomes "a blue cube and a red ball"."""
    heads = adjective_head(caption, first), adjective_head(caption, second)
    if None in heads or heads[0] == heads[1]:
        return
    texts = [" ".join(caption.words[hit.start : hit.end]) for hit in (first, second)]
    if len({grammar.article(text.split()[0]) for text in texts}) > 1 and {"a", "an"} & caption.known:
        return
    for one in first.phrase.by_principle["attribute"]["adjective"]:
        for two in second.phrase.by_principle["attribute"]["adjective"]:
            if one.group is not two.group or one.meaning == two.meaning or not (is_single(caption, one) and is_single(caption, two)):
                continue
            fits = resolve(one.group.of)
            shades = [SHADE_COLOURS.get(caption.word(hit.start - 1)) for hit in (first, second)]
            if any(shade is not None and text not in shade for shade, text in zip(shades, reversed(texts), strict=True)):
                continue
            if all(head in fits for head in heads) and not guarded(caption, one.group, first.start, second.end):
                yield (Replacement(first.start, first.end, texts[1]), Replacement(second.start, second.end, texts[0]))
                return


# spatial


def subjects(caption: Caption, index: int) -> Iterator[str]:
    """Who or what stands before an index: the nearest noun, and the one before it if the nearest is only worn or held."""
    if caption.word(index - 1) == "while":
        human = {noun for noun in caption.nouns if noun in resolve("@human")}
        yield from human if len(human) == 1 else ()
        return
    for _ in range(3):
        if caption.word(index - 1) in PERSONAL:
            yield caption.word(index - 1)
            return
        if caption.word(index - 1) in ("who", "that", "which", "to"):
            index -= 1
        hit = caption.ending.get(index)
        phrase = caption.noun_phrase(hit) if hit is not None else None
        if phrase is None:
            return
        before, whole = caption.word(phrase.start - 1), caption.word(phrase.start - 2)
        if before == "of" and whole in FIGURES | HOLDERS:
            index = phrase.start - 1
            continue
        yield phrase.noun.lemma
        if before not in ("in", "with", "wearing", "holding", "carrying") or phrase.noun.lemma in resolve("@human @animal"):
            return
        index = phrase.start - 1


HOLDERS = frozenset("glass cup bowl plate basket vase pile stack bottle jar box bucket".split())
FIGURES = frozenset("statue sculpture bust figurine slice piece".split())


def before_verb(caption: Caption, index: int, verbs: frozenset[str]) -> int:
    """Index after the subject of a verb phrase that ends before an index."""
    for _ in range(4):
        word = caption.word(index - 1)
        if word is None:
            break
        if word in verbs or word in AUXILIARIES or word == "open" or grammar.is_adverb(word) and word not in ("left", "right", "not"):
            index -= 1
        else:
            break
    return index


def relation_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    landmark = landmark_after(caption, hit.end)
    if landmark is None or caption.word(hit.start - 1) in ("from", "not"):
        return
    place = before_verb(caption, hit.start, verb_forms(f"{STANDING} {MOVING}"))
    figures = list(subjects(caption, place))
    if figures and is_in_phrase(caption, place):
        return
    begins = caption.word(hit.start - 1) in (None, ".") and landmark in ("it", "him", "her", "them")
    for entry in entries:
        group = entry.group
        if landmark not in resolve(group.of) or guarded(caption, group, hit.start, hit.end) or not is_single(caption, entry):
            continue
        if group.by:
            by = resolve(group.by)
            if not any(figure in by for figure in figures) or landmark in figures:
                continue
        elif caption.word(hit.start - 1) not in verb_forms(MOVING) and not figures and not begins:
            continue
        for other in others(caption, entry):
            yield (Replacement(hit.start, hit.end, other.text),)


def is_object(caption: Caption, index: int) -> bool:
    """True if the noun before an index stands after a preposition: "a horse" in "a man on a horse"."""
    hit = caption.ending.get(index)
    phrase = caption.noun_phrase(hit) if hit is not None else None
    return phrase is not None and caption.word(phrase.start - 1) in PREPOSITIONS - {"of", "with", "in", "like"}


def landmark_after(caption: Caption, index: int) -> str | None:
    """The thing, or the pronoun, that follows a preposition."""
    word, after = caption.word(index), caption.word(index + 1)
    if word in ("it", "him", "her", "them") and (after is None or grammar.ends_noun(after) or after in DETERMINERS):
        return word
    phrase = caption.noun_phrase_at(index)
    if phrase is None or caption.word(phrase.end) == "of" and phrase.noun.lemma not in HOLDERS:
        return None
    if phrase.determiner is None and phrase.number is None and not caption.headline and phrase.noun.tag != "NNS":
        return None
    return phrase.noun.lemma


def is_in_phrase(caption: Caption, index: int) -> bool:
    """True if the noun before an index is no subject but belongs to a preposition: "on a couch" in "a dog on a couch"."""
    hit = caption.ending.get(index)
    phrase = caption.noun_phrase(hit) if hit is not None else None
    if phrase is None:
        return False
    before, lemma = caption.word(phrase.start - 1), phrase.noun.lemma
    return before in PREPOSITIONS and before not in ("of", "with") and lemma not in resolve("@human @animal @wear hair beard")


def verb_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    place = before_verb(caption, hit.start, frozenset())
    figures = list(subjects(caption, place)) if not is_object(caption, place) else []
    after = caption.word(hit.end)
    for entry in entries:
        group = entry.group
        if guarded(caption, group, hit.start, hit.end) or not is_single(caption, entry):
            continue
        if group.by and not any(figure in resolve(group.by) for figure in figures):
            continue
        if caption.word(hit.start - 1) in DETERMINERS:
            continue
        if group.of:
            goal = caption.noun_phrase_at(hit.end)
            if goal is None or goal.noun.lemma not in resolve(group.of):
                continue
        elif after in ("up", "down", "out", "off", "over", "through", "past") or not grammar.ends_noun(after):
            continue
        if entry.tag == "VB" and caption.word(place - 1) != "to" and not plural_subject(caption, place):
            continue
        for other in others(caption, entry):
            yield (Replacement(hit.start, hit.end, other.text),)


def plural_subject(caption: Caption, index: int) -> bool:
    """True if a noun in the plural stands before an index, so that "sit" there is a verb in the present tense."""
    if caption.word(index - 1) == "they":
        return True
    hit = caption.ending.get(index)
    return hit is not None and hit.phrase.noun is not None and hit.phrase.noun.tag == "NNS"


def in_and_out_options(caption: Caption, index: int) -> Iterator[Option]:
    """ "Puts a tray into the oven" becomes "takes a tray out of the oven", and the other way round."""
    for place in range(index - 1, max(-1, index - 7), -1):
        word = caption.words[place]
        if word in PUT and caption.words[index] == "into":
            yield Replacement(place, place + 1, PUT[word]), Replacement(index, index + 1, "out of")
        elif word in TAKE and caption.words[index] == "out" and caption.word(index + 1) == "of":
            yield Replacement(place, place + 1, TAKE[word]), Replacement(index, index + 2, "into")
        if word in PUT or word in TAKE or word in PREPOSITIONS and word != "of" or not word[0].isalpha():
            return


PUT = {"putting": "taking", "puts": "takes", "placing": "taking", "places": "takes"}
TAKE = {"taking": "putting", "takes": "puts", "pulling": "putting", "pulls": "puts"}


def side_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """All of "left" and "right" change places, if they stand in at most two spots."""
    for entry in entries:
        group = entry.group
        spots = sorted({each for hits in present(caption, group).values() for each in hits})
        words = {word for meaning in group.words.split("|") for word in meaning.split()}
        if len(spots) > 2 or sum(word in words for word in caption.words) != len(spots) or spots[0] != hit:
            continue
        if not all(is_side(caption, each, group) for each in spots):
            continue
        if guarded(caption, group, spots[0].start, spots[-1].end):
            continue
        changes = []
        for each in spots:
            own = next(e for e in each.phrase.entries if e.group is group)
            changes.append(Replacement(each.start, each.end, own.others[0].text))
        yield tuple(changes)


def is_side(caption: Caption, hit: Hit, group: Group) -> bool:
    before, after = caption.word(hit.start - 1), caption.word(hit.end)
    if before not in group.after.split():
        return False
    return after in group.of.split() or ("@end" in group.of and grammar.ends_noun(after))


# contextual


def place_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """ "In a dense forest" becomes "on the beach"."""
    phrase = caption.noun_phrase(hit)
    if phrase is None or phrase.number is not None or caption.word(hit.end) == "of":
        return
    if phrase.determiner not in ("a", "an", "the") and not (phrase.determiner is None and caption.headline):
        return
    before = "in" if caption.word(phrase.start - 1) == "inside" else caption.word(phrase.start - 1)
    for entry in entries:
        if entry.lemma.split()[0] != before or guarded(caption, entry.group, phrase.start - 1, hit.end):
            continue
        if is_single(caption, entry):
            for other in others(caption, entry):
                yield (Replacement(phrase.start - 1, hit.end, with_article(other.lemma, phrase.determiner)),)


def with_article(place: str, article: str | None) -> str:
    """ "in a park" with another article, or none in a headline."""
    preposition, own, noun = place.split(" ", 2)
    if article is None:
        return f"{preposition} {noun}"
    if article == "the" or own == "the":
        return f"{preposition} the {noun}"
    return f"{preposition} {grammar.article(noun)} {noun}"


def phrase_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    for entry in entries:
        if len(present(caption, entry.group)) > 1 or guarded(caption, entry.group, hit.start, hit.end):
            continue
        if is_single(caption, entry):
            for other in others(caption, entry):
                yield (Replacement(hit.start, hit.end, other.text),)


def item_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    if all(word is None or word in ",;.|()" for word in (caption.word(hit.start - 1), caption.word(hit.end))):
        yield from phrase_options(caption, hit, entries)


MAKERS = {
    "noun": noun_options,
    "plural": noun_options,
    "mass": noun_options,
    "adjective": adjective_options,
    "relation": relation_options,
    "verb": verb_options,
    "side": side_options,
    "place": place_options,
    "phrase": phrase_options,
    "item": item_options,
}


def candidates(caption: Caption, principle: str) -> Iterator[tuple]:
    """Where a caption might change by one principle: functions and their arguments."""
    for hit in caption.hits:
        for kind, entries in hit.phrase.by_principle.get(principle, {}).items():
            yield MAKERS[kind], (caption, hit, entries)
    if principle == "content":
        for hit in caption.hits:
            if hit.phrase.noun is not None and caption.word(hit.start - 1) is not None:
                yield more_options, (caption, hit)
            if caption.words[hit.start] in lexicon.SEXES and not PRONOUNS.isdisjoint(caption.known):
                yield gender_options, (caption, hit)
        for index, word in enumerate(caption.words):
            if word in NUMBERS:
                yield number_options, (caption, index)
            elif word in ("several", "many", "couple", "group"):
                yield several_options, (caption, index)
    elif principle == "spatial":
        for index, word in enumerate(caption.words):
            if word in ("into", "out"):
                yield in_and_out_options, (caption, index)
    elif principle == "attribute":
        adjectives = [hit for hit in caption.hits if "adjective" in hit.phrase.by_principle.get(principle, ())]
        for first, second in zip(adjectives, adjectives[1:], strict=False):
            yield exchange_options, (caption, first, second)
