"""Follows one caption from its wanted edits to its mismatched prompts, through as many answers as it takes."""

import random
from dataclasses import dataclass, field

from ..errors import UserError
from ..principles import PRINCIPLES
from .answers import read_answer
from .asking import Wanted
from .checks import REASONS, Limits, check_edit, count_edits
from .editors import EditRequest
from .language.words import LONGEST_CAPTION


LONGEST_REJECTED = 1000  # characters of an unusable edit that the next request shows


@dataclass(frozen=True)
class Plan:
    """What is wanted of every caption.

    Args:
        principles: each mismatched prompt follows one of them, drawn at random.
        weights: how likely each principle is, equal by default; one of weight 0 is never tried.
        num_negatives: mismatched prompts per caption.
        num_edits: budget of edits within one mismatched prompt.
        max_attempts: requests about one mismatched prompt before it is given up.
        limits: what makes an edit unusable.

    Raises:
        UserError: if there is not one weight for each principle, or none is positive.
    """

    principles: tuple[str, ...] = tuple(PRINCIPLES)
    weights: tuple[float, ...] | None = None
    num_negatives: int = 1
    num_edits: int = 1
    max_attempts: int = 3
    seed: int = 0
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        weights = self.weights if self.weights is not None else (1.0,) * len(self.principles)
        if len(weights) != len(self.principles) or min(weights, default=0) < 0 or not sum(weights):
            raise UserError(
                f"weights must be one number for each of {', '.join(self.principles)}, none negative and not all 0, "
                f"got {self.weights}"
            )

    def possible(self) -> dict[str, float]:
        """The principles that are tried, with their weights."""
        weights = self.weights or (1.0,) * len(self.principles)
        return {name: weight for name, weight in zip(self.principles, weights, strict=True) if weight}

    def order(self, row: int, number: int) -> list[str]:
        """In which order the principles are tried for one mismatched prompt: the first is the one that is drawn."""
        rng = random.Random(f"principles/{self.seed}/{row}/{number}")
        left = self.possible()
        order: list[str] = []
        while left:
            order += rng.choices(list(left), list(left.values()))
            del left[order[-1]]
        return order


@dataclass
class Slot:
    """One mismatched prompt on its way: the principles still to try, and the attempts made."""

    principles: list[str]
    attempts: int = 0
    text: str | None = None
    num_edits: int = 0


@dataclass(frozen=True)
class Result:
    """What came of a caption: its mismatched prompts, or the reason why there are none."""

    row: int
    negative_prompts: list[str]
    principles: list[str]
    num_edits: list[int]
    rejected: list[str]
    reason: str | None
    unanswered: bool


@dataclass
class CaptionWork:
    """The state of one caption. Feeding it the same answers again gives the same result, so answers are all that is kept."""

    row: int
    caption: str
    plan: Plan
    attempt: int = 0
    failure: str | None = None
    rejected: list[tuple[str, str]] = field(default_factory=list)
    slots: list[Slot] = field(init=False)

    def __post_init__(self) -> None:
        numbers = () if self._unusable() else range(self.plan.num_negatives)
        self.slots = [Slot(self.plan.order(self.row, number)) for number in numbers]

    @property
    def open(self) -> list[Slot]:
        """Slots that another request may fill."""
        return [
            slot for slot in self.slots
            if slot.text is None and slot.principles and slot.attempts < self.plan.max_attempts
        ]  # fmt: skip

    @property
    def accepted(self) -> tuple[str, ...]:
        return tuple(slot.text for slot in self.slots if slot.text is not None)

    def request(self) -> EditRequest | None:
        """What to ask next, or `None` if the row is done."""
        if self.failure is not None or not self.open:
            return None
        unusable = tuple((text[:LONGEST_REJECTED], REASONS[kind]) for kind, text in self.rejected[-3:] if text)
        return EditRequest(
            self.row, self.caption, self._wanted(), self.attempt, unusable, self.accepted, self.plan.seed
        )

    def receive(self, answer: str | tuple[str | None, ...]) -> None:
        """Takes the answer to the last [`request`]: what a language model wrote, or captions."""
        self.attempt += 1
        waiting = self.open
        captions = self._read(answer)
        if captions is None:
            for slot in waiting:
                slot.attempts += 1
                self.rejected.append(("malformed", ""))
            return
        for slot, edited in zip(waiting, captions, strict=True):
            if edited is None:  # nothing of this principle in the caption
                slot.principles.pop(0)
                continue
            kind = self._check(edited, slot.principles[0])
            if kind is None:
                slot.text, slot.num_edits = edited, count_edits(self.caption, edited)
            else:
                slot.attempts += 1
                self.rejected.append((kind, edited))

    def _read(self, answer: str | tuple[str | None, ...]) -> list[str | None] | None:
        """A caption for each open slot, `None` if the answer cannot be understood."""
        wanted = self._wanted()
        captions = read_answer(answer, wanted) if isinstance(answer, str) else answer
        if captions is None or len(captions) != len(wanted):
            return None
        return [caption if caption is None else caption.strip() for caption in captions]

    def _wanted(self) -> tuple[Wanted, ...]:
        return tuple(Wanted(slot.principles[0], self.plan.num_edits) for slot in self.open)

    def _check(self, edited: str, principle: str) -> str | None:
        return check_edit(self.caption, edited, self.plan.num_edits, self.accepted, self.plan.limits, principle)

    def result(self) -> Result:
        """The row as it stands when there is nothing more to ask."""
        done = [slot for slot in self.slots if slot.text is not None]
        return Result(
            self.row,
            [slot.text for slot in done if slot.text is not None],
            [slot.principles[0] for slot in done],
            [slot.num_edits for slot in done],
            [kind for kind, _ in self.rejected],
            None if done else self._reason(),
            self.failure is not None,
        )

    def _unusable(self) -> str | None:
        """Why nothing is asked about the caption."""
        if len(self.caption) > LONGEST_CAPTION:
            return f"the caption has more than {LONGEST_CAPTION} characters"
        return None if self.caption.strip() else "the caption is empty"

    def _reason(self) -> str:
        if (unusable := self._unusable()) is not None:
            return unusable
        if self.failure is not None:
            return self.failure
        if self.rejected:
            return f"no usable edit: {REASONS[self.rejected[-1][0]]}"
        return f"nothing to edit by {', '.join(self.plan.possible())}"
