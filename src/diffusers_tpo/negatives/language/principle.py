"""Says which principles an edited caption may follow, as far as the lexicon knows what its words are."""

from .caption import Caption, Hit
from .grammar import DETERMINERS, PREPOSITIONS
from .index import resolve
from .lexicon import NUMBERS
from .places import places


POSITIONS = (PREPOSITIONS | frozenset("top bottom left right front back side foreground".split())) - frozenset(
    "of with without like as for during".split()
)
FILLERS = DETERMINERS | {"of"}
COUNTS = NUMBERS.keys() | {"several", "many", "few"}
BEINGS = "@human @animal @vehicle"


def possible_principles(prompt: str, edited: str) -> frozenset[str] | None:
    """The principles of which at least one is that of every change between two captions; `None` if it cannot be told."""
    before, after = Caption(prompt), Caption(edited)
    found: frozenset[str] | None = None
    for place in places(before.words, after.words):
        here = _principles(before, after, place.before, place.after)
        if here is None:
            return None
        found = here if found is None else found | here
    return found


def _principles(before: Caption, after: Caption, old: tuple[int, int], new: tuple[int, int]) -> frozenset[str] | None:
    """The principles that one change may follow, `None` if its words do not tell."""
    words = {*before.words[slice(*old)], *after.words[slice(*new)]} - FILLERS
    if words and words <= COUNTS:
        return frozenset(("content",))
    if words and words <= POSITIONS and old[0] < old[1] and new[0] < new[1]:
        return frozenset(("spatial",))
    first, second = _hit_at(before, old), _hit_at(after, new)
    if first is None or second is None:
        return None
    beings = resolve(BEINGS)
    if first.phrase.noun in beings and second.phrase.noun in beings:
        return frozenset(("content",))
    if first.phrase.adjective is not None and second.phrase.adjective is not None:
        groups = {entry.group for entry in first.phrase.entries} & {entry.group for entry in second.phrase.entries}
        principles = frozenset(group.principle for group in groups)
        if "attribute" in principles:
            return principles if _describes_scene(before, first) else frozenset(("attribute",))
    return None


def _hit_at(caption: Caption, span: tuple[int, int]) -> Hit | None:
    """What the lexicon knows of exactly the words of a change, articles apart."""
    start, end = span
    while start < end and caption.words[start] in FILLERS:
        start += 1
    return next((hit for hit in caption.hits if (hit.start, hit.end) == (start, end)), None)


def _describes_scene(caption: Caption, hit: Hit) -> bool:
    """True if what follows an adjective is no thing of its own: the sky, the light, a background."""
    following = caption.starting.get(hit.end)
    return following is None or following.phrase.noun not in resolve(f"{BEINGS} @thing @coloured @sized")
