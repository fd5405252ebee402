"""Runs a chat model in this process, with or without images, many conversations at a time. Knows nothing of checks or data sets."""

import base64
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import torch
from jinja2 import TemplateError
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from ..decoding import decode_image
from ..errors import UserError, reason
from .asking import chat_messages
from .editors import Answer, EditRequest


Key = TypeVar("Key")


class LocalModel:
    """Answers conversations with a model of the transformers library.

    Args:
        model: Hub id or folder of a model whose tokenizer or processor has a chat template.
        sees_images: load a vision-language model.
        batch_size: conversations per call of `generate`.
        max_new_tokens: longest answer.
        template_options: passed to the chat template, such as `{"enable_thinking": false}`.
        flag: that names the model in messages.

    Raises:
        UserError: if there is no such model, or it has no chat template that takes instructions.
    """

    def __init__(
        self,
        model: str,
        sees_images: bool = False,
        batch_size: int = 16,
        max_new_tokens: int = 512,
        revision: str | None = None,
        device: str | None = None,
        template_options: dict | None = None,
        token: str | None = None,
        flag: str = "--model",
    ):
        source = {"revision": revision, "token": token}
        reader, network = (
            (AutoProcessor, AutoModelForImageTextToText) if sees_images else (AutoTokenizer, AutoModelForCausalLM)
        )
        try:
            self.reader: Any = reader.from_pretrained(model, padding_side="left", **source)
            self.model: Any = network.from_pretrained(model, dtype="auto", **source)
        except (OSError, ValueError) as error:
            what = "as a vision-language model " if sees_images else ""
            raise UserError(f"{flag} {model!r} cannot be loaded {what}({reason(error)})") from error
        if self.reader.chat_template is None:
            raise UserError(
                f"{flag} {model!r} has no chat template; use a model that was trained to follow instructions"
            )
        self.tokenizer = self.reader.tokenizer if sees_images else self.reader
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.sees_images, self.batch_size, self.max_new_tokens = sees_images, batch_size, max_new_tokens
        self.template_options = template_options or {}
        try:
            self._text([{"role": "system", "content": "Answer."}, {"role": "user", "content": "Yes?"}])
        except TemplateError as error:
            raise UserError(
                f"the chat template of {flag} {model!r} takes no instructions ({error}); use another model"
            ) from error

    def complete(self, requests: Iterable[tuple[Key, list[dict], dict | None]]) -> Iterator[tuple[Key, Answer]]:
        """Yields the greedy answers, batch by batch; JSON schemas are left to the instructions."""
        requests = iter(requests)
        while batch := list(islice(requests, self.batch_size)):
            answers = self.generate([messages for _, messages, _ in batch])
            yield from zip((key for key, *_ in batch), answers, strict=True)

    @torch.no_grad()
    def generate(
        self, conversations: list[list[dict]], seed: int | None = None, temperature: float = 0.7
    ) -> Iterator[Answer]:
        """The answers to some conversations.

        Args:
            seed: samples at a `temperature`; greedy without one.
        """
        inputs = self._inputs(conversations).to(self.model.device)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if seed is not None:
            torch.manual_seed(seed)
            sampling = {"do_sample": True, "temperature": temperature}
        tokens = self.model.generate(
            **inputs, max_new_tokens=self.max_new_tokens, pad_token_id=self.tokenizer.pad_token_id, **sampling
        )
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        for asked, answer in zip(inputs["attention_mask"], answers, strict=True):
            text = self.tokenizer.decode(answer, skip_special_tokens=True)
            yield Answer(text, int(asked.sum()), self._length(answer))

    def _inputs(self, conversations: list[list[dict]]) -> Any:
        texts = [self._text(messages) for messages in conversations]
        options = {
            "return_tensors": "pt",
            "padding": True,
            "add_special_tokens": False,
        }  # the template has written them
        if self.sees_images:
            images = [pictures_of(messages) for messages in conversations]
            inputs = self.reader(text=texts, images=images if any(images) else None, **options)
            inputs.pop("token_type_ids", None)
            return inputs
        inputs = self.reader(texts, **options)
        return type(inputs)({name: inputs[name] for name in ("input_ids", "attention_mask")})

    def _text(self, messages: list[dict]) -> str:
        options = {"tokenize": False, "add_generation_prompt": True, **self.template_options}
        parts = [message | {"content": as_parts(message["content"])} for message in messages]
        return self.reader.apply_chat_template(parts if self.sees_images else messages, **options)

    def _length(self, answer: torch.Tensor) -> int:
        """Tokens up to the one that ends the answer; padding follows it."""
        ends = self.model.generation_config.eos_token_id
        if ends is None:
            return len(answer)
        places = torch.isin(answer, torch.tensor(ends, device=answer.device)).nonzero()
        return int(places[0]) + 1 if len(places) else len(answer)


def as_parts(content: str | list[dict]) -> list[dict]:
    """The content of a message as chat templates of vision-language models take it: each image is a place."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [{"type": "image"} if part["type"] == "image_url" else part for part in content]


def pictures_of(messages: list[dict]) -> list[Image.Image]:
    """The images of a conversation, which are data URIs in its messages."""
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    contents = [base64.b64decode(url.partition(",")[2]) for url in urls]
    return [decode_image({"bytes": content}, "of a message") for content in contents]


class TransformersEditor:
    """Generates with a causal language model of the transformers library.

    First requests are answered greedily; repeated ones, whose greedy answer was unusable, are sampled.

    Args:
        model: Hub id or folder of a model whose tokenizer has a chat template; its name stands in the column `editor`.
        temperature: of repeated requests.
        settings: the other arguments of [`LocalModel`].

    Raises:
        UserError: if there is no such model, or it has no chat template that takes instructions.
    """

    def __init__(self, model: str, temperature: float = 0.7, **settings: Any):
        self.name, self.temperature = model, temperature
        self.model = LocalModel(model, **settings)

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Answer]]:
        requests = iter(requests)
        while batch := list(islice(requests, self.model.batch_size)):
            first = [request for request in batch if not request.attempt]
            repeated = [request for request in batch if request.attempt]
            for part in filter(None, (first, repeated)):
                conversations = [chat_messages(one.caption, one.wanted, one.rejected) for one in part]
                yield from zip(
                    part, self.model.generate(conversations, seed_of(part[0]), self.temperature), strict=True
                )


def seed_of(request: EditRequest) -> int | None:
    """With which the answer to a repeated request is sampled."""
    return request.seed + 1_000_003 * request.row + request.attempt if request.attempt else None
