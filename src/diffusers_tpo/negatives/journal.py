"""Keeps answers, one line each, so that a killed run asks for none of them again."""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from ..chat import LONGEST_READ, MOST_TOKENS
from ..errors import UserError
from ..files import publish_file
from .editors import Answer, EditRequest, Edits


logger = logging.getLogger(__name__)
SYNC_SECONDS = 1.0  # what a power cut may cost; a killed process loses nothing


def check_counts(**counts: object) -> None:
    """Raises `ValueError` for what is no whole number of at least 0."""
    for name, value in counts.items():
        if type(value) is not int or value < 0:
            raise ValueError(f"{name} must be a whole number of at least 0")


def check_tokens(prompt: int, completion: int) -> None:
    """Raises `ValueError` for numbers of tokens that no answer has."""
    check_counts(prompt_tokens=prompt, completion_tokens=completion)
    if max(prompt, completion) > MOST_TOKENS:
        raise ValueError(f"an answer has at most {MOST_TOKENS} tokens")


@dataclass(frozen=True)
class Record:
    """One answer as a journal keeps it: as much of it as is ever read.

    Args:
        row: number of the caption in its data set.
        attempt: which request about this caption it answers, from 0 on.
        answer: the text of a model, or captions; see [`Editor`].
        slots: numbers of the mismatched prompts that were asked for.
        prompt_tokens, completion_tokens: what it cost.

    Raises:
        ValueError: naming what no answer has; so nothing is written that could not be read again.
    """

    row: int
    attempt: int
    answer: str | tuple[str | None, ...]
    slots: tuple[int, ...] = (0,)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __post_init__(self) -> None:
        check_counts(
            row=self.row, attempt=self.attempt, **{f"slot {number}": slot for number, slot in enumerate(self.slots)}
        )
        check_tokens(self.prompt_tokens, self.completion_tokens)
        texts = (self.answer,) if isinstance(self.answer, str) else self.answer
        if not isinstance(texts, tuple) or not all(text is None or isinstance(text, str) for text in texts):
            raise ValueError("an answer is a text, or captions with None for none")
        if any(len(text) > LONGEST_READ for text in texts if text is not None):
            raise ValueError(f"an answer is kept up to {LONGEST_READ} characters")

    @classmethod
    def of(cls, request: EditRequest, answer: Answer | Edits) -> "Record":
        if isinstance(answer, Edits):
            captions = (text and text[:LONGEST_READ] for text in answer.captions)
            return cls(request.row, request.attempt, tuple(captions), request.slots)
        text = answer.text[:LONGEST_READ]
        tokens = answer.prompt_tokens, answer.completion_tokens
        return cls(request.row, request.attempt, text, request.slots, *tokens)

    @classmethod
    def read(cls, line: bytes) -> "Record":
        """Raises `ValueError` for a line that is no record."""
        try:
            fields = json.loads(line)
            prompt_tokens, completion_tokens = fields["tokens"]
            answer = tuple(fields["answer"]) if isinstance(fields["answer"], list) else fields["answer"]
            slots = tuple(fields["slots"])
            return cls(fields["row"], fields["attempt"], answer, slots, prompt_tokens, completion_tokens)
        except (LookupError, TypeError, RecursionError) as error:
            raise ValueError(f"it is no record of an answer ({type(error).__name__})") from error

    def line(self) -> bytes:
        fields = {"row": self.row, "attempt": self.attempt, "slots": self.slots, "answer": self.answer}
        return json.dumps(fields | {"tokens": [self.prompt_tokens, self.completion_tokens]}).encode() + b"\n"


class Line(Protocol):
    """What a journal keeps."""

    def line(self) -> bytes: ...


Kept = TypeVar("Kept", bound=Line)


class Lines(Generic[Kept]):
    """Records in a file, a JSON line for each.

    Args:
        path: need not exist.
        read: gives the records in lines, and the lines that are none.

    Attributes:
        records: those that were there. A line that is none is set aside in a file beside the journal: what it held is asked
            again. A last line that a killed run left unfinished is cut off.
    """

    def __init__(self, path: Path, read: Callable[[list[bytes]], tuple[list[Kept], list[bytes]]]):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        *lines, unfinished = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
        self.records, damaged = read(lines)
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

    def keep(self, record: Kept) -> None:
        self.file.write(record.line())
        self.file.flush()
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self._sync()

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Journal(Lines[Record]):
    """The answers of an editor about some captions, each caption's in the order of its requests.

    A line that follows on a damaged one of its caption counts as damaged too.

    Args:
        path: need not exist.
        rows: numbers of the captions.
    """

    def __init__(self, path: Path, rows: Collection[int]):
        super().__init__(path, lambda lines: read_records(lines, rows))

    def append(self, request: EditRequest, answer: Answer | Edits) -> Record:
        """Keeps an answer, as much of it as is ever read."""
        record = Record.of(request, answer)
        self.keep(record)
        return record


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
