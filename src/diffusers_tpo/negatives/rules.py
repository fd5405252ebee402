"""Edits captions by rules and a lexicon, without any model: where it finds nothing safe to exchange, it says so."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from . import grammar, lexicon
from .editors import Answer, EditRequest
from .lexicon import FIXED, GROUPS, NUMBERS, Group
from .words import TOKEN


@dataclass(frozen=True)
class Entry:
    """One form of one word of the lexicon."""

    group: Group
    meaning: int
    form: str | None  # the Penn tag of nouns and verbs


@dataclass(frozen=True)
class Hit:
    """An entry at the tokens `[start, end)` of a caption."""

    entry: Entry
    start: int
    end: int


@dataclass(frozen=True)
class Replacement:
    """New words for the tokens `[start, end)`."""

    start: int
    end: int
    text: str


Option = tuple[Replacement, ...]  # one edit, which may touch several places


@dataclass(frozen=True)
class Site:
    """One thing in a caption that can change, and into what."""

    principle: str
    options: tuple[Option, ...]


class Caption:
    """A caption's tokens and the hits of the lexicon among them."""

    def __init__(self, text: str):
        self.text = text
        matches = list(TOKEN.finditer(text))
        self.spans = [match.span() for match in matches]
        self.words = [match.group().casefold() for match in matches]
        self.known = set(self.words)
        blocked = {i for start, end in find(self.words, fixed_phrases()) for i in range(start, end)}
        self.hits = [
            hit for hit in find_hits(self.words) if not blocked.intersection(range(hit.start, hit.end))
        ]

    def hits_at(self, index: int) -> list[Hit]:
        return [hit for hit in self.hits if hit.start == index]

    def word(self, index: int) -> str | None:
        """The word at an index; `None` before the start and after the end."""
        return self.words[index] if 0 <= index < len(self.words) else None

    def replaced(self, replacements: Iterable[Replacement]) -> str:
        """The caption with new words, their capitals and articles adapted."""
        pieces, position = [], 0
        for change in sorted(replacements, key=lambda change: change.start):
            start, end = self.spans[change.start][0], self.spans[change.end - 1][1]
            new = grammar.match_case(change.text, self.text[start:end]) if change.text else ""
            if change.start and self.words[change.start - 1] in ("a", "an") and new:
                before = self.spans[change.start - 1]
                if before[0] >= position:
                    article = grammar.match_case(grammar.article(new.split()[0]), self.text[slice(*before)])
                    pieces += [self.text[position : before[0]], article, self.text[before[1] : start], new]
                    position = end
                    continue
            pieces += [self.text[position:start], new]
            position = end
        return "".join(pieces) + self.text[position:]


@lru_cache(maxsize=1)
def fixed_phrases() -> dict[str, list[tuple[tuple[str, ...], None]]]:
    phrases = defaultdict(list)
    for phrase in FIXED:
        words = tuple(TOKEN.findall(phrase.casefold()))
        phrases[words[0]].append((words, None))
    return phrases


def forms(group: Group, word: str) -> Iterator[tuple[str, str | None]]:
    """The forms of a word in which captions contain it."""
    if group.grammar in ("noun", "place", "surface"):
        yield word, "NN"
        if group.grammar == "noun":
            yield grammar.plural(word), "NNS"
    elif group.grammar == "verb":
        head, _, rest = word.partition(" ")
        for tag in ("VBG", "VBZ"):
            yield " ".join(filter(None, [grammar.verb_form(head, tag), rest])), tag
    else:
        yield word, None


@lru_cache(maxsize=1)
def index() -> dict[str, list[tuple[tuple[str, ...], Entry]]]:
    """The lexicon by first word, longest phrases first."""
    found = defaultdict(list)
    for group in GROUPS:
        for number, meaning in enumerate(group.meanings):
            for word in meaning:
                for form, tag in forms(group, word):
                    words = tuple(TOKEN.findall(form))
                    found[words[0]].append((words, Entry(group, number, tag)))
    return {first: sorted(entries, key=lambda entry: -len(entry[0])) for first, entries in found.items()}


def find(words: list[str], phrases: dict) -> Iterator[tuple[int, int]]:
    for start, word in enumerate(words):
        for phrase, _ in phrases.get(word, ()):
            if tuple(words[start : start + len(phrase)]) == phrase:
                yield start, start + len(phrase)


def find_hits(words: list[str]) -> list[Hit]:
    """Every entry of the lexicon in a caption; inside a longer phrase nothing else is found."""
    hits, position = [], 0
    for start, word in enumerate(words):
        if start < position:
            continue
        length = 0
        for phrase, entry in index().get(word, ()):
            if len(phrase) < length:
                break
            if tuple(words[start : start + len(phrase)]) == phrase:
                hits.append(Hit(entry, start, start + len(phrase)))
                length = len(phrase)
        position = start + length
    return hits


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ADJECTIVES, ANIMATE, NATURAL, GENDERED, FIRM, COUNTING = map(
    word_set,
    (lexicon.ADJECTIVES, lexicon.ANIMATE, lexicon.NATURAL, lexicon.GENDERED, lexicon.FIRM, lexicon.COUNTING),
)
CLASHES = {name: word_set(words) for name, words in lexicon.CLASHES.items()}
FUNCTION_WORDS = grammar.PREPOSITIONS | grammar.CONJUNCTIONS
LIVING = ("person", "pet", "farm animal", "wild animal", "bird")
BE = frozenset("is are was were looks painted colored coloured".split())
PLURAL_OF_AUXILIARY = {"is": "are", "was": "were", "has": "have"}
NUMBER_WORDS = {value: word for word, value in NUMBERS.items() if not word.isdigit()}


def is_adjective(caption: Caption, index: int) -> bool:
    word = caption.word(index)
    return word is not None and (
        word in ADJECTIVES
        or any(hit.entry.group.grammar in ("adjective", "scene") for hit in caption.hits_at(index))
    )


def is_animate(caption: Caption, index: int) -> bool:
    return caption.word(index) in ANIMATE or any(
        hit.entry.group.kind in LIVING for hit in caption.hits if hit.end == index + 1
    )


def phrase_start(caption: Caption, noun: int) -> int:
    """Index of the word before a noun and its adjectives."""
    index = noun - 1
    while index >= 0 and noun - index <= 4 and is_adjective(caption, index):
        index -= 1
    return index


def others(caption: Caption, hit: Hit) -> Iterator[str]:
    """The words of the group with another meaning that the caption does not use already."""
    text = f" {' '.join(caption.words)} "
    for number, meaning in enumerate(hit.entry.group.meanings):
        if number == hit.entry.meaning or any(f" {word} " in text for word in meaning):
            continue
        yield from meaning


def occurs_once(caption: Caption, hit: Hit) -> bool:
    """True if the caption speaks of this meaning once: an exchange in one of two places would contradict itself."""
    group, meaning = hit.entry.group, hit.entry.meaning
    same = {other.start for other in caption.hits if (other.entry.group, other.entry.meaning) == (group, meaning)}
    return len(same) == 1


def noun_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    group, form = hit.entry.group, hit.entry.form
    if not grammar.ends_noun(caption.word(hit.end)) or group.kind == "person" and caption.known & GENDERED:
        return
    if not noun_phrase_fits(caption, hit):
        return
    for word in others(caption, hit):
        if form == "NNS":
            if grammar.plural(word) not in caption.known:
                yield (Replacement(hit.start, hit.end, grammar.plural(word)),)
        elif grammar.plural(word) not in caption.known:
            yield (Replacement(hit.start, hit.end, word),)


def noun_phrase_fits(caption: Caption, hit: Hit) -> bool:
    """True if what stands before a noun shows that it is no part of a compound, and agrees with its number."""
    before = caption.word(phrase_start(caption, hit.start))
    singular = before in ("a", "an", "this", "that", "each", "every", "another", "one")
    several = before in ("several", "many", "some", "few", "these", "those", "both") or NUMBERS.get(before, 0) > 1
    definite = before in grammar.DETERMINERS and not singular and not several
    noun = caption.words[hit.start]
    if grammar.plural(noun) == noun:  # sheep
        return several if hit.entry.form == "NNS" else singular
    if hit.entry.form == "NN":
        return singular or definite or before in (None, ",", "of")
    return several or definite or before is None or before in ",.;:" or not singular and before in FUNCTION_WORDS


def plural_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    """ "a dog sitting" becomes "three dogs sitting"."""
    determiner = phrase_start(caption, hit.start)
    after = caption.word(hit.end)
    if caption.word(determiner) not in ("a", "an") or caption.known & (grammar.PRONOUNS | COUNTING):
        return
    if not grammar.ends_noun(after) or later_verb(caption, hit.end):
        return
    changes = [Replacement(hit.start, hit.end, grammar.plural(caption.words[hit.start]))]
    if after in grammar.AUXILIARIES:
        if after not in PLURAL_OF_AUXILIARY:
            return
        changes.append(Replacement(hit.end, hit.end + 1, PLURAL_OF_AUXILIARY[after]))
    before = caption.word(determiner - 1)
    if before in grammar.AUXILIARIES:
        if before not in PLURAL_OF_AUXILIARY or caption.word(determiner - 2) != "there":
            return
        changes.append(Replacement(determiner - 1, determiner, PLURAL_OF_AUXILIARY[before]))
    for number in range(2, 7):
        yield (Replacement(determiner, determiner + 1, NUMBER_WORDS[number]), *changes)


def later_verb(caption: Caption, start: int) -> bool:
    """True if a verb that agrees with a singular subject may follow in the same clause, beyond an auxiliary at `start`."""
    for index in range(start + (caption.word(start) in PLURAL_OF_AUXILIARY), len(caption.words)):
        word = caption.words[index]
        if not word[0].isalnum():
            return False
        if word in PLURAL_OF_AUXILIARY or grammar.is_third_person(word):
            before = caption.word(index - 1)
            if before not in grammar.DETERMINERS and before not in NUMBERS and not is_adjective(caption, index - 1):
                return True
    return False


def number_sites(caption: Caption) -> Iterator[Site]:
    """Another number before a plural noun."""
    if caption.known & COUNTING:
        return
    for index, word in enumerate(caption.words):
        value = NUMBERS.get(word, 0)
        noun = index + 1
        while noun - index <= 3 and is_adjective(caption, noun):
            noun += 1
        if value < 2 or caption.word(noun) is None or caption.word(index - 1) in ("of", "at", "-", ".", "/", "#", "no"):
            continue
        singular = grammar.singular_of(caption.words[noun])
        if singular is None or not grammar.ends_noun(caption.word(noun + 1)):
            continue
        numbers = [number for number in range(2, 11) if number != value]
        options = [(Replacement(index, index + 1, str(n) if word.isdigit() else NUMBER_WORDS[n]),) for n in numbers]
        yield Site("content", tuple(options))


def adjective_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    if adjective_fits(caption, hit):
        for word in others(caption, hit):
            yield (Replacement(hit.start, hit.end, word),)


def adjective_fits(caption: Caption, hit: Hit) -> bool:
    left, right = caption.word(hit.start - 1), caption.word(hit.end)
    if "-" in (left, right):
        return False
    if left in BE and grammar.ends_noun(right) and not hit.entry.group.before:
        return True
    noun = hit.end
    while noun - hit.end <= 2 and is_adjective(caption, noun):
        noun += 1
    word = caption.word(noun)
    if word is None or not word[0].isalpha() or word in NATURAL or grammar.ends_noun(word):
        return False
    wanted = hit.entry.group.before
    if wanted and is_animate(caption, noun) != (wanted == "animate"):
        return False
    return grammar.is_noun(word)


def exchange_sites(caption: Caption) -> Iterator[Site]:
    """Two adjectives of one kind change places: "a red cube and a blue ball" becomes "a blue cube and a red ball"."""
    hits = [hit for hit in caption.hits if hit.entry.group.grammar == "adjective" and adjective_fits(caption, hit)]
    for first, second in zip(hits, hits[1:], strict=False):
        same_kind = first.entry.group == second.entry.group and first.entry.meaning != second.entry.meaning
        nouns = caption.word(first.end), caption.word(second.end)
        if same_kind and second.start > first.end + 1 and nouns[0] != nouns[1]:
            if all(occurs_once(caption, hit) for hit in (first, second)):
                texts = [" ".join(caption.words[hit.start : hit.end]) for hit in (first, second)]
                option = (Replacement(first.start, first.end, texts[1]), Replacement(second.start, second.end, texts[0]))
                yield Site("attribute", (option,))


def relation_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    after = caption.word(hit.end)
    if after not in grammar.DETERMINERS - {"each"} or caption.word(hit.start - 1) in ("from", "not", None):
        return
    head = hit.end + 1
    while is_adjective(caption, head):
        head += 1
    if caption.word(head) is None or caption.word(head) in NATURAL:
        return
    for word in others(caption, hit):
        yield (Replacement(hit.start, hit.end, word),)


def surface_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    preposition = phrase_start(caption, hit.start) - 1
    if caption.word(preposition) != "on" or caption.word(preposition + 1) not in ("a", "an", "the", "his", "her", "their"):
        return
    if caption.word(preposition - 1) in FIRM | {None} or not grammar.ends_noun(caption.word(hit.end)):
        return
    for word in ("under", "next to", "behind"):
        yield (Replacement(preposition, preposition + 1, word),)


def verb_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    subject = hit.start - 1
    if caption.word(subject) in grammar.AUXILIARIES:
        subject -= 1
    if not is_animate(caption, subject) or not grammar.ends_noun(caption.word(hit.end)):
        return
    for lemma in others(caption, hit):
        head, _, rest = lemma.partition(" ")
        form = " ".join(filter(None, [grammar.verb_form(head, hit.entry.form), rest]))
        if form not in caption.known:
            yield (Replacement(hit.start, hit.end, form),)


def place_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    determiner = hit.start - 1
    if caption.word(determiner) not in ("a", "an", "the") or caption.word(determiner - 1) not in ("in", "inside"):
        return
    after = caption.word(hit.end)
    if after != "of" and grammar.ends_noun(after):
        for word in others(caption, hit):
            yield (Replacement(hit.start, hit.end, word),)


def scene_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    if caption.word(hit.end) in grammar.MEASURES - {"night"} and caption.word(hit.start - 1) != "-":
        for word in others(caption, hit):
            yield (Replacement(hit.start, hit.end, word),)


def phrase_options(caption: Caption, hit: Hit) -> Iterator[Option]:
    if caption.word(hit.end) != "-":
        for word in others(caption, hit):
            yield (Replacement(hit.start, hit.end, word),)


OPTIONS = {
    "noun": noun_options,
    "adjective": adjective_options,
    "relation": relation_options,
    "surface": surface_options,
    "verb": verb_options,
    "place": place_options,
    "scene": scene_options,
    "phrase": phrase_options,
}


def find_sites(caption: Caption) -> list[Site]:
    """Everything in a caption that the rules dare to change."""
    sites = [*number_sites(caption), *exchange_sites(caption)]
    marks = Counter(mark for mark, _ in {(hit.entry.group.clash, hit.start) for hit in caption.hits})
    for hit in caption.hits:
        group = hit.entry.group
        if not occurs_once(caption, hit):
            continue
        inside = {word for index in range(hit.start, hit.end) for word in [caption.words[index]]}
        if group.clash and (marks[group.clash] > 1 or (caption.known - inside) & CLASHES.get(group.clash, set())):
            continue
        options = tuple(OPTIONS[group.grammar](caption, hit))
        if options:
            sites.append(Site(group.principle, options))
        if group.grammar == "noun" and hit.entry.form == "NN" and (more := tuple(plural_options(caption, hit))):
            sites.append(Site("content", more))
    return sites


def edit_caption(
    caption: Caption,
    sites: list[Site],
    principle: str,
    num_edits: int,
    rng: random.Random,
    frequencies: Counter,
) -> str | None:
    """Makes up to `num_edits` edits of one principle, or returns `None` where there is nothing to change."""
    candidates = [site for site in sites if site.principle == principle]
    rng.shuffle(candidates)
    chosen, touched = [], set()
    for site in candidates:
        if len(chosen) == num_edits:
            break
        weights = [1 + sum(frequencies[change.text] for change in option) for option in site.options]
        option = rng.choices(site.options, weights)[0]
        places = {index for change in option for index in range(change.start - 1, change.end + 1)}
        if not places & touched:
            chosen.append(option)
            touched |= places
    return caption.replaced(change for option in chosen for change in option) if chosen else None


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
            sites = find_sites(caption)
            edits = []
            for number, wanted in enumerate(request.wanted):
                rng = random.Random(f"rules/{request.seed}/{request.row}/{request.attempt}/{number}")
                text = edit_caption(caption, sites, wanted.principle, wanted.num_edits, rng, self.frequencies)
                edits.append({"principle": wanted.principle, "caption": text})
            yield request, Answer(json.dumps({"edits": edits}))


def count_words(captions: Iterable[str]) -> Counter:
    """How often each word or phrase of the lexicon occurs."""
    counts = Counter()
    for text in captions:
        words = [match.casefold() for match in TOKEN.findall(text)]
        counts.update({hit.start: " ".join(words[hit.start : hit.end]) for hit in find_hits(words)}.values())
        counts.update(word for word in words if word in NUMBERS)
    return counts
