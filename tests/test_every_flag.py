"""Hostile values for every flag of every command that is read by its dataclasses: each is refused with its name, or is in range."""

import dataclasses
import functools
import math
import runpy
from typing import get_type_hints

import pytest
from conftest import SCRIPT

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import UserError
from diffusers_tpo.flags import MISSING, default_of, kinds_of


FOLDER = SCRIPT.parent
COMMANDS = sorted(path.name for path in FOLDER.glob("*.py") if "parse_flags(" in path.read_text())
HOSTILE = {
    int: ("nan", "inf", "-1", "0", "1.5", "x", "", "1e3", str(-(10**30)), str(10**30)),
    float: ("nan", "inf", "-inf", "-1", "x", "", "1e400"),
    bool: ("maybe", "", "2"),
}


@functools.cache
def groups_of(command: str) -> tuple[type, ...]:
    main = runpy.run_path(str(FOLDER / command), run_name="not main")["main"]
    return tuple(group for name, group in get_type_hints(main).items() if name != "return")


@functools.cache
def required(command: str) -> tuple[str, ...]:
    """Words for the flags that must be given."""
    fields = [one for group in groups_of(command) for one in dataclasses.fields(group) if one.init]
    return tuple(word for one in fields if default_of(one) is MISSING for word in (f"--{one.name}", "x"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hostile_value_is_refused_by_name_or_lies_in_the_range(command):
    tried = 0
    for group in groups_of(command):
        for name, kind in kinds_of(group).items():
            for text in ("no such choice",) if kind.choices else HOSTILE.get(kind.type, ()):
                tried += 1
                try:
                    parsed = parse_flags(*groups_of(command), argv=[*required(command), f"--{name}={text}"])
                except UserError as error:
                    assert f"--{name}" in str(error) and len(str(error)) < 500, (name, text, str(error))
                    continue
                value = next(getattr(one, name) for one in parsed if hasattr(one, name))
                for number in value if isinstance(value, list) else [value]:
                    assert number in kind.range and not math.isnan(number), (name, text)
    assert tried
