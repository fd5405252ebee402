"""Every flag of every command has a range, and a value outside of it is one sentence that names the flag."""

import math

import pytest

from diffusers_tpo.commands.parsing import take_flags
from diffusers_tpo.errors import UserError
from diffusers_tpo.flags import LARGEST, Range, default_of, kinds_of
from diffusers_tpo.training.arguments import GROUPS, ModelArguments, check_arguments


EVERY_NUMBER = {"logit_mean"}  # flags that take every finite number
FLAGS = {name: kind for group in GROUPS for name, kind in kinds_of(group).items()}
NUMBERS = {name: kind for name, kind in FLAGS.items() if kind.type in (int, float)}
BOOLS = [name for name, kind in FLAGS.items() if kind.type is bool]
CHOICES = [name for name, kind in FLAGS.items() if kind.choices]
NEEDED = {"pretrained_model_name_or_path": "model", "train_data_dir": "data"}
HOSTILE = (0, -1, 1, math.nan, math.inf, -math.inf, 10**30, -(10**30), 1e-300, 0.5)


def given(name: str, value) -> str | None:
    """What the command says of a flag with this value, before it loads anything; `None` if it takes it."""
    try:
        check_arguments(*take_flags(*GROUPS, flags=NEEDED | {name: value}))
    except UserError as error:
        return str(error)
    return None


def test_every_number_has_a_range():
    assert {name for name, kind in NUMBERS.items() if kind.range == Range()} == EVERY_NUMBER


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_taken_if_it_lies_in_its_range(name):
    kind = NUMBERS[name]
    for value in HOSTILE:
        is_kind = kind.type is float or float(value).is_integer()
        message = given(name, value)
        is_sane = kind.range.has_end or not (kind.type is int and abs(value) > LARGEST)
        if is_kind and is_sane and value in kind.range:
            assert message is None or f"--{name}" in message  # it may not go with other flags
        else:
            assert message is not None and message.startswith(f"--{name} must be ") and "got" in message
    assert given(name, math.nan) is not None and given(name, "") is not None and given(name, "many") is not None


@pytest.mark.parametrize("value", ["", "nan", "maybe", "-1", "/dev/zero"])
def test_a_word_that_is_none_of_the_choices_is_refused(value):
    for name in [*BOOLS, *CHOICES]:
        assert given(name, value).startswith(f"--{name} must be ")


def test_the_defaults_lie_in_their_ranges():
    for group in GROUPS:
        for one in group.__dataclass_fields__.values():
            default = default_of(one)
            if isinstance(default, int | float) and not isinstance(default, bool):
                assert default in FLAGS[one.name].range, one.name
    assert ModelArguments("model").rank in FLAGS["rank"].range
