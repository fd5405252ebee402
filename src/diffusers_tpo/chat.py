"""Asks models behind any OpenAI-compatible endpoint, many requests at a time. Knows nothing of what is asked or why."""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar
from urllib.parse import urlsplit

from .errors import UserError, require


Key = TypeVar("Key")

HUGGING_FACE_ROUTER = "https://router.huggingface.co/v1"
NOT_UNDERSTOOD = (400, 415, 422, 501)  # what servers answer to a response format that they do not know
CHECK = {401: "api_key_env", 402: "the credit there", 403: "api_key_env", 404: "model and base_url"}  # hopeless errors
LONGEST_READ = 100_000  # characters of a text; a server gone mad must not stop the run
# some chat templates write the opening tag themselves, and some answers end before the closing one
THOUGHT = re.compile(r"\A.*</think(?:ing)?>|<think(?:ing)?>.*\Z", re.DOTALL | re.IGNORECASE)
BRACKET = re.compile(r"[{\[]")


@dataclass(frozen=True)
class Answer:
    """What came back for one request: a text, or the reason why there is none.

    Args:
        text: unchecked; any model may write anything.
        prompt_tokens, completion_tokens: as the model counts them; 0 without a model.
        failure: why there is no text; such a request may be made again later.
    """

    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failure: str | None = None


class Refused(UserError):
    """An endpoint that will never answer: wrong key, no such model, no credit."""


def response_formats(schema: dict | None) -> tuple[dict | None, ...]:
    """Ways to ask for an answer of a JSON schema, the most structured one first; its first property names it.

    Returns:
        Four formats, `None` being plain text; all are `None` without a schema.
    """
    if schema is None:
        return (None,) * 4
    return (
        {
            "type": "json_schema",
            "json_schema": {"name": next(iter(schema["properties"])), "schema": schema, "strict": True},
        },
        {"type": "json_object", "schema": schema},  # the schema is for llama.cpp; others ignore it
        {"type": "json_object"},
        None,
    )


def check_url(url: str) -> None:
    """Raises [`UserError`] for what no request can be sent to."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of `port`
        usable = False
    if not usable:
        raise UserError(f"base_url must look like http://localhost:8000/v1, got {url!r}")


def describe(error: Exception, secret: str | None = None) -> str:
    """The kind of an error and the start of its message, in one printable line; some servers repeat the secret in it."""
    text = " ".join(str(error).split()).encode(errors="backslashreplace").decode()
    return f"{type(error).__name__}: {(text.replace(secret, '***') if secret else text)[:200]}"


def as_count(usage, name: str) -> int:
    """A number of tokens, 0 if the server does not say it."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0


def as_answer(body: str) -> Answer:
    """The text and token counts in a response, whose fields a strange server may leave out or fill with anything."""
    try:
        body = json.loads(body)
        message = body["choices"][0]["message"]
        text = message.get("content") or message.get("refusal") or ""
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return Answer(failure=f"the response is no chat completion ({type(error).__name__})")
    counts = [as_count(body.get("usage"), name) for name in ("prompt_tokens", "completion_tokens")]
    return Answer(text if isinstance(text, str) else json.dumps(text), *counts)


def spoken(text: str) -> str:
    """A model's text without what it wrote while it was thinking, cut to what is ever read."""
    return THOUGHT.sub("", text[:LONGEST_READ]).strip()


def json_values(text: str) -> Iterator:
    """Every JSON value that starts at a bracket of the text, outermost first: in prose, in a code fence, broken off."""
    decoder, position, tries = json.JSONDecoder(), 0, 0
    while tries < 50 and (match := BRACKET.search(text, position)):
        tries += 1
        try:
            value, position = decoder.raw_decode(text, match.start())
            yield value
        except (ValueError, RecursionError):
            position = match.start() + 1


class ChatClient:
    """Sends many requests at once, and never more than `concurrency`.

    Answers are asked for in the most structured way that the server accepts: a JSON schema, a JSON object, plain text.
    The client repeats a request that failed for a passing reason (429, 5xx, timeouts, broken connections), after the time
    in `Retry-After` if the server gives one of up to two minutes.

    Args:
        model: name of the model at the endpoint.
        base_urls: one or more equal endpoints; each request goes to the least busy one, and to another one if that fails.
        api_key: sent to the endpoints, and nowhere else.
        timeout: seconds that the endpoint may stay silent.
        max_retries: of each request at each endpoint.
        options: further parameters of the request, such as `temperature`.
        extra_body: parameters that only some servers know, such as `{"chat_template_kwargs": {"enable_thinking": false}}`.
        extra: of this package, which installs what is needed.

    Raises:
        UserError: if a URL cannot be one, nothing may be asked at once, or the package `openai` is missing.
    """

    def __init__(
        self,
        model: str,
        base_urls: tuple[str, ...] = (HUGGING_FACE_ROUTER,),
        api_key: str | None = None,
        concurrency: int = 32,
        timeout: float = 120.0,
        max_retries: int = 5,
        options: dict | None = None,
        extra_body: dict | None = None,
        extra: str = "negatives",
    ):
        self.openai = require("openai", extra=extra)
        for url in base_urls:
            check_url(url)
        if concurrency < 1:
            raise UserError(f"concurrency must be 1 or more, got {concurrency}")
        self.model, self.base_urls, self.concurrency = model, base_urls, concurrency
        self.api_key = api_key
        self.client_options = {"api_key": api_key or "none", "timeout": timeout, "max_retries": max_retries}
        self.options, self.extra_body = options or {}, extra_body
        self.format = 0  # index of the most structured response format that the endpoint accepts
        self.clients = []
        self.running = [0] * len(base_urls)

    def complete(self, requests: Iterable[tuple[Key, list[dict], dict | None]]) -> Iterator[tuple[Key, Answer]]:
        """Yields answers as they come in. Connections are open as long as this runs.

        Args:
            requests: of a key that the answer will carry, the messages, and the JSON schema of the answer or `None`; no
                more are taken than are worked on.

        Raises:
            Refused: if the endpoint will never answer: wrong key, no such model, no credit.
        """
        requests, tasks, hopeless, loop = iter(requests), set(), None, asyncio.new_event_loop()
        self.clients = [self.openai.AsyncOpenAI(base_url=url, **self.client_options) for url in self.base_urls]
        try:
            while True:
                if hopeless is None:
                    for request in islice(requests, self.concurrency - len(tasks)):
                        tasks.add(loop.create_task(self._answer(*request)))
                if not tasks:
                    break
                done, tasks = loop.run_until_complete(asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))
                hopeless = next((task.exception() for task in done if task.exception()), hopeless)
                yield from [task.result() for task in done if not task.exception()]
            if hopeless is not None:  # raised last: what others had asked for is answered and paid
                raise hopeless
        finally:
            loop.run_until_complete(self._close(tasks))
            loop.close()

    async def _close(self, tasks: set[asyncio.Task]) -> None:
        """Gives up what is still asked for, which is nothing unless the caller stopped, and closes every connection."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(client.close() for client in self.clients), return_exceptions=True)

    async def _answer(self, key: Key, messages: list[dict], schema: dict | None) -> tuple[Key, Answer]:
        untried = set(range(len(self.clients)))
        while True:
            index = min(untried, key=self.running.__getitem__)
            untried.remove(index)
            self.running[index] += 1
            try:
                answer = await self._ask(self.clients[index], messages, schema)
            except self.openai.APIStatusError as error:
                if error.status_code in CHECK:
                    raise Refused(self._explain(error, index)) from None  # the error may repeat the key
                answer = Answer(failure=describe(error, self.api_key))
            except self.openai.OpenAIError as error:  # no connection, or a timeout
                answer = Answer(failure=describe(error, self.api_key))
            finally:
                self.running[index] -= 1
            if answer.failure is None or not untried:
                return key, answer

    async def _ask(self, client, messages: list[dict], schema: dict | None) -> Answer:
        """One request, repeated with a plainer response format while the server does not understand it."""
        formats, first_error = response_formats(schema), None
        for number in range(self.format if schema else len(formats) - 1, len(formats)):
            structure = {} if formats[number] is None else {"response_format": formats[number]}
            try:
                response = await client.chat.completions.with_raw_response.create(
                    model=self.model, messages=messages, extra_body=self.extra_body, **structure, **self.options
                )
            except self.openai.APIStatusError as error:
                if error.status_code not in NOT_UNDERSTOOD:
                    raise
                first_error = first_error or error
                continue
            if schema is not None:
                self.format = max(self.format, number)
            return as_answer(response.http_response.text)
        raise first_error  # not the response format's fault

    def _explain(self, error, index: int) -> str:
        return (
            f"the endpoint {self.base_urls[index]} refused the request for model {self.model!r} "
            f"({describe(error, self.api_key)}); check {CHECK[error.status_code]}, then run the same command again"
        )


JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


UNSAFE = re.compile(r"[<>|\[\]\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # the last cannot be sent as UTF-8


def as_data(value) -> str:
    """JSON that cannot close a tag or spell a model's control token, such as `<|im_start|>` or `[INST]`."""
    text = json.dumps(value, ensure_ascii=False)
    return JSON_STRING.sub(lambda string: UNSAFE.sub(lambda one: f"\\u{ord(one[0]):04x}", string[0]), text)
