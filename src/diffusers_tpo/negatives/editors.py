"""What an editor of captions is: it receives requests and yields answers, in any order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ..chat import Answer
from .asking import Wanted


@dataclass(frozen=True)
class EditRequest:
    """A caption and the edits that are wanted of it.

    Args:
        row: number of the caption in its data set.
        attempt: 0 for the first request about this caption.
        wanted: the edits, answered in this order.
        rejected: earlier edits of this caption that were unusable, each with the reason.
        accepted: earlier edits of this caption that stay.
        seed: of the run.
        slots: numbers of the mismatched prompts that these edits are for.
    """

    row: int
    caption: str
    wanted: tuple[Wanted, ...]
    attempt: int = 0
    rejected: tuple[tuple[str, str], ...] = ()
    accepted: tuple[str, ...] = ()
    seed: int = 0
    slots: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Edits:
    """The answer of an editor that needs no language model.

    Args:
        captions: one for each wanted edit, `None` where the caption has nothing of that principle to change.
    """

    captions: tuple[str | None, ...]


def failure_of(answer: Answer | Edits) -> str | None:
    """Why there is no answer, `None` if there is one."""
    return answer.failure if isinstance(answer, Answer) else None


class Editor(Protocol):
    """Writes edits. `name` stands in the data set's column `editor`.

    It answers with captions, or with what a language model wrote, which is then read for captions.
    """

    name: str

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Answer | Edits]]:
        """Answers every request once, as soon as it can, and takes no more requests than it works on."""
        ...
