"""Follows one caption from its wanted edits to its mismatched prompts, through as many answers as it takes."""

import random
import re
from dataclasses import dataclass, field

from ..errors import UserError
from ..principles import PRINCIPLES
from .answers import read_answer
from .asking import Wanted
from .checks import REASONS, Limits, check_edit, count_edits
from .editors import EditRequest
from .language.words import LONGEST_CAPTION
from .splits import Shares
from .verdicts import REFUSALS, UNFIT, UNFIT_REASON, Candidate


WHY = REASONS | REFUSALS
LONGEST_REJECTED = 1000  # characters of an unusable edit that the next request shows


@dataclass(frozen=True)
class Plan:
    """What is wanted of every caption.

    Args:
        principles: each mismatched prompt follows one of them, drawn at random, or the next one if there is no usable edit.
        weights: how likely each principle is, equal by default; one of weight 0 is never tried.
        num_negatives: mismatched prompts per caption.
        num_edits: budget of edits within one mismatched prompt.
        max_attempts: unusable edits of the drawn principle before the next ones are tried, once each.
        limits: what makes an edit unusable.
        shares: how the rows are divided.

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
    shares: Shares = Shares()

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

    def orders(self, row: int) -> list[list[str]]:
        """In which order the principles are tried for each mismatched prompt of a row: the first is the one that is drawn.

        Equally likely principles are drawn without repetition as long as there are some left, so the edits of a caption
        differ in kind. With weights each is drawn on its own, so that the weights are what is drawn.
        """
        possible = self.possible()
        is_even = len(set(possible.values())) == 1
        orders: list[list[str]] = []
        left: dict[str, float] = {}
        for number in range(self.num_negatives):
            rng = random.Random(f"principles/{self.seed}/{row}/{number}")
            left = left if is_even and left else dict(possible)
            first = rng.choices(list(left), list(left.values()))[0]
            del left[first]
            others = {name: weight for name, weight in possible.items() if name != first}
            orders.append([first])
            while others:
                orders[-1] += rng.choices(list(others), list(others.values()))
                del others[orders[-1][-1]]
        return orders


@dataclass
class Slot:
    """One mismatched prompt on its way: the principles still to try, and the attempts left for the first of them.

    Attributes:
        drawn: the principle that was drawn for it.
        text: the edit that passed the checks of its words, if there is one.
        verdict: why a judge refuses that edit; nothing if it was accepted; `None` before it was judged.
    """

    principles: list[str]
    attempts: int
    text: str | None = None
    num_edits: int = 0
    verdict: tuple[str, ...] | None = None
    drawn: str = field(init=False)

    def __post_init__(self) -> None:
        self.drawn = self.principles[0]

    def fail(self) -> None:
        """Counts an unusable edit. After the last one allowed, each further principle is tried once."""
        self.attempts -= 1
        if not self.attempts:
            self.next_principle()

    def misunderstand(self) -> None:
        """Counts an answer that cannot be read, which says nothing of the principle. After the last one no other is tried."""
        self.attempts -= 1
        if not self.attempts:
            self.principles = []

    def next_principle(self) -> None:
        self.principles.pop(0)
        self.attempts = max(self.attempts, 1)


@dataclass(frozen=True)
class Result:
    """What came of a caption: its mismatched prompts, or the reason why there are none.

    Args:
        row: number of the caption in its data set.
        negative_prompts, principles, num_edits: of each mismatched prompt; lists of one length.
        drawn: the principle that was drawn for each of them.
        verdicts: why a judge refused each of them, where refused ones are kept.
        prompt_verdict: why a judge who looked at the image refuses the caption, where it is kept.
        rejected: the kinds of all unusable edits on the way.
        reason: why there is no mismatched prompt.
        unanswered: whether an editor or a judge gave no answer.
        may_be_edited: whether another editor may find an edit where this one has not.
    """

    row: int
    negative_prompts: list[str]
    principles: list[str]
    num_edits: list[int]
    drawn: list[str]
    verdicts: list[str]
    prompt_verdict: str
    rejected: list[str]
    reason: str | None
    unanswered: bool
    may_be_edited: bool


@dataclass
class CaptionWork:
    """The state of one caption. Feeding it the same answers and verdicts again gives the same result, so these are all that
    is kept.

    Args:
        row: number of the caption in its data set.
        is_judged: whether an edit that passes the checks of its words still has to pass a judge.
    """

    row: int
    caption: str
    plan: Plan
    is_judged: bool = False
    attempt: int = 0
    failure: str | None = None
    prompt_verdict: str = ""
    rejected: list[tuple[str, str]] = field(default_factory=list)
    slots: list[Slot] = field(init=False)

    def __post_init__(self) -> None:
        orders = [] if self._unusable() else self.plan.orders(self.row)
        self.slots = [Slot(order, self.plan.max_attempts) for order in orders]

    @property
    def open(self) -> list[int]:
        """Numbers of the slots that another request may fill."""
        return [number for number, slot in enumerate(self.slots) if slot.text is None and slot.principles]

    @property
    def accepted(self) -> tuple[str, ...]:
        return tuple(slot.text for slot in self.slots if slot.text is not None)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The edits that wait for a judge."""
        if not self.is_judged or self.failure is not None:
            return ()
        waiting = (slot for slot in self.slots if slot.text is not None and slot.verdict is None)
        return tuple(Candidate(slot.text or "", slot.principles[0], self.plan.num_edits) for slot in waiting)

    @property
    def is_done(self) -> bool:
        return self.request() is None and not self.candidates

    def request(self) -> EditRequest | None:
        """What to ask an editor next, or `None` if there is nothing to ask."""
        if self.failure is not None or not self.open:
            return None
        unusable = tuple((text[:LONGEST_REJECTED], WHY[kind]) for kind, text in self.rejected[-3:] if text)
        slots = tuple(self.open)
        return EditRequest(
            self.row, self.caption, self._wanted(slots), self.attempt, unusable, self.accepted, self.plan.seed, slots
        )

    def receive(self, answer: str | tuple[str | None, ...], slots: tuple[int, ...] | None = None) -> None:
        """Takes the answer to a [`request`]: what a language model wrote, or captions.

        Args:
            slots: that the request was about; those of the last request by default. An answer about others changes nothing.
        """
        self.attempt += 1
        numbers = tuple(self.open) if slots is None else slots
        if not set(numbers) <= set(self.open):  # a judge has ended the caption meanwhile
            return
        captions = self._read(answer, numbers)
        waiting = [self.slots[number] for number in numbers]
        if captions is None:
            self.rejected += [("malformed", "")] * len(waiting)
            for slot in waiting:
                slot.misunderstand()
            return
        for slot, edited in zip(waiting, captions, strict=True):
            if edited is None:  # nothing of this principle in the caption
                slot.next_principle()
                continue
            kind = self._check(edited, slot.principles[0])
            if kind is None:
                slot.text, slot.num_edits = self._with_edges(edited), count_edits(self.caption, edited)
            else:
                slot.fail()
                self.rejected.append((kind, edited))

    def judge(self, edited: str, refused: tuple[str, ...], keep: bool = False) -> None:
        """Takes a verdict about one of [`candidates`].

        Args:
            refused: why, see [`REFUSALS`]; nothing if it is accepted.
            keep: keep a refused edit with its verdict rather than ask for another one.
        """
        slot = next(slot for slot in self.slots if slot.text == edited and slot.verdict is None)
        if keep or not refused:
            slot.verdict = refused
            return
        slot.text = None
        slot.fail()
        self.rejected.append((refused[0], edited))

    def judge_caption(self, keep: bool = False) -> None:
        """Takes the verdict that the caption does not fit its image, of which no edit can be mismatched."""
        self.prompt_verdict = UNFIT
        if not keep:
            self.slots = []

    def _read(self, answer: str | tuple[str | None, ...], slots: tuple[int, ...]) -> list[str | None] | None:
        """A caption for each of the slots, `None` if the answer cannot be understood."""
        wanted = self._wanted(slots)
        captions = read_answer(answer, wanted) if isinstance(answer, str) else answer
        if captions is None or len(captions) != len(wanted):
            return None
        return [caption if caption is None else caption.strip() for caption in captions]

    def _wanted(self, slots: tuple[int, ...]) -> tuple[Wanted, ...]:
        return tuple(Wanted(self.slots[number].principles[0], self.plan.num_edits) for number in slots)

    def _check(self, edited: str, principle: str) -> str | None:
        others = self.accepted + tuple(text for kind, text in self.rejected if kind in REFUSALS)
        return check_edit(self.caption, edited, self.plan.num_edits, others, self.plan.limits, principle)

    def _with_edges(self, edited: str) -> str:
        """An edit with the spaces that its caption has at its ends, whose lack would give it away."""
        return re.sub(r"\S.*\S|\S", lambda inside: edited, self.caption, count=1, flags=re.DOTALL)

    def result(self) -> Result:
        """The row as it stands when there is nothing more to ask."""
        done = [slot for slot in self.slots if slot.text is not None]
        if self.is_judged and self.failure is not None:  # the judge may not have seen them
            done = [slot for slot in done if slot.verdict is not None]
        return Result(
            self.row,
            negative_prompts=[slot.text for slot in done if slot.text is not None],
            principles=[slot.principles[0] for slot in done],
            num_edits=[slot.num_edits for slot in done],
            drawn=[slot.drawn for slot in done],
            verdicts=[", ".join(slot.verdict or ()) for slot in done],
            prompt_verdict=self.prompt_verdict,
            rejected=[kind for kind, _ in self.rejected],
            reason=None if done else self._reason(),
            unanswered=self.failure is not None,
            may_be_edited=not (done or self.failure is not None or self.prompt_verdict or self._unusable()),
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
        if self.prompt_verdict:
            return UNFIT_REASON
        if self.rejected:
            return f"no usable edit: {WHY[self.rejected[-1][0]]}"
        return f"nothing to edit by {', '.join(self.plan.possible())}"
