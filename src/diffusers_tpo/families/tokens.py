"""What the tokenizers of a pipeline make of prompts, as far as its text encoders look. Knows no models and no data sets."""

from collections.abc import Hashable

from diffusers import DiffusionPipeline
from diffusers.utils import is_bs4_available, is_ftfy_available
from transformers import CLIPTokenizer


LONGEST = 100_000  # tokens, where neither the tokenizer nor the family says how many are read


def token_ids(pipe: DiffusionPipeline, family: object, prompts: list[str]) -> list[Hashable]:
    """The token ids that each prompt becomes in every tokenizer, cut as for the text encoders.

    Two prompts with the same ones are one and the same for the model. Templates that a pipeline puts around a prompt are left
    out, so where they count towards its length, a few more tokens are compared than are read.

    Args:
        family: whose `max_sequence_length`, if it has one, cuts for all text encoders but CLIP's.
    """
    if hasattr(pipe, "_text_preprocessing"):  # it cleans, or writes all in lower case
        clean = is_bs4_available() and is_ftfy_available()
        prompts = [pipe._text_preprocessing(prompt, clean_caption=clean)[0] for prompt in prompts]
    found = []
    for name, part in sorted(pipe.components.items()):
        if name.startswith("tokenizer") and part is not None:
            tokenizer = getattr(part, "tokenizer", part)  # of a processor
            longest = min(tokenizer.model_max_length, LONGEST)
            if not isinstance(tokenizer, CLIPTokenizer):
                longest = min(longest, getattr(family, "max_sequence_length", longest))
            found.append(tokenizer(prompts, truncation=True, max_length=longest)["input_ids"])
    return [tuple(map(tuple, of_prompt)) for of_prompt in zip(*found, strict=True)]
