"""Fields of dataclasses that are flags of a command: their help, and the range that a value must lie in."""

import dataclasses
import math
from dataclasses import MISSING, dataclass, field
from typing import Annotated, get_args, get_origin, get_type_hints

from .errors import UserError


@dataclass(frozen=True)
class Range:
    """The numbers that a flag takes. NaN lies in no range, and infinity only where `may_be_infinite`."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    may_be_infinite: bool = False

    def __contains__(self, value: float) -> bool:
        if math.isnan(value) or (math.isinf(value) and not self.may_be_infinite):
            return False
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {
            "at least": self.at_least,
            "greater than": self.above,
            "at most": self.at_most,
            "less than": self.below,
        }
        words = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
        return " and ".join(words) or "a finite number"


AtLeastOne = Annotated[int, Range(at_least=1)]
NotNegative = Annotated[int, Range(at_least=0)]
Share = Annotated[float, Range(at_least=0, at_most=1)]
PositiveNumber = Annotated[float, Range(above=0)]
NotNegativeNumber = Annotated[float, Range(at_least=0)]


def flag(default=MISSING, help: str = ""):
    """A dataclass field that is a flag, with what `--help` says of it. Its type may carry a [`Range`].

    Args:
        default: a list is copied for every object; without one the flag must be given.
    """
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


def range_of(annotation) -> Range:
    """The range that a type carries, alone, in a list, or beside `None`; every finite number without one."""
    if get_origin(annotation) is Annotated:
        return next((extra for extra in annotation.__metadata__ if isinstance(extra, Range)), Range())
    ranges = [range_of(part) for part in get_args(annotation)]
    return next((found for found in ranges if found != Range()), Range())


def check_ranges(*groups) -> None:
    """Checks every number of dataclass objects, in lists too, against the range of its flag; `None` is no number.

    Raises:
        UserError: naming the flag, its range and what it got.
    """
    for group in groups:
        annotations = get_type_hints(type(group), include_extras=True)
        for one in dataclasses.fields(group):
            value, allowed = getattr(group, one.name), range_of(annotations[one.name])
            for number in value if isinstance(value, list | tuple) else [value]:
                if isinstance(number, bool) or not isinstance(number, int | float):
                    continue
                if number not in allowed:
                    raise UserError(f"--{one.name} must be {allowed}, got {number}")
