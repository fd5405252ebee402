"""Counts what happened to captions and requests. Knows nothing of who is asked or why."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .journal import Record
from .verifier import Opinion
from .work import Result


JUDGE = ("judged", "judge_requests", "judge_prompt_tokens", "judge_completion_tokens", "judge_cost")
MODEL = ("requests", "prompt_tokens", "completion_tokens", "cost")


@dataclass(frozen=True)
class Prices:
    """Dollars for a million prompt tokens and a million completion tokens; nothing where they are not known.

    Args:
        edits: of the model that edits.
        verdicts: of the judge.
    """

    edits: tuple[float, ...] = ()
    verdicts: tuple[float, ...] = ()

    @property
    def are_known(self) -> bool:
        return bool(self.edits or self.verdicts)

    def cost(self, tally: "Tally") -> float:
        return self.cost_of_edits(tally) + self.cost_of_verdicts(tally)

    def cost_of_edits(self, tally: "Tally") -> float:
        return _dollars(self.edits, tally.prompt_tokens, tally.completion_tokens)

    def cost_of_verdicts(self, tally: "Tally") -> float:
        return _dollars(self.verdicts, tally.judge_prompt_tokens, tally.judge_completion_tokens)


def _dollars(prices: tuple[float, ...], *tokens: int) -> float:
    return sum(price * number for price, number in zip(prices, tokens, strict=False)) / 1e6


@dataclass
class Tally:
    """What happened to captions and requests so far; adds up over shards.

    Attributes:
        captions, kept, failed: how many captions are done, have mismatched prompts, have none.
        requests, prompt_tokens, completion_tokens: of language models that edited.
        judged, judge_requests, judge_prompt_tokens, judge_completion_tokens: opinions of judges, and what they cost.
        rejected: unusable edits, by kind.
        refused: edits that judges refused and captions that do not fit their images, by reason.
        drawn: mismatched prompts by the principle that was drawn for them, which need not be the one that was possible.
    """

    captions: int = 0
    kept: int = 0
    failed: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    judged: int = 0
    judge_requests: int = 0
    judge_prompt_tokens: int = 0
    judge_completion_tokens: int = 0
    rejected: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    drawn: Counter = field(default_factory=Counter)

    def add_answer(self, record: Record) -> None:
        self.requests += isinstance(record.answer, str)
        self.prompt_tokens += record.prompt_tokens
        self.completion_tokens += record.completion_tokens

    def add_opinion(self, opinion: Opinion) -> None:
        self.judged += 1
        self.judge_requests += opinion.is_answer
        self.judge_prompt_tokens += opinion.prompt_tokens
        self.judge_completion_tokens += opinion.completion_tokens
        self.refused.update(opinion.refused)

    def add_result(self, result: Result) -> None:
        self.captions += 1
        self.kept += result.reason is None
        self.failed += result.reason is not None
        self.rejected.update(result.rejected)
        self.drawn.update(result.drawn)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens + self.judge_prompt_tokens + self.judge_completion_tokens

    def figures(self, prices: Prices) -> dict:
        """What the audit says of how a set was made. Where no model was asked, there are no requests, tokens or costs."""
        figures = vars(self) | {
            "rejected": dict(sorted(self.rejected.items())),
            "refused": dict(sorted(self.refused.items())),
            "drawn": dict(sorted(self.drawn.items())),
        }
        if prices.edits:
            figures["cost"] = prices.cost_of_edits(self)
        if prices.verdicts:
            figures["judge_cost"] = prices.cost_of_verdicts(self)
        absent = (() if self.requests else MODEL) + (() if self.judged else JUDGE)
        return {name: value for name, value in figures.items() if name not in absent}

    def take_back(self, results: int) -> None:
        """Forgets that so many captions failed: another editor looks at them."""
        self.captions -= results
        self.failed -= results

    @classmethod
    def read(cls, saved: dict) -> "Tally":
        """A tally as a report keeps it.

        Raises:
            ValueError: if it is none.
        """
        empty = vars(cls())
        if saved.keys() != empty.keys():
            raise ValueError("it is no tally")
        for name, value in saved.items():
            counts = value.values() if isinstance(value, dict) and isinstance(empty[name], Counter) else [value]
            if not all(type(count) is int and count >= 0 for count in counts):
                raise ValueError("a tally holds whole numbers")
        read: dict[str, Any] = saved | {
            name: Counter(value) for name, value in saved.items() if isinstance(value, dict)
        }
        return cls(**read)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{name: value + vars(other)[name] for name, value in vars(self).items()})
