"""Edits of where things are and how they move."""

from collections.abc import Iterator

from ..language import grammar, lexicon
from ..language.caption import Caption, Hit, Replacement
from ..language.grammar import DETERMINERS
from ..language.index import Entry, resolve
from ..language.lexicon import Group
from .sites import HELD_BY, Option, is_after_preposition, is_guarded, is_single, others, start_of_verb, subjects


OBJECT_PRONOUNS = frozenset("it him her them".split())
PARTICLES = frozenset("up down out off over through past".split())
BELONGING = frozenset("of with".split())
GROUNDS = "foreground or background"


def relation_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """Another preposition between something and a landmark."""
    landmark, before = landmark_after(caption, hit.end), caption.word(hit.start - 1)
    is_agent = caption.words[hit.start] == "by" and before is not None and grammar.is_participle(before)
    if landmark is None or before in ("from", "not"):
        return
    if is_agent and before is not None and not before.endswith("ing"):
        return
    place = start_of_verb(caption, hit.start, grammar.verb_forms(f"{lexicon.STANDING} {lexicon.MOVING}"))
    figures = set(subjects(caption, place))
    if figures and is_after_preposition(caption, place, BELONGING) and figures.isdisjoint(resolve(lexicon.LOOSE)):
        return
    is_beginning = before in (None, ".") and landmark in OBJECT_PRONOUNS
    for entry in entries:
        group = entry.group
        if group.by:
            fits = landmark not in figures and not figures.isdisjoint(resolve(group.by))
        else:
            fits = figures or is_beginning or before in grammar.verb_forms(lexicon.MOVING)
        if not fits or landmark not in resolve(group.of) or not is_single(caption, entry):
            continue
        if not is_guarded(caption, group, hit.start, hit.end):
            for other in others(caption, entry):
                yield (Replacement(hit.start, hit.end, other.text),)


def landmark_after(caption: Caption, index: int) -> str | None:
    """The thing, or the pronoun, that follows a preposition."""
    word, after = caption.word(index), caption.word(index + 1)
    if word in OBJECT_PRONOUNS and (grammar.ends_noun(after) or after in DETERMINERS):
        return word
    phrase = caption.noun_phrase_at(index)
    if phrase is None or caption.word(phrase.end) == "of" and phrase.noun.lemma not in HELD_BY:
        return None
    is_bare = phrase.determiner is None and phrase.number is None and phrase.noun.tag != "NNS"
    return None if is_bare and not caption.is_headline else phrase.noun.lemma


def verb_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """Another pose or motion of the same subject."""
    place = start_of_verb(caption, hit.start, frozenset())
    is_object = is_after_preposition(caption, place, BELONGING | {"in", "like"})
    figures = set() if is_object else set(subjects(caption, place))
    after, target = caption.word(hit.end), caption.noun_phrase_at(hit.end)
    if caption.word(hit.start - 1) in DETERMINERS:
        return
    for entry in entries:
        group = entry.group
        if group.by and figures.isdisjoint(resolve(group.by)) or not is_single(caption, entry):
            continue
        if group.of and (target is None or target.noun.lemma not in resolve(group.of)):
            continue
        if not group.of and (after in PARTICLES or not grammar.ends_noun(after)):
            continue
        if entry.tag == "VB" and caption.word(place - 1) != "to" and not has_plural_before(caption, place):
            continue
        if not is_guarded(caption, group, hit.start, hit.end):
            for other in others(caption, entry):
                yield (Replacement(hit.start, hit.end, other.text),)


def has_plural_before(caption: Caption, index: int) -> bool:
    """True if a noun in the plural stands before an index, so that "sit" there is a verb in the present tense."""
    hit = caption.ending.get(index)
    return caption.word(index - 1) == "they" or hit is not None and "NNS" in hit.phrase.nouns


def side_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """All of "left" and "right" change places, if they stand in at most two spots."""
    for entry in entries:
        group = entry.group
        spots = sorted(
            (each for hits in caption.meanings(group).values() for each in hits), key=lambda each: each.start
        )
        words = group.words.replace("|", " ").split()
        if len(spots) > 2 or sum(word in words for word in caption.words) > len(spots) or spots[0] != hit:
            continue
        is_clear = all(is_side(caption, each, group) for each in spots)
        if is_clear and not is_guarded(caption, group, spots[0].start, spots[-1].end):
            own = {each: next(e for e in each.phrase.entries if e.group is group) for each in spots}
            yield tuple(Replacement(each.start, each.end, own[each].others[0].text) for each in spots)


def is_side(caption: Caption, hit: Hit, group: Group) -> bool:
    """True if "left" or the like says where something is, from the words beside it."""
    if group.kind == GROUNDS and not is_movable(caption, hit):
        return False
    after = caption.word(hit.end)
    is_end = "@end" in group.of and grammar.ends_noun(after)
    return caption.word(hit.start - 1) in group.after.split() and (is_end or after in group.of.split())


def is_movable(caption: Caption, hit: Hit) -> bool:
    """True if what is "in the background" may as well be in the foreground: no sky, no mountains."""
    after = caption.noun_phrase_at(hit.end + 1) if caption.word(hit.end) == "," else None
    figures = {after.noun.lemma} if after is not None else set(subjects(caption, hit.start - 2))
    return bool(figures) and figures <= resolve("@human @animal @vehicle @thing")
