"""Reads the flags of a command from the command line and from `--config file.yaml`. Knows no command."""

import argparse
import dataclasses
import difflib
import sys
from pathlib import Path

import yaml
from transformers import HfArgumentParser

from .. import __version__
from ..errors import UserError, reason
from ..flags import check_ranges


class Parser(HfArgumentParser):
    """Dataclasses as flags; what is wrong is one [`UserError`] instead of a usage text."""

    def __init__(self, groups: tuple[type, ...], description: str | None):
        super().__init__(
            groups, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        self.add_argument("--config", help="YAML file of flags; those of the command line win.")
        self.add_argument("--version", action="version", version=f"diffusers_tpo {__version__}")

    def error(self, message: str):
        raise UserError(message)

    def names(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]

    def refuse_unknown(self, words: list[str]) -> None:
        """Raises [`UserError`] for what is no flag, with the nearest one."""
        unknown = words[0].partition("=")[0]
        if not unknown.startswith("-"):
            raise UserError(f"{unknown!r} belongs to no flag; flags look like --name value")
        parts = set(unknown.strip("-").split("_"))
        near = difflib.get_close_matches(unknown, self.names(), n=1, cutoff=0.75)
        near = near or [name for name in self.names() if name.strip("-") in parts]
        advice = f"did you mean {near[0]}?" if near else "see --help"
        raise UserError(f"there is no flag {unknown}; {advice}")


def read_config(path: str) -> list[str]:
    """The flags in a YAML file as words of a command line.

    Raises:
        UserError: if the file cannot be read, or is no mapping of flags to values.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"--config {path!r} cannot be read ({reason(error)})") from error
    if content is None:
        return []
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"--config {path!r} must hold a line such as 'rank: 16' for each flag")
    words = []
    for name, value in content.items():
        if isinstance(value, dict):
            raise UserError(f"--config {path!r} holds a mapping for {name}; a flag takes a value or a list")
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)] if value else []
        elif value is not None:
            words.append(f"--{name}={value}")
    return words


def parse_flags(*groups: type, description: str | None = None, argv: list[str] | None = None) -> tuple:
    """An object of each dataclass in `groups`, from the command line and the file that its `--config` names.

    Raises:
        UserError: naming a flag that does not exist, lacks, or has a value that is none of its kind or out of its range.
    """
    parser = Parser(groups, description)
    words = sys.argv[1:] if argv is None else argv
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    config = first.parse_known_args(words)[0].config
    if config is not None:
        words = [*read_config(config), *words]
    *parsed, _, unknown = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
    if unknown:
        parser.refuse_unknown(unknown)
    check_ranges(*parsed)
    return tuple(parsed)


def write_config(path: Path, *groups, left_out: tuple[str, ...] = ("hub_token",)) -> None:
    """Writes every flag that differs from its default, so that `--config` with this file repeats the command."""
    flags = {}
    for group in groups:
        for one in dataclasses.fields(group):
            default = one.default_factory() if one.default_factory is not dataclasses.MISSING else one.default
            value = getattr(group, one.name)
            if value != default and one.name not in left_out:
                flags[one.name] = value
    path.write_text(yaml.safe_dump(flags, sort_keys=False, allow_unicode=True), encoding="utf-8")
