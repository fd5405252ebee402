"""Whether the text alone gives mismatched prompts away: two classifiers try to tell. Knows nothing of images."""

import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import require
from ...intervals import mean_interval
from ..language.words import TOKEN, folded


FOLDS = 5
MINIMUM_PAIRS = 20
CUES = 15  # n-grams shown for each side
CHARACTERS = (2, 4)  # in a row, that the second classifier looks at
MOST_CHARACTERS = 50_000  # different ones of them
EDGES = "\N{START OF TEXT}{}\N{END OF TEXT}"  # so that spaces at the ends of a text can be seen


class Pair(NamedTuple):
    """A caption and one of its mismatched prompts."""

    caption: str
    edited: str
    principle: str


def text_key(text: str) -> str:
    """What texts have in common that differ only in case, punctuation or spaces."""
    return " ".join(folded(text)) or text.strip()


def draw_pairs(rows: Iterable[dict], seed: int = 0) -> list[Pair]:
    """Draws one of each row's mismatched prompts, so that both sides are equally many."""
    rng, pairs = random.Random(f"pairs/{seed}"), []
    for row in rows:
        edited, principle = rng.choice(list(zip(row["negative_prompts"], row["principles"], strict=True)))
        pairs.append(Pair(row["prompt"], edited, principle))
    return pairs


def blind_test(pairs: Sequence[Pair], seed: int = 0) -> dict:
    """How well classifiers that see no image tell mismatched prompts from captions; 1/2 is chance.

    A logistic regression over the words and word pairs that a text contains judges texts that it was not fitted to. A
    repeated caption counts once and both texts of a pair are in the same fold, so a caption and its edits never are on
    both sides. A second one looks at characters instead, as they are: it sees case, punctuation, endings of words and
    spaces at the edges, which the first one cannot. An accuracy below 1/2 is no error: where both sides contain the same words equally often, a held-out
    text leaves its side with fewer of its words.

    Returns:
        `{"skipped": reason}` if there are too few pairs, else `pairs` and `folds`; `single`, the accuracy on one text
        at a time; `pairwise`, the accuracy at saying which text of a pair was edited; both again in `principles` by
        name, and in `characters` for the second classifier; and `cues`, the n-grams that speak most for `mismatched` and for `matched` in a fit on everything, each
        with the number of texts on both sides that contain it. An accuracy is a dictionary of `mean`, `low` and
        `high`, with a 95 % interval over pairs.

    Raises:
        UserError: if scikit-learn is missing.
    """
    pairs = list({text_key(pair.caption): pair for pair in pairs}.values())
    if len(pairs) < MINIMUM_PAIRS:
        return {"skipped": f"{len(pairs)} different captions are too few; it needs {MINIMUM_PAIRS}"}
    counter = require("sklearn.feature_extraction.text", "negatives").CountVectorizer(
        token_pattern=TOKEN.pattern, ngram_range=(1, 2), min_df=2, binary=True, dtype=np.float64
    )
    try:
        counts = counter.fit_transform([pair.caption for pair in pairs] + [pair.edited for pair in pairs])
    except ValueError:  # an empty vocabulary
        return {"skipped": "no word occurs in two texts"}
    single, pairwise = _right(counts, len(pairs), seed)
    principles = np.array([pair.principle for pair in pairs])
    return {
        "pairs": len(pairs),
        "folds": FOLDS,
        "single": _accuracy(single),
        "pairwise": _accuracy(pairwise),
        "principles": {
            str(name): {
                "pairs": int((principles == name).sum()),
                "single": _accuracy(single[principles == name]),
                "pairwise": _accuracy(pairwise[principles == name]),
            }
            for name in np.unique(principles)
        },
        "characters": _characters(pairs, seed),
        "cues": _cues(counts, counter.get_feature_names_out()),
    }


def _characters(pairs: Sequence[Pair], seed: int) -> dict:
    """What the second classifier tells."""
    counter = require("sklearn.feature_extraction.text", "negatives").TfidfVectorizer(
        analyzer="char",
        ngram_range=CHARACTERS,
        lowercase=False,
        min_df=2,
        max_features=MOST_CHARACTERS,
        sublinear_tf=True,
    )
    texts = [pair.caption for pair in pairs] + [pair.edited for pair in pairs]
    single, pairwise = _right(counter.fit_transform([EDGES.format(text) for text in texts]), len(pairs), seed, C=10.0)
    return {"single": _accuracy(single), "pairwise": _accuracy(pairwise)}


def _right(counts: Any, pairs: int, seed: int, C: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """For each pair how often a classifier is right about one text at a time, and about which of the two was edited."""
    scores = _held_out_scores(counts, pairs, seed, C)
    return (_is_right(-scores[0]) + _is_right(scores[1])) / 2, _is_right(scores[1] - scores[0])


def _fit(counts: Any, C: float = 0.1) -> Any:
    """A classifier of rows whose first half is matched and whose second half is mismatched.

    liblinear, because lbfgs takes the tiny gradients of nearly equal texts for convergence and stops where it starts.
    """
    model = require("sklearn.linear_model", "negatives").LogisticRegression(C=C, solver="liblinear")
    return model.fit(counts, np.repeat([0, 1], counts.shape[0] // 2))


def _held_out_scores(counts: Any, pairs: int, seed: int, C: float) -> np.ndarray:
    """How mismatched each text looks to a classifier that saw neither it nor the other text of its pair.

    Returns:
        `(2, pairs)`: captions, then edited captions.
    """
    fold = np.random.default_rng(seed).permutation(pairs) % FOLDS
    scores = np.empty((2, pairs))
    for number in range(FOLDS):
        inside, outside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        model = _fit(counts[np.concatenate([outside, outside + pairs])], C)
        scores[0, inside] = model.decision_function(counts[inside])
        scores[1, inside] = model.decision_function(counts[inside + pairs])
    return scores


def _is_right(score: np.ndarray) -> np.ndarray:
    """1 where the score is positive, 1/2 where it says nothing."""
    return (np.sign(score) + 1) / 2


def _accuracy(right: np.ndarray) -> dict:
    interval = mean_interval(right)
    return {"mean": interval.mean, "low": max(interval.low, 0.0), "high": min(interval.high, 1.0)}


def _cues(counts: Any, names: np.ndarray) -> dict[str, list[dict]]:
    weights, half = _fit(counts).coef_[0], counts.shape[0] // 2
    matched, mismatched = (np.asarray(side.sum(axis=0)).ravel() for side in (counts[:half], counts[half:]))

    def most(sign: int) -> list[dict]:
        order = np.argsort(-sign * weights, kind="stable")[:CUES]
        return [
            {
                "ngram": str(names[i]),
                "weight": float(weights[i]),
                "mismatched": int(mismatched[i]),
                "matched": int(matched[i]),
            }
            for i in order
            if sign * weights[i] > 0
        ]

    return {"mismatched": most(1), "matched": most(-1)}
