"""Fields of dataclasses that are flags of a command: their help, their kind, and the range that a value must lie in."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from .errors import UserError
from .show import shorten


@dataclass(frozen=True)
class Range:
    """The numbers that a flag takes. NaN lies in no range, and infinity only where `may_be_infinite`."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    may_be_infinite: bool = False

    def __contains__(self, value: float) -> bool:
        if isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and not self.may_be_infinite)):
            return False
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    @property
    def has_end(self) -> bool:
        """Whether there is a largest number."""
        return self.at_most is not None or self.below is not None

    def __str__(self) -> str:
        bounds = {
            "at least": self.at_least,
            "greater than": self.above,
            "at most": self.at_most,
            "less than": self.below,
        }
        words = [f"{word} {_shown(bound)}" for word, bound in bounds.items() if bound is not None]
        return " and ".join(words) or "a finite number"


LARGEST = 10**9  # of a count that has no other bound


def _shown(bound: float) -> str:
    """A whole number with all its digits."""
    return str(int(bound)) if float(bound).is_integer() and abs(bound) < 1e15 else f"{bound:g}"


AtLeastOne = Annotated[int, Range(at_least=1)]
NotNegative = Annotated[int, Range(at_least=0)]
Share = Annotated[float, Range(at_least=0, at_most=1)]
PositiveNumber = Annotated[float, Range(above=0)]
NotNegativeNumber = Annotated[float, Range(at_least=0)]

YES, NO = ("true", "yes", "1"), ("false", "no", "0")


def _read_bool(text: str) -> bool:
    if text.lower() not in YES + NO:
        raise ValueError(text)
    return text.lower() in YES


READERS: dict[type, Callable[[str], Any]] = {str: str, int: int, float: float, bool: _read_bool}
WANTED = {int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Kind:
    """What a flag takes.

    Attributes:
        type: `str`, `int`, `float` or `bool`, of each value.
        choices: the values that there are; empty for any.
        range: the numbers that it takes.
        is_list: whether it takes several values.
        may_be_none: whether it may be left unset.
    """

    type: type
    choices: tuple[Any, ...] = ()
    range: Range = Range()
    is_list: bool = False
    may_be_none: bool = False

    @classmethod
    def of(cls, annotation: Any) -> "Kind":
        """Of a field's type, such as `int`, `float | None`, `list[str]`, `Literal["a", "b"]`, or one of these with a [`Range`].

        Raises:
            TypeError: for a type that no flag can have.
        """
        origin, parts = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            found = [extra for extra in annotation.__metadata__ if isinstance(extra, Range)]
            kind = cls.of(parts[0])
            return dataclasses.replace(kind, range=found[0]) if found else kind
        if origin is Literal:
            return cls(type(parts[0]), choices=parts)
        if origin is list:
            return dataclasses.replace(cls.of(parts[0]), is_list=True)
        if NoneType in parts and len(parts) == 2:
            inner = next(part for part in parts if part is not NoneType)
            return dataclasses.replace(cls.of(inner), may_be_none=True)
        if annotation not in READERS:
            raise TypeError(f"{annotation} is no type of a flag")
        return cls(annotation)

    def read(self, text: str) -> Any:
        """One value from its text.

        Raises:
            ValueError: saying what it must be.
        """
        try:
            value = READERS[self.type](text)
        except ValueError:
            raise ValueError(f"must be {WANTED[self.type]}, got {text!r}") from None
        if self.choices and value not in self.choices:
            raise ValueError(f"must be one of {', '.join(map(str, self.choices))}, got {text!r}")
        return value

    def __str__(self) -> str:
        if self.choices:
            return "{" + ",".join(map(str, self.choices)) + "}"
        return {str: "TEXT", int: "INTEGER", float: "NUMBER", bool: "{true,false}"}[self.type]


def kinds_of(group: Any) -> Mapping[str, Kind]:
    """The kind of every flag of a dataclass, or of an object of it, by name."""
    return _kinds(group if isinstance(group, type) else type(group))


@functools.lru_cache(maxsize=64)  # a command asks for those of its few groups again and again
def _kinds(group: type) -> Mapping[str, Kind]:
    annotations = get_type_hints(group, include_extras=True)
    return {one.name: Kind.of(annotations[one.name]) for one in dataclasses.fields(group) if one.init}


def default_of(one: dataclasses.Field) -> Any:
    """The default of a field; `MISSING` where it must be given."""
    return one.default if one.default_factory is MISSING else one.default_factory()


def flag(default: Any = MISSING, help: str = "") -> Any:
    """A dataclass field that is a flag, with what `--help` says of it. Its type may carry a [`Range`].

    Args:
        default: a list is copied for every object; without one the flag must be given.
    """
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


def check_ranges(*groups: Any) -> None:
    """Checks every number of dataclass objects, in lists too, against the range of its flag; `None` is no number.

    Raises:
        UserError: naming the flag, its range and what it got.
    """
    for group in groups:
        for name, kind in kinds_of(group).items():
            value = getattr(group, name)
            for number in value if isinstance(value, list | tuple) else [value]:
                if isinstance(number, bool) or not isinstance(number, int | float):
                    continue
                if number not in kind.range:
                    raise UserError(f"--{name} must be {kind.range}, got {shorten(str(number), 50)}")
                if isinstance(number, int) and not kind.range.has_end and abs(number) > LARGEST:
                    raise UserError(f"--{name} must be at most {LARGEST}, got {shorten(str(number), 50)}")
