"""Endpoints that never end, lead elsewhere, or repeat secrets: one deadline, one size and one address for every answer."""

import asyncio
import email.utils
import gzip
import itertools
import time
import traceback
import tracemalloc

import pytest
from chat_server import MODEL, ChatServer, Reply, completion, good, in_turn, refused

from diffusers_tpo import chat
from diffusers_tpo.chat import LARGEST_BODY, Answer, ChatClient, Refused
from diffusers_tpo.errors import UserError


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
OPEN = HEAD + b"content-length: 1000000000\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
SECRET = "pass-word-1234"


def ask(*urls: str, number: int = 1, **options) -> list[Answer]:
    options = {"timeout": 0.5, "max_retries": 0} | options
    client = ChatClient(MODEL, urls, **options)
    messages = [{"role": "user", "content": '{"caption": "a red cat", "wanted": [{"principle": "content"}]}'}]
    return [answer for _, answer in client.complete((key, messages, None) for key in range(number))]


def ask_one(reply, **options) -> tuple[Answer, ChatServer, float]:
    """The answer to one request, the server, and the seconds that it took."""
    started = time.monotonic()
    with ChatServer(reply if callable(reply) else lambda asked: reply) as server:
        (answer,) = ask(server.url, **options)
        return answer, server, time.monotonic() - started


DRIPS = {
    "the status line": (b"", b"H"),
    "headers": (HEAD, b"x-more: 1\r\n"),
    "a body": (OPEN, b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
}


@pytest.mark.parametrize("start, piece", DRIPS.values(), ids=DRIPS)
def test_what_drips_ends_at_the_deadline(start, piece):
    drip = Reply(pieces=itertools.chain([start], itertools.repeat(piece, 1000)), pause=0.05)  # of 50 seconds
    answer, server, seconds = ask_one(drip)
    assert answer == Answer(failure="APITimeoutError: Request timed out.")
    assert 0.4 < seconds < 25 and len(server.asked) == 1


def test_an_answer_that_dripped_once_is_asked_for_again():
    drip = Reply(pieces=itertools.chain([OPEN], itertools.repeat(b" ", 1000)), pause=0.05)
    answer, server, _ = ask_one(in_turn(drip, good), max_retries=1)
    assert answer.failure is None and len(server.asked) == 2


MEGABYTE = b" " * 2**20
BOMB = gzip.compress(bytes(100 * 2**20), 9)
ENDLESS = {
    "a body": itertools.chain([OPEN], itertools.repeat(MEGABYTE, 200)),
    "chunks": itertools.chain([CHUNKED], itertools.repeat(b"100000\r\n" + MEGABYTE + b"\r\n", 200)),
    "an error": itertools.chain([OPEN.replace(b"200 OK", b"400 No")], itertools.repeat(MEGABYTE, 200)),
    "a gzip bomb": [HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(BOMB), BOMB],
}


@pytest.mark.parametrize("pieces", ENDLESS.values(), ids=ENDLESS)
def test_what_is_larger_than_any_answer_is_not_read(pieces):
    tracemalloc.start()
    answer, server, _ = ask_one(Reply(pieces=pieces), timeout=30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.text == "" and len(server.asked) == 1
    assert answer.failure == chat.TOO_LARGE or answer.failure.startswith("BadRequestError: Error code: 400")
    assert server.sent < 3 * LARGEST_BODY and peak < 8 * LARGEST_BODY


def test_a_body_that_is_packed_twice_is_refused():
    twice = gzip.compress(gzip.compress(completion("x").body.encode()))
    answer, _, _ = ask_one(Reply(body=twice, headers={"content-encoding": "gzip, gzip"}))
    assert answer.failure.startswith(
        "APIConnectionError: Connection error. (DecodingError: the response is packed more"
    )
    once = Reply(body=gzip.compress(completion("x").body.encode()), headers={"content-encoding": "gzip"})
    assert ask_one(once)[0].text == "x"


@pytest.mark.parametrize("charset", ["hex", "zlib", "idna", "rot13", "utf-16", "undefined", "unicode_escape", '"'])
@pytest.mark.parametrize("status", [200, 400])
def test_json_is_read_as_utf_8_whatever_its_content_type_says(charset, status):
    headers = {"content-type": f"application/json; charset={charset}"}
    body = '{"choices": [{"message": {"content": "a café"}}], "error": {"message": "a café"}}'
    answer, _, _ = ask_one(Reply(status, body, headers))
    assert (answer.text if status == 200 else answer.failure[-20:]).count("a café") == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_is_sent_to_an_address_that_was_not_named(status):
    with ChatServer() as other, ChatServer() as server:
        server.behaviour = lambda asked: refused(status, location=f"{other.url}/chat/completions")
        with pytest.raises(Refused, match=f"leads to '{other.url}/chat/completions'.*--base_url"):
            ask(server.url)
        assert not other.asked and len(server.asked) == 1


# How long to wait


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The long waits, which pass at once."""
    found, sleep = [], asyncio.sleep

    async def quick(seconds, *result):
        if seconds > 100:
            found.append(seconds)
            seconds = 0
        return await sleep(seconds, *result)

    monkeypatch.setattr(asyncio, "sleep", quick)
    return found


@pytest.mark.parametrize("as_date", [False, True])
def test_a_long_wait_that_is_asked_for_is_waited(waits, as_date):
    header = email.utils.formatdate(time.time() + 301, usegmt=True) if as_date else 300
    answer, server, _ = ask_one(in_turn(refused(429, retry_after=header), good), max_retries=1, timeout=5)
    assert answer.failure is None and len(server.asked) == 2
    assert waits == [pytest.approx(300, abs=2)]


@pytest.mark.parametrize("header", ["3600", "inf", "1e99", "99999999999999999999"])
def test_a_wait_that_is_too_long_is_said(waits, header):
    answer, server, _ = ask_one(refused(429, "slow down", retry_after=header), max_retries=0)
    assert "slow down" in answer.failure and not waits
    assert "it asks to wait" in answer.failure and "at most 600 seconds are waited" in answer.failure


@pytest.mark.parametrize("header", ["nan", "-5", "soon", "", "Thu, 99 Nov 9999999999 00:00:00 GMT"])
def test_a_wait_that_is_none_is_left_to_the_client(waits, header):
    answer, server, _ = ask_one(refused(503, "busy", retry_after=header), max_retries=0)
    assert answer.failure.startswith("InternalServerError") and not waits and "it asks" not in answer.failure


# Secrets


@pytest.mark.parametrize("status", [400, 401, 307])
def test_a_password_in_a_base_url_is_sent_and_never_shown(status, caplog):
    caplog.set_level("INFO")
    with ChatServer() as server:
        url = server.url.replace("http://", f"http://user:{SECRET}@")
        server.behaviour = lambda asked: refused(
            status, f"no: {asked.headers['authorization']} {SECRET}", location=url
        )
        try:
            told = ask(url)[0].failure
        except UserError as error:
            told = repr(error) + "".join(traceback.format_exception(error))
        assert [asked.headers["authorization"] for asked in server.asked] == ["Basic dXNlcjpwYXNzLXdvcmQtMTIzNA=="]
    for secret in (SECRET, "dXNlcjpwYXNzLXdvcmQtMTIzNA=="):
        assert secret not in told and secret not in caplog.text
    assert "127.0.0.1" in told or status == 400


@pytest.mark.parametrize("url", ["http://user:pw@localhost:80x0/v1", "ftp://user:pw@localhost/v1", "user:pw@host"])
def test_a_base_url_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(UserError, match="--base_url") as error:
        ChatClient(MODEL, (url,))
    assert "pw" not in str(error.value)


# What a server counts


@pytest.mark.parametrize("count", [10**4000, -1, True, 1.5, "5", 10**12])
def test_a_count_of_tokens_that_no_answer_has_is_left_out(count):
    answer, _, _ = ask_one(completion("x", usage={"prompt_tokens": count, "completion_tokens": 3}))
    assert answer == Answer("x", 0, 3)
