"""What the tokenizers of a pipeline make of prompts, as far as its text encoders look. Knows no models and no data sets."""

from collections import Counter
from collections.abc import Hashable
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.utils import is_bs4_available, is_ftfy_available
from transformers import CLIPTokenizer


LONGEST = 100_000  # tokens, where neither the tokenizer nor the family says how many are read


class TokenReader:
    """Gives the token ids that prompts become in every tokenizer, cut as for the text encoders, and counts what is cut.

    Two prompts with the same ids are one and the same for the model. Templates that a pipeline puts around a prompt are left
    out, so where they count towards its length, a few more tokens are compared than are read.

    Attributes:
        cut: how many prompts were longer than is read, by the number of tokens that are read.
        number: of all prompts.
    """

    def __init__(self, pipe: DiffusionPipeline, family: object):
        """
        Args:
            family: whose `max_sequence_length`, if it has one, cuts for all text encoders but CLIP's.
        """
        self.pipe, self.tokenizers = pipe, tokenizers_of(pipe, family)
        self.cut: Counter[int] = Counter()
        self.number = 0

    def __call__(self, prompts: list[str]) -> list[Hashable]:
        """The ids of each prompt, in all tokenizers together."""
        cleaned = _cleaned(self.pipe, prompts)
        found = []
        cut = {}
        for tokenizer, longest in self.tokenizers:
            ids = tokenizer(cleaned, truncation=True, max_length=longest)["input_ids"]
            full = [prompt for prompt, own in zip(cleaned, ids, strict=True) if len(own) == longest]
            cut[longest] = sum(len(own) > longest for own in _ids(tokenizer, full, longest + 1))
            found.append(ids)
        self.cut.update(cut)
        self.number += len(prompts)
        return [tuple(map(tuple, of_prompt)) for of_prompt in zip(*found, strict=True)]

    def about_cut(self) -> dict[str, str]:
        """A line about the prompts that are cut; nothing if none is."""
        parts = [f"{number:,} longer than {longest} tokens" for longest, number in self.cut.items() if number]
        if not parts:
            return {}
        return {"prompts": f"of {self.number:,} are {' and '.join(parts)}, which a text encoder does not read further"}


def tokenizers_of(pipe: DiffusionPipeline, family: object) -> list[tuple[Any, int]]:
    """The tokenizers of a pipeline, each with the number of tokens that its text encoder reads."""
    found = []
    for name, part in sorted(pipe.components.items()):
        if name.startswith("tokenizer") and part is not None:
            tokenizer = getattr(part, "tokenizer", part)  # of a processor
            longest = min(tokenizer.model_max_length, LONGEST)
            if not isinstance(tokenizer, CLIPTokenizer):
                longest = min(longest, getattr(family, "max_sequence_length", longest))
            found.append((tokenizer, longest))
    return found


def _cleaned(pipe: DiffusionPipeline, prompts: list[str]) -> list[str]:
    """Prompts as a pipeline that cleans them, or writes all in lower case, gives them to its tokenizers."""
    if not hasattr(pipe, "_text_preprocessing"):
        return prompts
    clean = is_bs4_available() and is_ftfy_available()
    return [pipe._text_preprocessing(prompt, clean_caption=clean)[0] for prompt in prompts]


def _ids(tokenizer: Any, prompts: list[str], longest: int) -> list[list[int]]:
    return tokenizer(prompts, truncation=True, max_length=longest)["input_ids"] if prompts else []
