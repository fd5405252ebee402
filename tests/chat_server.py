"""A chat server for tests and benchmarks: real HTTP on this machine, scripted answers, every request recorded.

    python tests/chat_server.py --latency 1.0 --port 0

prints its base URL and answers every request with good edits after that many seconds. In a test, a behaviour decides:
a function from what was asked to the reply.
"""

import argparse
import asyncio
import base64
import io
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from PIL import Image


MODEL = "tiny-llm"
EXCHANGES = {
    "content": ("cat", "dog", "rabbit", "horse", "zebra"),
    "attribute": ("red", "blue", "green", "yellow", "purple"),
    "spatial": ("left", "right", "top", "bottom", "middle"),
    "contextual": ("morning", "evening", "winter", "storm", "desert"),
}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
LONGEST_HEAD = 2**16


@dataclass(frozen=True)
class Asked:
    """One request as it came in; `number` counts all of them."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: dict | None
    time: float

    @property
    def task(self) -> dict:
        """What the user message asks for."""
        return json.loads(self.body["messages"][-1]["content"])

    @property
    def caption(self) -> str:
        return self.task["caption"]

    @property
    def parts(self) -> list[dict]:
        """What the last message consists of."""
        content = self.body["messages"][-1]["content"]
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    @property
    def image(self) -> Image.Image | None:
        """What the last message shows, as the server decodes it."""
        for part in self.parts:
            if part["type"] == "image_url":
                kind, _, data = part["image_url"]["url"].partition(",")
                assert kind == "data:image/png;base64"
                return Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["PNG"])
        return None

    @property
    def questions(self) -> list[str]:
        """The numbered questions of the last message."""
        text = "".join(part.get("text", "") for part in self.parts)
        numbered = re.findall(r'^(\d+)\. (".*")$', text, re.MULTILINE)
        assert [int(number) for number, _ in numbered] == list(range(1, len(numbered) + 1))
        return [json.loads(question) for _, question in numbered]


@dataclass(frozen=True)
class Reply:
    """What the server sends back `delay` seconds after `until` holds; `cut` closes the connection "before" it or "half" way.

    `pieces` takes the place of all else: what goes over the wire piece by piece, head and body, `pause` seconds apart.
    """

    status: int = 200
    body: str | bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    until: Callable[[], bool] | None = None
    delay: float = 0.0
    cut: str | None = None
    pieces: Iterable[bytes] | None = None
    pause: float = 0.0

    def after(self, seconds: float) -> "Reply":
        return replace(self, delay=seconds)

    def held_until(self, condition: Callable[[], bool]) -> "Reply":
        """The same once the condition holds, however busy the machine is; or after 60 seconds, so that a test ends."""
        return replace(self, until=condition)


Behaviour = Callable[[Asked], Reply]


def exchanged(caption: str, principle: str, number: int) -> str | None:
    """Exchanges the first word of the principle's kind, or else the last word; each `number` gives another edit."""
    kind = EXCHANGES[principle]
    place = re.search(rf"\b({'|'.join(kind)})\b", caption) or next(re.finditer(r"\w+(?=\W*$)", caption), None)
    if place is None:
        return None
    others = [word for word in kind if word != place.group()]
    return caption[: place.start()] + others[number % len(others)] + caption[place.end() :]


def edits(task: dict) -> list[dict]:
    """What a good language model answers: another edit for every wanted one, and none that was unusable already."""
    counts = Counter()
    answered = []
    for wanted in task["wanted"]:
        principle = wanted["principle"]
        number = counts[principle] + len(task.get("unusable", ()))
        counts[principle] += 1
        answered.append({"principle": principle, "caption": exchanged(task["caption"], principle, number)})
    return answered


def completion(message: dict | str, **fields) -> Reply:
    """A chat completion with one message, given by its content or in whole; `fields` replace others of the body."""
    message = {"role": "assistant", "content": message} if isinstance(message, str) else message
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
    return Reply(body=json.dumps({name: value for name, value in (body | fields).items() if value is not ...}))


def good(asked: Asked) -> Reply:
    return completion(json.dumps({"edits": edits(asked.task)}, ensure_ascii=False))


def facts(prompt: str) -> list[dict]:
    """What a good language model asks about colours and where they are: "red on the left" is two facts."""
    found = []
    for colour, place in re.findall(rf"\b({'|'.join(COLOURS)})\b(?:.*?\b(left|right)\b)?", prompt):
        other = next(name for name in COLOURS if name not in prompt)
        pair = {"yes": f"Is anything {colour}?", "no": f"Is anything {other}?"}
        found.append({"principle": "attribute", **pair})
        if place:
            pair = {"yes": f"Is the {place} half {colour}?", "no": f"Is the {place} half {other}?"}
            found.append({"principle": "spatial", **pair})
    return found


def sees(image: Image.Image, question: str) -> bool:
    """Looks at the pixels: whether some have a colour, or most of a half."""
    place, colour = re.fullmatch(r"Is (?:anything|the (left|right) half) (\w+)\?", question).groups()
    width, height = image.size
    middle = width // 2
    box = {"left": (0, 0, middle, height), "right": (middle, 0, width, height)}.get(place, (0, 0, width, height))
    pixels = {value: number for number, value in image.crop(box).getcolors(width * height)}
    share = pixels.get(COLOURS[colour], 0) / sum(pixels.values())
    return share > 0.5 if place else share > 0


def vision(asked: Asked) -> Reply:
    """A good vision-language model: writes questions about a prompt, and answers questions about an image."""
    if asked.image is None:
        return completion(json.dumps({"facts": facts(asked.task["prompt"])}))
    answers = ["yes" if sees(asked.image, question) else "no" for question in asked.questions]
    return completion(json.dumps({"answers": answers}))


def refused(status: int, message: str = "no", **headers) -> Reply:
    """An error as OpenAI-compatible servers send it; header names are written with underscores."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": status}})
    return Reply(status, body, {name.replace("_", "-"): str(value) for name, value in headers.items()})


def in_turn(*replies: Reply | Behaviour) -> Behaviour:
    """The first reply for the first request about a caption, the second for the second; the last one stays."""
    counts = Counter()

    def behave(asked: Asked) -> Reply:
        reply = replies[min(counts[asked.caption], len(replies) - 1)]
        counts[asked.caption] += 1
        return reply(asked) if callable(reply) else reply

    return behave


class ChatServer:
    """Serves in a thread of this process between `with ChatServer(...) as server` and the end of the block.

    Attributes:
        asked: every request to `/chat/completions` so far, in order.
        most_in_flight: how many of them were unanswered at one time.
    """

    def __init__(self, behaviour: Behaviour = good, port: int = 0):
        self.behaviour, self.port = behaviour, port
        self.asked: list[Asked] = []
        self.in_flight = self.most_in_flight = self.connections = 0
        self.sent = 0  # bytes of pieces
        self.broken: Exception | None = None  # an error in the behaviour itself
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "ChatServer":
        opening = asyncio.start_server(self._connection, "127.0.0.1", self.port, limit=LONGEST_HEAD, backlog=1024)
        self.server = self.loop.run_until_complete(opening)
        self.port = self.server.sockets[0].getsockname()[1]
        self.thread.start()
        return self

    def __exit__(self, *error) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        if self.broken is not None and error[0] is None:
            raise self.broken

    def _run(self) -> None:
        self.loop.run_forever()
        self.server.close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):  # the client is gone, or we are
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; False ends the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if (method, path) == ("POST", "/v1/chat/completions"):
            asked = Asked(len(self.asked), method, path, headers, json.loads(body), time.monotonic())
            self.asked.append(asked)
            reply = await self._reply(asked)
        elif (method, path) == ("GET", "/v1/models"):
            reply = Reply(body=json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}))
        else:
            reply = refused(404, f"{method} {path} is not served")
        return await self._send(writer, reply)

    async def _reply(self, asked: Asked) -> Reply:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self.behaviour(asked)
            given_up = time.monotonic() + 60
            while reply.until is not None and not reply.until() and time.monotonic() < given_up:
                await asyncio.sleep(0.002)
            if reply.delay:
                await asyncio.sleep(reply.delay)
            return reply
        except Exception as error:
            self.broken = self.broken or error
            return refused(500, f"the test's behaviour failed: {error!r}")
        finally:
            self.in_flight -= 1

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> bool:
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        if reply.cut == "before":
            return False
        if reply.pieces is not None:
            for piece in reply.pieces:
                writer.write(piece)
                await writer.drain()
                self.sent += len(piece)
                await asyncio.sleep(reply.pause)
            return False
        headers = {"content-type": "application/json", "content-length": str(len(body))} | reply.headers
        lines = [f"HTTP/1.1 {reply.status} {'OK' if reply.status < 400 else 'Error'}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        writer.write(body[: len(body) // 2] if reply.cut == "half" else body)
        await writer.drain()
        return reply.cut is None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=1.0, help="Seconds before every answer.")
    parser.add_argument("--port", type=int, default=0, help="A free one by default.")
    args = parser.parse_args()
    with ChatServer(lambda asked: good(asked).after(args.latency), args.port) as server:
        print(server.url, flush=True)
        server.thread.join()


if __name__ == "__main__":
    main()
