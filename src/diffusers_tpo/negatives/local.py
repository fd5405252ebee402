"""Asks a chat model that runs in this process for edits, many captions at a time. Knows nothing of checks or data sets."""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import UserError, reason
from .asking import chat_messages
from .editors import Answer, EditRequest


class TransformersEditor:
    """Generates with a causal language model of the transformers library.

    First requests are answered greedily; repeated ones, whose greedy answer was unusable, are sampled.

    Args:
        model: Hub id or folder of a model whose tokenizer has a chat template; its name stands in the column `editor`.
        batch_size: captions per call of `generate`.
        max_new_tokens: longest answer.
        temperature: of repeated requests.
        template_options: passed to the chat template, such as `{"enable_thinking": false}`.

    Raises:
        UserError: if there is no such model, or it has no chat template that takes instructions.
    """

    def __init__(
        self,
        model: str,
        batch_size: int = 16,
        max_new_tokens: int = 512,
        temperature: float = 0.7,
        revision: str | None = None,
        device: str | None = None,
        template_options: dict | None = None,
        token: str | None = None,
    ):
        source = {"revision": revision, "token": token}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left", **source)
            self.model = AutoModelForCausalLM.from_pretrained(model, dtype="auto", **source)
        except (OSError, ValueError) as error:
            raise UserError(f"--model {model!r} cannot be loaded ({reason(error)})") from error
        if self.tokenizer.chat_template is None:
            raise UserError(
                f"--model {model!r} has no chat template; use a model that was trained to follow instructions"
            )
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.name, self.batch_size = model, batch_size
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.template_options = template_options or {}
        try:
            self._conversation(EditRequest(0, "", ()))
        except TemplateError as error:
            raise UserError(
                f"the chat template of --model {model!r} takes no instructions ({error}); use another model"
            ) from error

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Answer]]:
        requests = iter(requests)
        while batch := list(islice(requests, self.batch_size)):
            first = [request for request in batch if not request.attempt]
            repeated = [request for request in batch if request.attempt]
            for part in filter(None, (first, repeated)):
                yield from zip(part, self._generate(part), strict=True)

    def _conversation(self, request: EditRequest) -> str:
        messages = chat_messages(request.caption, request.wanted, request.rejected)
        options = {"tokenize": False, "add_generation_prompt": True}
        return self.tokenizer.apply_chat_template(messages, **options, **self.template_options)

    @torch.no_grad()
    def _generate(self, batch: list[EditRequest]) -> Iterator[Answer]:
        texts = [self._conversation(request) for request in batch]
        # the template has written its control tokens already
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(self.model.device)
        sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if batch[0].attempt:
            torch.manual_seed(batch[0].seed + 1_000_003 * batch[0].row + batch[0].attempt)
            sampling = {"do_sample": True, "temperature": self.temperature}
        tokens = self.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            **sampling,
        )
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        for asked, answer in zip(inputs["attention_mask"], answers, strict=True):
            text = self.tokenizer.decode(answer, skip_special_tokens=True)
            yield Answer(text, int(asked.sum()), self._length(answer))

    def _length(self, answer: torch.Tensor) -> int:
        """Tokens up to the one that ends the answer; padding follows it."""
        ends = self.model.generation_config.eos_token_id
        if ends is None:
            return len(answer)
        places = torch.isin(answer, torch.tensor(ends, device=answer.device)).nonzero()
        return int(places[0]) + 1 if len(places) else len(answer)
