"""How varied texts are and how far edits go from their captions. Knows nothing of rows or images."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ...errors import UserError, reason, require
from ..language.words import changes, folded
from .blind_test import Pair


SELF_BLEU_TEXTS = 200  # its cost grows with the square
FREQUENT_EDITS = 20


def spread(values: ArrayLike, counts: ArrayLike | None = None) -> dict[str, float]:
    """Mean and 5 %, 50 % and 95 % quantiles of values, each of which may stand for several equal ones."""
    values = np.asarray(values, dtype=float)
    counts = np.ones(len(values)) if counts is None else np.asarray(counts)
    order = np.argsort(values)
    reached = np.cumsum(counts[order]) / counts.sum()
    quantiles = {f"p{q}": float(values[order][np.searchsorted(reached, q / 100 - 1e-12)]) for q in (5, 50, 95)}
    return {"mean": float(np.average(values, weights=counts)), **quantiles}


def distinct(texts: Sequence[list[str]], n: int) -> float:
    """Different n-grams among all n-grams of texts ([paper](https://huggingface.co/papers/1510.03055)).

    Each text is a list of words. The share falls as texts grow in number, so only equal numbers of texts compare.
    """
    ngrams = [ngram for text in texts for ngram in zip(*(text[i:] for i in range(n)), strict=False)]
    return len(set(ngrams)) / max(len(ngrams), 1)


def self_bleu(texts: Sequence[list[str]]) -> float | None:
    """Mean BLEU-4 of each text against all others ([paper](https://huggingface.co/papers/1802.01886)).

    It is 1 if all are equal.

    Raises:
        UserError: if nltk is missing.
    """
    if len(texts) < 2:
        return None
    bleu = require("nltk.translate.bleu_score", "negatives")
    smoothing = bleu.SmoothingFunction().method1
    scores = [
        bleu.sentence_bleu([*texts[:i], *texts[i + 1 :]], text, smoothing_function=smoothing)
        for i, text in enumerate(texts)
    ]
    return float(np.mean(scores))


def diversity(pairs: Sequence[Pair], seed: int = 0) -> dict:
    """Distinct-1, -2, -3 and self-BLEU-4 of edited captions, and of the captions themselves as a yardstick."""
    few = random.Random(f"self-bleu/{seed}").sample(range(len(pairs)), min(SELF_BLEU_TEXTS, len(pairs)))
    sides = {"captions": [pair.caption for pair in pairs], "mismatched": [pair.edited for pair in pairs]}
    figures: dict[str, dict[str, float | None]] = {}
    for side, texts in sides.items():
        texts = [folded(text) for text in texts]
        words = {f"distinct_{n}": distinct(texts, n) for n in (1, 2, 3)}
        figures[side] = {**words, "self_bleu_4": self_bleu([texts[i] for i in few])}
    return figures


def edit_figures(pairs: Sequence[tuple[str, str]]) -> dict:
    """How many different edits (old words, new words) there are, and the most frequent ones with their counts."""
    edits: Counter[tuple[str, str]] = Counter()
    for caption, edited in pairs:
        before, after = folded(caption), folded(edited)
        for change in changes(before, after):
            edits[" ".join(before[slice(*change.before)]), " ".join(after[slice(*change.after)])] += 1
    return {
        "count": edits.total(),
        "distinct": len(edits),
        "distinct_share": len(edits) / max(edits.total(), 1),
        "most_frequent": [
            {"before": before, "after": after, "count": count}
            for (before, after), count in edits.most_common(FREQUENT_EDITS)
        ],
    }


def sentence_embedder(model: str) -> Callable[[list[str]], np.ndarray]:
    """Loads a sentence-transformers model by name or folder.

    Returns:
        A function from `N` texts to `(N, D)` embeddings.

    Raises:
        UserError: if the package is missing or there is no such model.
    """
    package = require("sentence_transformers", "embeddings")
    try:
        loaded = package.SentenceTransformer(model)
    except (OSError, ValueError) as error:
        raise UserError(f"--embedding_model {model!r} cannot be loaded ({reason(error)}); check its name") from error
    return lambda texts: loaded.encode(texts, convert_to_numpy=True, show_progress_bar=False)


def embedding_distance(pairs: Sequence[Pair], embed: Callable[[list[str]], np.ndarray]) -> dict:
    """One minus the cosine between a caption and its edit: the spread over all, and in `principles` over each."""
    texts = [pair.caption for pair in pairs], [pair.edited for pair in pairs]
    sides = [np.asarray(embed(side), dtype=float) for side in texts]
    before, after = (side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in sides)
    distances = 1 - (before * after).sum(axis=1)
    principles = np.array([pair.principle for pair in pairs])
    by_name = {str(name): spread(distances[principles == name]) for name in np.unique(principles)}
    return {**spread(distances), "principles": by_name}
