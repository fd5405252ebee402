"""Edits captions by rules and a lexicon, without any model: where it finds nothing safe to exchange, it says so."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator

from .caption import Caption, find_hits
from .editors import Answer, EditRequest
from .lexicon import NUMBERS
from .sites import Option, candidates
from .words import TOKEN


def edit_caption(
    caption: Caption, principle: str, num_edits: int, rng: random.Random, frequencies: Counter
) -> str | None:
    """Makes up to `num_edits` edits of one principle, or returns `None` where there is nothing safe to change."""
    places = list(candidates(caption, principle))
    rng.shuffle(places)
    chosen, touched, new = [], set(), set()
    for make, arguments in places:
        options = [
            option for option in make(*arguments)
            if new.isdisjoint(change.text for change in option) and says_more(caption, option)
        ]  # fmt: skip
        if not options:
            continue
        weights = [1 + sum(frequencies[change.text] for change in option) for option in options]
        option = rng.choices(options, weights)[0]
        indices = {index for change in option for index in range(change.start - 1, change.end + 1)}
        if indices.isdisjoint(touched):
            chosen.append(option)
            touched |= indices
            new.update(change.text for change in option)
        if len(chosen) == num_edits:
            break
    return caption.replaced(change for option in chosen for change in option) if chosen else None


def says_more(caption: Caption, option: Option) -> bool:
    """False if the words only become more or fewer, as from "in" to "in front of", which need not contradict anything."""
    old = {word for change in option for word in caption.words[change.start : change.end]}
    new = {word for change in option for word in change.text.split()}
    return len(option) > 1 or not (old <= new or new <= old)


class RulesEditor:
    """Exchanges words of the lexicon.

    Args:
        frequencies: how often words occur in the captions, from [`count_words`]. New words are drawn in proportion to it,
            so that mismatched prompts use the words that captions use, and cannot be told from them by their words.
    """

    name = "rules"

    def __init__(self, frequencies: Counter | None = None):
        self.frequencies = frequencies or Counter()

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Answer]]:
        for request in requests:
            caption = Caption(request.caption)
            edits = []
            for number, wanted in enumerate(request.wanted):
                rng = random.Random(f"rules/{request.seed}/{request.row}/{request.attempt}/{number}")
                text = edit_caption(caption, wanted.principle, wanted.num_edits, rng, self.frequencies)
                edits.append({"principle": wanted.principle, "caption": text})
            yield request, Answer(json.dumps({"edits": edits}))


def count_words(captions: Iterable[str]) -> Counter:
    """How often each word or phrase of the lexicon occurs."""
    counts = Counter()
    for text in captions:
        words = [match.casefold() for match in TOKEN.findall(text)]
        counts.update(" ".join(words[hit.start : hit.end]) for hit in find_hits(words))
        counts.update(word for word in words if word in NUMBERS)
    return counts
