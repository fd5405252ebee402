"""Edits captions by rules and a lexicon, without any model: where it finds nothing safe to exchange, it says so."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from ..asking import Wanted
from ..editors import EditRequest, Edits
from ..language.caption import Caption, find_hits
from ..language.lexicon import COLOURS, NUMBERS, OPPOSITES, RELATIONS_ANYWHERE, SEXES
from ..language.words import LONGEST_CAPTION, TOKEN
from .anywhere import (
    artist_options,
    colour_options,
    count_anywhere_options,
    name_options,
    opposite_options,
    relation_anywhere_options,
)
from .attribute import adjective_options, exchange_options
from .content import group_options, more_options, noun_options, number_options, several_options, sex_options
from .contextual import place_options, scene_options
from .sites import Option, item_options, phrase_options, tail_options
from .spatial import relation_options, side_options, verb_options


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
    "tail": tail_options,
    "name": name_options,
    "artist": artist_options,
}
WORD_MAKERS = {
    "content": dict.fromkeys(NUMBERS, number_options)
    | dict.fromkeys(("several", "many", "couple"), several_options)
    | {"group": group_options},
    "spatial": {},
    "attribute": {},
    "contextual": {},
}
ANYWHERE = {
    "attribute": dict.fromkeys(OPPOSITES, opposite_options) | dict.fromkeys(COLOURS.split(), colour_options),
    "spatial": dict.fromkeys(RELATIONS_ANYWHERE, relation_anywhere_options),
    "content": dict.fromkeys(("a", "an"), count_anywhere_options),
    "contextual": dict.fromkeys(("in", "on", "at", "inside"), scene_options),
}
MAX_CANDIDATES = 200  # places of one caption that are looked at; only lists of keywords have more
DRAWS = 8  # edits drawn to find one that the row has not yet
LEAST_ROOM = 4  # words that may change in a short caption; in a long one it is half of them

Candidate = tuple[Callable[..., Iterator[Option]], tuple]  # a function and what it is called with


def candidates(caption: Caption, principle: str) -> Iterator[Candidate]:
    """Where a caption might change by one principle."""
    for hit in caption.hits:
        for kind, entries in hit.phrase.by_principle.get(principle, {}).items():
            yield MAKERS[kind], (caption, hit, entries)
        if principle == "content" and caption.words[hit.start] in SEXES:
            yield sex_options, (caption, hit)
    makers = WORD_MAKERS[principle]
    for index, word in enumerate(caption.words):
        if word in makers and index not in caption.blocked:
            yield makers[word], (caption, index)
    if principle == "attribute":
        adjectives = [hit for hit in caption.hits if "adjective" in hit.phrase.by_principle.get(principle, ())]
        for first, second in zip(adjectives, adjectives[1:], strict=False):
            yield exchange_options, (caption, first, second)


def last_candidates(caption: Caption, principle: str) -> Iterator[Candidate]:
    """Where to look if nothing else can change: what suits anything, and counts, of which too many would give themselves away."""
    makers = ANYWHERE[principle]
    for index, word in enumerate(caption.words):
        if word in makers and index not in caption.blocked:
            yield makers[word], (caption, index)
    if principle == "content":
        for hit in caption.hits:
            if hit.phrase.noun is not None:
                yield more_options, (caption, hit)


def edit_caption(
    caption: Caption, principle: str, num_edits: int, rng: random.Random, frequencies: Counter
) -> str | None:
    """Makes up to `num_edits` edits of one principle, or returns `None` where there is nothing safe to change."""
    chosen: list[Option] = []
    touched: set[int] = set()
    taken = set() if num_edits == 1 else set(caption.known)  # several edits must not become an exchange
    room = max(LEAST_ROOM, len(caption.words) // 2)
    for find in (candidates, last_candidates):
        places = list(find(caption, principle))
        rng.shuffle(places)
        for make, arguments in places[:MAX_CANDIDATES]:
            if len(chosen) == num_edits:
                break
            options = [option for option in make(*arguments) if is_usable(caption, option, taken)]
            if not options:
                continue
            weights = [1 + sum(frequencies[change.text] for change in option) for option in options]
            option = rng.choices(options, weights)[0]
            indices = {index for change in option for index in range(change.start - 1, change.end + 1)}
            size = sum(len(change.text.split()) + 1 for change in option)
            if not chosen or indices.isdisjoint(touched) and size <= room:
                chosen.append(option)
                touched |= indices
                taken.update(change.text for change in option)
                room -= size
    return caption.replaced(change for option in chosen for change in option) if chosen else None


def is_usable(caption: Caption, option: Option, taken: set[str]) -> bool:
    """False if words only become more or fewer, as from "in" to "in front of", or if new words are taken."""
    before = {word for change in option for word in caption.words[change.start : change.end]}
    after = {word for change in option for word in change.text.split()}
    is_rewording = len(option) == 1 and (before <= after or after <= before)
    return not is_rewording and taken.isdisjoint(change.text for change in option)


class RulesEditor:
    """Exchanges words of the lexicon.

    Args:
        frequencies: how often words occur in the captions, from [`count_words`]. New words are drawn in proportion to it,
            so that mismatched prompts use the words that captions use, and cannot be told from them by their words.
    """

    name = "rules"

    def __init__(self, frequencies: Counter | None = None):
        self.frequencies = frequencies or Counter()

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Edits]]:
        for request in requests:
            caption = Caption(request.caption)
            used = {*request.accepted, *(text for text, _ in request.rejected)}
            edits = []
            for number, wanted in enumerate(request.wanted):
                rng = random.Random(f"rules/{request.seed}/{request.row}/{request.attempt}/{number}")
                edited = self._edit_unlike(caption, wanted, rng, used)
                edits.append(edited)
                if edited is not None:
                    used.add(edited.strip())
            yield request, Edits(tuple(edits))

    def _edit_unlike(self, caption: Caption, wanted: Wanted, rng: random.Random, used: set[str]) -> str | None:
        """An edit that is none of the used ones, `None` if none is found."""
        for _ in range(DRAWS):
            text = edit_caption(caption, wanted.principle, wanted.num_edits, rng, self.frequencies)
            if text is None or text.strip() not in used and text not in used:
                return text
        return None


def count_words(captions: Iterable[str]) -> Counter:
    """How often each word or phrase of the lexicon occurs."""
    counts: Counter = Counter()
    for text in captions:
        words = [match.casefold() for match in TOKEN.findall(text[:LONGEST_CAPTION])]
        counts.update(" ".join(words[hit.start : hit.end]) for hit in find_hits(words))
        counts.update(word for word in words if word in NUMBERS)
    return counts
