"""Keeps the answers of an editor, one line each, so that a killed run asks for none of them again."""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..chat import LONGEST_READ, MOST_TOKENS
from ..errors import UserError
from ..files import publish_file
from .editors import Answer, EditRequest, Edits


logger = logging.getLogger(__name__)
SYNC_SECONDS = 1.0  # what a power cut may cost; a killed process loses nothing


@dataclass(frozen=True)
class Record:
    """One answer as a journal keeps it: as much of it as is ever read.

    Args:
        row: number of the caption in its data set.
        attempt: which request about this caption it answers, from 0 on.
        answer: the text of a model, or captions; see [`Editor`].
        prompt_tokens, completion_tokens: what it cost.

    Raises:
        ValueError: naming what no answer has; so nothing is written that could not be read again.
    """

    row: int
    attempt: int
    answer: str | tuple[str | None, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("row", "attempt", "prompt_tokens", "completion_tokens"):
            if type(value := getattr(self, name)) is not int or value < 0:
                raise ValueError(f"{name} must be a whole number of at least 0")
        if max(self.prompt_tokens, self.completion_tokens) > MOST_TOKENS:
            raise ValueError(f"an answer has at most {MOST_TOKENS} tokens")
        texts = (self.answer,) if isinstance(self.answer, str) else self.answer
        if not isinstance(texts, tuple) or not all(text is None or isinstance(text, str) for text in texts):
            raise ValueError("an answer is a text, or captions with None for none")
        if any(len(text) > LONGEST_READ for text in texts if text is not None):
            raise ValueError(f"an answer is kept up to {LONGEST_READ} characters")

    @classmethod
    def of(cls, request: EditRequest, answer: Answer | Edits) -> "Record":
        if isinstance(answer, Edits):
            captions = (text and text[:LONGEST_READ] for text in answer.captions)
            return cls(request.row, request.attempt, tuple(captions))
        text = answer.text[:LONGEST_READ]
        return cls(request.row, request.attempt, text, answer.prompt_tokens, answer.completion_tokens)

    @classmethod
    def read(cls, line: bytes) -> "Record":
        """Raises `ValueError` for a line that is no record."""
        try:
            fields = json.loads(line)
            prompt_tokens, completion_tokens = fields["tokens"]
            answer = tuple(fields["answer"]) if isinstance(fields["answer"], list) else fields["answer"]
            return cls(fields["row"], fields["attempt"], answer, prompt_tokens, completion_tokens)
        except (LookupError, TypeError, RecursionError) as error:
            raise ValueError(f"it is no record of an answer ({type(error).__name__})") from error

    def line(self) -> bytes:
        fields = {"row": self.row, "attempt": self.attempt, "answer": self.answer}
        return json.dumps(fields | {"tokens": [self.prompt_tokens, self.completion_tokens]}).encode() + b"\n"


class Journal:
    """The answers about some captions, a JSON line for each.

    Args:
        path: need not exist.
        rows: numbers of the captions.

    Attributes:
        records: the answers that were there, each caption's in the order of its requests. A line that is none of them is set
            aside in a file beside the journal, and so is what followed on it: these requests are made again. A last line that
            a killed run left unfinished is cut off.
    """

    def __init__(self, path: Path, rows: Collection[int]):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        *lines, unfinished = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
        self.records, damaged = read_records(lines, rows)
        if damaged:
            self._set_aside(damaged)
        if damaged or unfinished:
            partial = self.path.with_name(f".partial-{self.path.name}")
            partial.write_bytes(b"".join(record.line() for record in self.records))
            publish_file(partial, self.path)
        self.file = self.path.open("ab")
        self.synced = time.monotonic()

    def _set_aside(self, damaged: list[bytes]) -> None:
        beside = self.path.with_suffix(".damaged")
        with beside.open("ab") as file:
            file.writelines(line + b"\n" for line in damaged)
        logger.warning(f"{len(damaged)} damaged lines of {self.path} are set aside in {beside}; they are asked again")

    def append(self, request: EditRequest, answer: Answer | Edits) -> Record:
        """Keeps an answer, as much of it as is ever read."""
        record = Record.of(request, answer)
        self.file.write(record.line())
        self.file.flush()
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self._sync()
        return record

    def _sync(self) -> None:
        os.fsync(self.file.fileno())
        self.synced = time.monotonic()
        if not os.fstat(self.file.fileno()).st_nlink:
            raise UserError(
                f"{str(self.path)!r} was deleted while the run wrote to it; start again, and leave its folder alone"
            )

    def close(self) -> None:
        try:
            self._sync()
        finally:
            self.file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_records(lines: list[bytes], rows: Collection[int]) -> tuple[list[Record], list[bytes]]:
    """The records in lines of a journal about some captions, and the lines that are none or follow on one that is lost."""
    records, damaged = [], []
    attempts: Counter[int] = Counter()
    for line in lines:
        try:
            record = Record.read(line)
        except ValueError:
            damaged.append(line)
            continue
        if record.row in rows and record.attempt == attempts[record.row]:
            attempts[record.row] += 1
            records.append(record)
        else:
            damaged.append(line)
    return records, damaged
