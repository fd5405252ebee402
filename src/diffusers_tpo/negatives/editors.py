"""What an editor of captions is: it receives requests and yields raw answers, in any order."""

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
    """

    row: int
    caption: str
    wanted: tuple[Wanted, ...]
    attempt: int = 0
    rejected: tuple[tuple[str, str], ...] = ()
    accepted: tuple[str, ...] = ()
    seed: int = 0


class Editor(Protocol):
    """Writes edits. `name` stands in the data set's column `editor`."""

    name: str

    def edit(self, requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, Answer]]:
        """Answers every request once, as soon as it can, and takes no more requests than it works on."""
        ...
