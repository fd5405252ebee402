"""Asks judges, who compare two captions or look at the image, whether edits contradict. Knows nothing of who edits."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from ..chat import LONGEST_READ, Answer
from ..errors import UserError
from ..show import thumbnail
from .journal import Lines, check_counts, check_tokens
from .verdicts import (
    TEXT_SCHEMA,
    UNFIT,
    UNREAD,
    Candidate,
    image_messages,
    read_image_verdict,
    read_text_verdict,
    text_messages,
)


FAILURES_IN_A_ROW = 100
READINGS = 2  # answers that cannot be read before a question counts as unanswered
LONGEST_SIDE = 1024  # pixels of an image as it is sent


class Model(Protocol):
    """What answers conversations: an endpoint, or a model in this process."""

    def complete(self, requests: Iterable[tuple]) -> Iterator[tuple]:
        """Yields a key with its [`Answer`] for each key, messages and JSON schema."""
        ...


@dataclass(frozen=True)
class Question:
    """What is asked about one caption.

    Args:
        row: number of the caption in its data set.
        candidates: its edits that nobody has judged yet.
    """

    row: int
    caption: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Opinion:
    """What a judge says of one text of a caption.

    Args:
        row: number of the caption in its data set.
        judge: `text` or `image`.
        text: an edit, or the caption itself.
        refused: why, see [`REFUSALS`] and [`UNFIT`]; nothing if it is accepted.
        prompt_tokens, completion_tokens: what it cost; of several opinions in one answer, the first has them all.
        is_answer: whether it is the first one of an answer.

    Raises:
        ValueError: naming what no opinion has.
    """

    row: int
    judge: str
    text: str
    refused: tuple[str, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_answer: bool = True

    def __post_init__(self) -> None:
        check_counts(row=self.row)
        check_tokens(self.prompt_tokens, self.completion_tokens)
        if not all(isinstance(text, str) for text in (self.judge, self.text, *self.refused)):
            raise ValueError("an opinion is made of texts")

    @classmethod
    def read(cls, line: bytes) -> "Opinion":
        """Raises `ValueError` for a line that is none."""
        try:
            fields = json.loads(line)
            prompt_tokens, completion_tokens = fields["tokens"]
            refused, is_answer = tuple(fields["refused"]), bool(fields["is_answer"])
            return cls(
                fields["row"], fields["judge"], fields["text"], refused, prompt_tokens, completion_tokens, is_answer
            )
        except (LookupError, TypeError, RecursionError) as error:
            raise ValueError(f"it is no record of an opinion ({type(error).__name__})") from error

    def line(self) -> bytes:
        fields = {"row": self.row, "judge": self.judge, "text": self.text, "refused": self.refused}
        tokens = [self.prompt_tokens, self.completion_tokens]
        return json.dumps(fields | {"tokens": tokens, "is_answer": self.is_answer}).encode() + b"\n"


def read_opinions(lines: list[bytes]) -> tuple[list[Opinion], list[bytes]]:
    """The opinions in lines of a journal, and the lines that are none."""
    opinions, damaged = [], []
    for line in lines:
        try:
            opinions.append(Opinion.read(line))
        except ValueError:
            damaged.append(line)
    return opinions, damaged


class Opinions(Lines[Opinion]):
    """The opinions about some captions that are known, in a file."""

    def __init__(self, path: Path):
        super().__init__(path, read_opinions)
        self.known = {(one.row, one.judge, one.text): one for one in self.records}

    def append(self, opinion: Opinion) -> None:
        self.keep(opinion)
        self.known[opinion.row, opinion.judge, opinion.text] = opinion

    def about(self, row: int, text: str, judges: tuple[str, ...]) -> tuple[str, ...] | None:
        """Why judges refuse a text, `None` as long as one of them has not said. Whoever refuses speaks for all."""
        found = [self.known.get((row, judge, text)) for judge in judges]
        refused = tuple(reason for one in found if one is not None for reason in one.refused)
        return refused if refused or None not in found else None


class Verifier:
    """Asks about edits, and never the same twice. An edit that one judge refuses is not shown to the next.

    Args:
        model: that answers.
        name: of the model, for the data set's column `verifier`.
        judges: `text`, which compares both captions, and `image`, which looks.
        keep_refused: mark refused edits rather than ask for others.
        picture: the image of a row.
    """

    def __init__(
        self,
        model: Model,
        name: str,
        judges: tuple[str, ...],
        keep_refused: bool = False,
        picture: Callable[[int], Image.Image] | None = None,
    ):
        self.model, self.name, self.judges = model, name, judges
        self.keep_refused, self.picture = keep_refused, picture
        self.failures = 0

    def ask(self, questions: list[Question], opinions: Opinions) -> Iterator[Opinion | tuple[int, str]]:
        """Asks for the opinions that are missing, and keeps them.

        Yields:
            Opinions as they come, and the number of a row with the reason why there is none.

        Raises:
            UserError: if the endpoint will never answer, or failed many times in a row.
        """
        if "text" in self.judges:
            yield from self._ask(questions, opinions, "text")
        if "image" in self.judges:
            yield from self._ask(questions, opinions, "image")

    def _ask(self, questions: list[Question], opinions: Opinions, judge: str) -> Iterator[Opinion | tuple[int, str]]:
        asks = text_asks if judge == "text" else image_asks
        missing = [ask for question in questions for ask in asks(question, opinions, self.judges)]
        for _ in range(READINGS):
            requests = ((ask, *self._conversation(ask)) for ask in missing)
            missing = []
            for ask, answer in self.model.complete(requests):
                self._watch(answer)
                found = None if answer.failure is not None else ask.read(answer)
                for opinion in found or ():
                    opinions.append(opinion)
                    yield opinion
                if answer.failure is not None:
                    yield ask.row, f"the judge gave no answer: {answer.failure}"
                elif found is None:
                    missing.append(ask)
        for ask in missing:
            yield ask.row, UNREAD

    def _conversation(self, ask: "TextAsk | ImageAsk") -> tuple[list[dict], dict]:
        if isinstance(ask, TextAsk):
            return text_messages(ask.caption, ask.candidate.text), TEXT_SCHEMA
        assert self.picture is not None  # who verifies by images has some
        return image_messages(ask.texts, thumbnail(self.picture(ask.row), LONGEST_SIDE))

    def _watch(self, answer: Answer) -> None:
        """Ends a run whose judge is gone, rather than leaving every row unverified."""
        self.failures = self.failures + 1 if answer.failure is not None else 0
        if self.failures >= FAILURES_IN_A_ROW:
            raise UserError(
                f"the judge failed {self.failures} times in a row, at last with {answer.failure!r}; check --verify_model and "
                "--verify_base_url and run the same command again: no answer that came is lost"
            )


@dataclass(frozen=True)
class TextAsk:
    """Whether one edit contradicts its caption."""

    row: int
    caption: str
    candidate: Candidate

    def read(self, answer: Answer) -> list[Opinion] | None:
        refused = read_text_verdict(answer.text[:LONGEST_READ], self.candidate)
        if refused is None:
            return None
        tokens = answer.prompt_tokens, answer.completion_tokens
        return [Opinion(self.row, "text", self.candidate.text, refused, *tokens)]


@dataclass(frozen=True)
class ImageAsk:
    """Which of some texts fit the image of a row; the caption is among them unless it is known to fit."""

    row: int
    caption: str
    texts: tuple[str, ...]

    def read(self, answer: Answer) -> list[Opinion] | None:
        fits = read_image_verdict(answer.text[:LONGEST_READ], len(self.texts))
        if fits is None:
            return None
        tokens = [(answer.prompt_tokens, answer.completion_tokens, True)] + [(0, 0, False)] * len(fits)
        opinions = []
        for text, fit, cost in zip(self.texts, fits, tokens, strict=False):
            if text == self.caption:
                refused = () if fit else (UNFIT,)
            else:
                refused = ("shown",) if fit else ()
            opinions.append(Opinion(self.row, "image", text, refused, *cost))
        return opinions


def text_asks(question: Question, opinions: Opinions, judges: tuple[str, ...]) -> Iterator[TextAsk]:
    for candidate in question.candidates:
        if (question.row, "text", candidate.text) not in opinions.known:
            yield TextAsk(question.row, question.caption, candidate)


def image_asks(question: Question, opinions: Opinions, judges: tuple[str, ...]) -> Iterator[ImageAsk]:
    left = [
        candidate.text
        for candidate in question.candidates
        if opinions.about(question.row, candidate.text, judges) is None
        and (question.row, "image", candidate.text) not in opinions.known
    ]
    if not left:
        return
    if (question.row, "image", question.caption) not in opinions.known:
        left.append(question.caption)
    random.Random(f"verify/{question.row}/{len(left)}").shuffle(left)  # its place must not give the caption away
    yield ImageAsk(question.row, question.caption, tuple(left))
