"""Edits of what things are like."""

from collections.abc import Iterator

from ..language import grammar
from ..language.caption import Caption, Hit, Replacement
from ..language.index import Entry, resolve
from ..language.lexicon import Group
from .sites import SHADE_COLOURS, Option, is_guarded, is_single


BE = frozenset("is are was were painted coloured colored dyed".split())
PAINTED = frozenset("painted coloured colored dyed".split())


def head(caption: Caption, hit: Hit) -> str | None:
    """The noun that an adjective belongs to: it stands after the adjective, or before "is" and the adjective."""
    after = caption.word(hit.end)
    verb = hit.start - 1 - (caption.word(hit.start - 1) in SHADE_COLOURS)
    if caption.word(verb) in BE and grammar.ends_noun(after):
        is_painted = caption.word(verb) in PAINTED and caption.word(verb - 1) in BE
        phrase = caption.noun_phrase_before(verb - is_painted) if after not in ("and", "with") else None
        return phrase.noun.lemma if phrase is not None else None
    for place in range(hit.end, hit.end + 5):
        follower = caption.starting.get(place)
        phrase = caption.noun_phrase(follower) if follower is not None else None
        if phrase is not None:
            return phrase.noun.lemma if hit in phrase.adjectives else None
    return None


def adjective_options(caption: Caption, hit: Hit, entries: tuple[Entry, ...]) -> Iterator[Option]:
    """Another adjective that suits the same noun."""
    noun = head(caption, hit)
    entry = next((entry for entry in entries if noun in resolve(entry.group.of)), None)
    if entry is None or not is_single(caption, entry) or is_guarded(caption, entry.group, hit.start, hit.end):
        return
    if entry.group.alone and has_more_adjectives(caption, hit):
        return
    used = heads_of(caption, entry.group)
    for other in entry.others:
        if noun not in used.get(other.meaning, ()) and fits_shade(caption, hit, other.text):
            yield (Replacement(hit.start, hit.end, other.text),)


def fits_shade(caption: Caption, hit: Hit, colour: str) -> bool:
    """False for a colour such as "white" after "dark"."""
    shade = caption.word(hit.start - 1)
    return shade not in SHADE_COLOURS or colour in SHADE_COLOURS[shade]


def heads_of(caption: Caption, group: Group) -> dict[int, set[str | None]]:
    """The nouns that the adjectives of a group belong to, for every meaning that occurs."""
    return {meaning: {head(caption, hit) for hit in hits} for meaning, hits in caption.meanings(group).items()}


def has_more_adjectives(caption: Caption, hit: Hit) -> bool:
    """True if another adjective stands right before or after one."""
    before, after = caption.ending.get(hit.start), caption.starting.get(hit.end)
    if before is not None and before.phrase.adjective:
        return True
    return after is not None and after.phrase.adjective is not None and caption.noun_phrase(after) is None


def exchange_options(caption: Caption, first: Hit, second: Hit) -> Iterator[Option]:
    """Two adjectives change places: "a red cube and a blue ball" becomes "a blue cube and a red ball"."""
    nouns = head(caption, first), head(caption, second)
    texts = [" ".join(caption.words[hit.start : hit.end]) for hit in (first, second)]
    if None in nouns or nouns[0] == nouns[1] or len({grammar.article(text.split()[0]) for text in texts}) > 1:
        return
    if not (fits_shade(caption, first, texts[1]) and fits_shade(caption, second, texts[0])):
        return
    seconds = {entry.group: entry for entry in second.phrase.by_principle["attribute"]["adjective"]}
    for one in first.phrase.by_principle["attribute"]["adjective"]:
        two = seconds.get(one.group)
        if two is None or one.meaning == two.meaning or not resolve(one.group.of).issuperset(nouns):
            continue
        if not (is_single(caption, one) and is_single(caption, two)):
            continue
        if not is_guarded(caption, one.group, first.start, second.end):
            yield Replacement(first.start, first.end, texts[1]), Replacement(second.start, second.end, texts[0])
            return
