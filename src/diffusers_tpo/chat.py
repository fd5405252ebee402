"""Asks models behind any OpenAI-compatible endpoint, many requests at a time. Knows nothing of what is asked or why."""

import asyncio
import contextlib
import importlib
import json
import re
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from .errors import UserError, require
from .privacy import without_secrets


Key = TypeVar("Key")

HUGGING_FACE_ROUTER = "https://router.huggingface.co/v1"
NOT_UNDERSTOOD = (400, 415, 422, 501)  # what servers answer to a response format that they do not know
HOPELESS = {
    401: "{key}",
    402: "the credit there",
    403: "{key}",
    404: "{model} and {url}",
}  # what to check
REDIRECTS = (301, 302, 303, 307, 308)
LONGEST_READ = 100_000  # characters of a text; a server gone mad must not stop the run
LARGEST_BODY = 2**24  # bytes of a response, unpacked
TOO_LARGE = f"the response has more than {LARGEST_BODY} bytes"
MOST_TOKENS = 10**9  # that a server may count for one answer
LONGEST_WAIT = 600  # seconds that an endpoint may ask for before the same request is sent again
LIBRARY_WAITS = 60  # of these, the `openai` client waits so many itself in every release
UNREACHED_IN_A_ROW = 10  # requests, each with its retries, after which an endpoint is taken for gone
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


@dataclass(frozen=True)
class Flags:
    """The flags that give a client its model, its endpoints and its key."""

    model: str = "--model"
    url: str = "--base_url"
    key: str = "--api_key_env"


class Refused(UserError):
    """An endpoint that will never answer: wrong key, no such model, no credit, nobody there."""


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


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and the name and password in its URL, which are sent there and shown nowhere.

    Args:
        url: without name and password.
        login: both, if the URL holds them.
    """

    url: str
    login: tuple[str, str] | None = None

    @classmethod
    def of(cls, url: str, flag: str = "--base_url") -> "Endpoint":
        """Raises [`UserError`], naming `flag`, for what no request can be sent to."""
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # of `port`
            usable = False
        if not usable:
            shown = repr(url.rpartition("@")[2])
            raise UserError(f"{flag} must look like http://localhost:8000/v1, got {shown}")
        if parts.username is None:
            return cls(url)
        address = parts.netloc.rpartition("@")[2]
        login = (unquote(parts.username), unquote(parts.password or ""))
        return cls(SplitResult(parts.scheme, address, parts.path, parts.query, "").geturl(), login)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The password, as it is and as it is sent."""
        if self.login is None:
            return ()
        return self.login[1], b64encode(":".join(self.login).encode()).decode()


def describe(error: BaseException, secrets: tuple[str | None, ...] = ()) -> str:
    """The kind of an error and the start of its message, in one printable line; some servers repeat the secrets in it."""
    text = " ".join(str(error).split()).encode(errors="backslashreplace").decode()
    return f"{type(error).__name__}: {without_secrets(text, *secrets)[:200]}"


def root_of(error: BaseException) -> BaseException:
    """What an error came from in the end, such as a refused connection or an unknown host."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return error


def seconds_asked(headers: Mapping[str, str]) -> float:
    """How long the headers of a response ask to wait: by a number, or by a date; 0 if they do not."""
    value = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return float(value)
    with contextlib.suppress(ValueError, TypeError, OverflowError):  # of dates that are none
        return parsedate_to_datetime(value).timestamp() - time.time()
    return 0.0


def bounded_client(openai: Any, timeout: float, login: tuple[str, str] | None) -> Any:
    """The HTTP client of the `openai` package with one deadline and one size for a whole response, and no way elsewhere.

    A response is read whole, up to a little more than [`LARGEST_BODY`] bytes. JSON is UTF-8, whatever its headers say.

    Args:
        timeout: seconds from the first byte sent to the last one received.
        login: name and password, sent with every request.
    """
    base = openai.DefaultAsyncHttpxClient
    http = importlib.import_module(base.__mro__[1].__module__.partition(".")[0])  # httpx, or httpx2 in later releases

    class BoundedClient(base):  # type: ignore[misc, valid-type] # whichever the client stands on
        async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            try:
                async with asyncio.timeout(timeout):
                    response = await super().send(request, stream=True, **options)
                    try:
                        return await self._read(request, response)
                    finally:
                        await response.aclose()
            except TimeoutError as error:
                raise http.ReadTimeout(f"no whole response after {timeout:g} seconds", request=request) from error

        async def _read(self, request: Any, response: Any) -> Any:
            if "," in response.headers.get("content-encoding", ""):
                raise http.DecodingError("the response is packed more than once", request=request)
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > LARGEST_BODY:
                    break
            changed = ("content-type", "content-encoding", "content-length", "transfer-encoding")
            headers = [(name, value) for name, value in response.headers.multi_items() if name not in changed]
            headers.append(("content-type", "application/json; charset=utf-8"))
            return http.Response(response.status_code, headers=headers, content=bytes(body), request=request)

    return BoundedClient(timeout=timeout, auth=login, follow_redirects=False)


def as_count(usage: object, name: str) -> int:
    """A number of tokens, 0 if the server does not say it or says what no answer has."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and 0 <= count <= MOST_TOKENS else 0


def as_answer(body: str) -> Answer:
    """The text and token counts in a response, whose fields a strange server may leave out or fill with anything."""
    try:
        completion = json.loads(body)
        message = completion["choices"][0]["message"]
        text = message.get("content") or message.get("refusal") or ""
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return Answer(failure=f"the response is no chat completion ({type(error).__name__})")
    usage = completion.get("usage")
    return Answer(
        text if isinstance(text, str) else json.dumps(text),
        as_count(usage, "prompt_tokens"),
        as_count(usage, "completion_tokens"),
    )


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
    in `Retry-After` if the server gives one of up to ten minutes. Redirects are not followed: what is sent goes to the
    addresses that are given here.

    Args:
        model: name of the model at the endpoint.
        base_urls: one or more equal endpoints; each request goes to the least busy one, and to another one if that fails.
        api_key: sent to the endpoints, and nowhere else.
        timeout: seconds that one whole answer may take.
        max_retries: of each request at each endpoint.
        options: further parameters of the request, such as `temperature`.
        extra_body: parameters that only some servers know, such as `{"chat_template_kwargs": {"enable_thinking": false}}`.
        extra: of this package, which installs what is needed.
        flags: as messages name them.

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
        flags: Flags = Flags(),
    ):
        self.openai = require("openai", extra=extra)
        self.flags = flags
        self.endpoints = [Endpoint.of(url, self.flags.url) for url in base_urls]
        if concurrency < 1:
            raise UserError(f"--concurrency must be at least 1, got {concurrency}")
        self.model, self.concurrency = model, concurrency
        self.api_key, self.timeout, self.max_retries = api_key, timeout, max_retries
        self.options, self.extra_body = options or {}, extra_body
        self.format = 0  # index of the most structured response format that the endpoint accepts
        self.clients: list[Any] = []
        self.running = [0] * len(base_urls)
        self.unreached = [0] * len(base_urls)  # requests in a row that got no connection, by endpoint

    def _client(self, endpoint: Endpoint) -> Any:
        http_client = bounded_client(self.openai, self.timeout, endpoint.login)
        options = {"timeout": self.timeout, "max_retries": self.max_retries, "http_client": http_client}
        return self.openai.AsyncOpenAI(base_url=endpoint.url, api_key=self.api_key or "none", **options)

    def complete(self, requests: Iterable[tuple[Key, list[dict], dict | None]]) -> Iterator[tuple[Key, Answer]]:
        """Yields answers as they come in. Connections are open as long as this runs.

        Args:
            requests: of a key that the answer will carry, the messages, and the JSON schema of the answer or `None`; no
                more are taken than are worked on.

        Raises:
            Refused: if the endpoint will never answer: wrong key, no such model, no credit, or no connection to any endpoint
                many times in a row.
        """
        waiting = iter(requests)
        tasks: set[asyncio.Task[tuple[Key, Answer]]] = set()
        hopeless: BaseException | None = None
        loop = asyncio.new_event_loop()
        self.clients = [self._client(endpoint) for endpoint in self.endpoints]
        try:
            while True:
                if hopeless is None:
                    for request in islice(waiting, self.concurrency - len(tasks)):
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
                answer = await self._persist(index, messages, schema)
            finally:
                self.running[index] -= 1
            if min(self.unreached) >= UNREACHED_IN_A_ROW:
                raise Refused(self._gone(answer))
            if answer.failure is None or not untried:
                return key, answer

    async def _persist(self, index: int, messages: list[dict], schema: dict | None) -> Answer:
        """The answer of one endpoint, which may ask for more patience than the library has."""
        secrets = (self.api_key, *self.endpoints[index].secrets)
        waits = self.max_retries
        while True:
            try:
                answer = await self._ask(self.clients[index], messages, schema)
                self.unreached[index] = 0
                return answer
            except self.openai.APIStatusError as error:
                self.unreached[index] = 0
                if error.status_code in HOPELESS or error.status_code in REDIRECTS:
                    raise Refused(self._explain(error, index)) from None  # the error may repeat the key
                failure, seconds = describe(error, secrets), seconds_asked(error.response.headers)
            except self.openai.APITimeoutError as error:
                return Answer(failure=describe(error, secrets))
            except self.openai.APIConnectionError as error:
                self.unreached[index] += 1
                return Answer(failure=f"{describe(error, secrets)} ({describe(root_of(error), secrets)})")
            except self.openai.OpenAIError as error:
                return Answer(failure=describe(error, secrets))
            if seconds > LONGEST_WAIT:
                failure += f" (it asks to wait {seconds:.6g} seconds, and at most {LONGEST_WAIT} seconds are waited)"
            if not waits or not LIBRARY_WAITS < seconds <= LONGEST_WAIT:
                return Answer(failure=failure)
            waits -= 1
            await asyncio.sleep(seconds)

    async def _ask(self, client: Any, messages: list[dict], schema: dict | None) -> Answer:
        """One request, repeated with a plainer response format while the server does not understand it."""
        formats = response_formats(schema)
        first_error: Exception | None = None
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
            body = response.http_response
            return as_answer(body.text) if len(body.content) <= LARGEST_BODY else Answer(failure=TOO_LARGE)
        assert first_error is not None  # plain text is always tried
        raise first_error  # not the response format's fault

    def _gone(self, answer: Answer) -> str:
        addresses = " and ".join(endpoint.url for endpoint in self.endpoints)
        return (
            f"no connection to {addresses}, {min(self.unreached)} times in a row, at last with {answer.failure!r}; check that it "
            f"runs and {self.flags.url}, then run the same command again"
        )

    def _explain(self, error: Any, index: int) -> str:
        endpoint = self.endpoints[index]
        secrets = (self.api_key, *endpoint.secrets)
        if error.status_code in REDIRECTS:
            target = error.response.headers.get("location", "").rpartition("@")[2]
            return (
                f"the endpoint {endpoint.url} leads to {without_secrets(target, *secrets)[:200]!r}, and nothing is sent to an "
                f"address that was not named; give that one as {self.flags.url} if you trust it"
            )
        check = HOPELESS[error.status_code].format(**vars(self.flags))
        return (
            f"the endpoint {endpoint.url} refused the request for model {self.model!r} ({describe(error, secrets)}); "
            f"check {check}, then run the same command again"
        )


JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


UNSAFE = re.compile(r"[<>|\[\]\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # the last cannot be sent as UTF-8


def as_data(value: object) -> str:
    """JSON that cannot close a tag or spell a model's control token, such as `<|im_start|>` or `[INST]`."""
    text = json.dumps(value, ensure_ascii=False)
    return JSON_STRING.sub(lambda string: UNSAFE.sub(lambda one: f"\\u{ord(one[0]):04x}", string[0]), text)
