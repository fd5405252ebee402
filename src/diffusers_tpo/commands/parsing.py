"""Reads the flags of a command from the command line, from `--config file.yaml` or from Python. Knows no command."""

import argparse
import dataclasses
import difflib
import inspect
import numbers
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ..errors import UserError, reason
from ..files import write_whole
from ..flags import Kind, Range, check_ranges, default_of, kinds_of
from ..version import __version__


LONGEST_CONFIG = 1_000_000  # characters


class Parser(argparse.ArgumentParser):
    """Dataclasses as groups of flags; what is wrong is one [`UserError`] instead of a usage text.

    It gives only the values that were asked for, by name: where a flag was not, the dataclass knows its default.
    """

    def __init__(self, groups: tuple[type, ...], description: str | None):
        super().__init__(
            usage="%(prog)s [--config FILE] [--FLAG VALUE ...]",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
            exit_on_error=False,
        )
        self._negative_number_matcher = re.compile(r"-(\d|\.\d|inf|nan).*")  # argparse takes -1e-4 for a flag
        self.groups = groups
        self.kinds: dict[str, Kind] = {}
        self.add_argument(
            "--config", action="append", metavar="FILE", help="YAML file of flags; those given here win."
        )
        self.add_argument("--version", action="version", version=f"diffusers_tpo {__version__}")
        for group in groups:
            self.add_group(group)

    def add_group(self, group: type) -> None:
        """Adds the fields of a dataclass, under the first line of its docstring."""
        section = self.add_argument_group(inspect.cleandoc(group.__doc__ or group.__name__).splitlines()[0].strip("."))
        kinds = kinds_of(group)
        for one in dataclasses.fields(group):
            if one.name not in kinds:
                continue
            kind = self.kinds[one.name] = kinds[one.name]
            options: dict[str, Any] = {"type": _reader(kind), "metavar": str(kind), "help": _help(one, kind)}
            if kind.is_list:
                options["nargs"] = "+"
            elif kind.type is bool:
                options |= {"nargs": "?", "const": True, "metavar": "true,false"}
            section.add_argument(f"--{one.name}", **options)
            if kind.type is bool:
                self.add_argument(
                    f"--no_{one.name}", dest=one.name, action="store_const", const=False, help=argparse.SUPPRESS
                )

    def error(self, message: str) -> NoReturn:
        raise UserError(message)

    def read_words(self, words: list[str]) -> dict[str, Any]:
        """The values that a command line gives, and those of the file that its `--config` names.

        Raises:
            UserError: for what is no flag, and for a value that its flag does not take.
        """
        try:
            namespace, unknown = self.parse_known_args([self._spelled(word) for word in words])
        except argparse.ArgumentError as error:
            problem = "needs a value" if error.message.startswith("expected") else error.message
            raise UserError(f"{error.argument_name} {problem}") from error
        if unknown:
            raise UserError(self._about_unknown(unknown[0]))
        return self.with_config(vars(namespace))

    def read_values(self, given: Mapping[str, Any], place: str = "") -> dict[str, Any]:
        """The values in a mapping from flags to values, each of which may be text too.

        Args:
            place: where they stand, for messages, as in ", in --config 'run.yaml'".

        Raises:
            UserError: for what is no flag, and for a value that its flag does not take.
        """
        values: dict[str, Any] = {}
        for spelling, value in given.items():
            name = str(spelling).removeprefix("--").replace("-", "_")
            if name not in self.kinds:
                raise UserError(f"there is no flag {spelling}{place}; {self._advice(name)}")
            values[name] = _read(name, self.kinds[name], value, place)
        return values

    def make(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """An object of each dataclass.

        Raises:
            UserError: for a flag that must be given and was not, and for a number outside the range of its flag.
        """
        fields = [one for group in self.groups for one in dataclasses.fields(group) if one.init]
        missing = [
            f"--{one.name}" for one in fields if default_of(one) is dataclasses.MISSING and one.name not in values
        ]
        if missing:
            raise UserError(f"{' and '.join(missing)} must be given, here or in the file of --config")
        made = []
        for group in self.groups:
            names = kinds_of(group)
            made.append(group(**{name: value for name, value in values.items() if name in names}))
        check_ranges(*made)
        return tuple(made)

    def with_config(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values, and below them those of the one file that they name as `config`."""
        files = values.pop("config", [])
        if len(files) > 1:
            raise UserError(f"--config is given {len(files)} times; give one file")
        for file in files:
            values = self.read_values(read_config(file), f", in --config {file!r}") | values
        return values

    def _spelled(self, word: str) -> str:
        """A word of the command line; flags may be written with hyphens."""
        name, equals, value = word.partition("=")
        spelled = "--" + name.removeprefix("--").replace("-", "_")
        return spelled + equals + value if name.startswith("--") and spelled in self._names() else word

    def _names(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]

    def _about_unknown(self, word: str) -> str:
        name = word.partition("=")[0]
        if not name.startswith("-"):
            return f"{word!r} belongs to no flag; flags look like --name value"
        if not name.startswith("--"):
            return (
                f"there is no flag {name}; a value that begins with a dash follows an equals sign, as in --name={name}"
            )
        return f"there is no flag {name}; {self._advice(name.removeprefix('--'))}"

    def _advice(self, name: str) -> str:
        """The flags that may have been meant."""
        near = nearest(name, [known.removeprefix("--") for known in self._names() if not known.startswith("--no_")])
        return f"did you mean {' or '.join(f'--{one}' for one in near)}?" if near else "see --help"


def nearest(name: str, names: list[str]) -> list[str]:
    """Those of `names`, at most three, that `name` may stand for: it begins them, is misspelled, or has them as a part."""
    name = name.lower().replace("-", "_")
    begun = [one for one in names if one.startswith(name)]
    parts = name.split("_")
    return (
        begun[:3]
        or difflib.get_close_matches(name, names, n=1, cutoff=0.75)
        or [one for one in names if one in parts][:3]
        or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    )


def _reader(kind: Kind) -> Any:
    """`kind.read` as argparse wants it."""

    def read(text: str) -> Any:
        try:
            return kind.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _help(one: dataclasses.Field, kind: Kind) -> str:
    """What a field says of itself, with its range and its default."""
    default = default_of(one)
    facts = [] if kind.range == Range() else [str(kind.range)]
    if default is dataclasses.MISSING:
        facts.append("must be given")
    elif default is not None and default is not False and default not in ([], ""):
        facts.append(f"default {' '.join(map(str, default)) if kind.is_list else default}")
    text = f"{one.metadata.get('help', '')} ({', '.join(facts)})" if facts else one.metadata.get("help", "")
    return text.replace("%", "%%")


def _read(name: str, kind: Kind, value: Any, place: str) -> Any:
    """The value of a flag from a file or from Python."""
    if value is None and kind.may_be_none:
        return None
    if kind.is_list:
        items = list(value) if isinstance(value, list | tuple) else [value]
        return [_read(name, dataclasses.replace(kind, is_list=False), item, place) for item in items]
    if not isinstance(value, str | numbers.Real | Path):
        got = "nothing" if value is None else f"a {type(value).__name__}"
        raise UserError(f"--{name} takes a value, got {got}{place}")
    try:
        return kind.read(str(value))
    except ValueError as error:
        raise UserError(f"--{name} {error}{place}") from None


class _Loader(yaml.SafeLoader):
    """Reads what a file of flags may hold: texts as they are written, null, lists; and a name once.

    To YAML `no` is false, `1e-4` a text and `2026-01-01` a date; to a flag they are what they are on a command line.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a flag's name is a text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL|)$"), ["", "~", "n", "N"])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"), list("-+.")
)


def _yaml_reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8 text"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, RecursionError):
        return "its lists are nested too deeply"
    return reason(error)


def read_config(path: str) -> dict[str, Any]:
    """The flags in a YAML file and their values: texts, `None`, or lists of these.

    Raises:
        UserError: if the file cannot be read, or is no mapping of flags to values.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(LONGEST_CONFIG + 1)
        if len(text) > LONGEST_CONFIG:
            raise UserError(f"--config {path!r} is longer than {LONGEST_CONFIG:,} characters; give a file of flags")
        content = yaml.load(text, _Loader)
    except UserError:
        raise
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"--config {path!r} cannot be read ({_yaml_reason(error)})") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"--config {path!r} must hold a line such as 'rank: 16' for each flag")
    for name, value in content.items():
        if isinstance(value, dict):
            raise UserError(f"--config {path!r} has flags below {name}; write all flags side by side")
        if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
            raise UserError(f"--config {path!r} has a list in the list of {name}; a flag takes values")
    return content


def parse_flags(*groups: type, description: str | None = None, argv: list[str] | None = None) -> tuple[Any, ...]:
    """An object of each dataclass in `groups`, from the command line and the file that its `--config` names.

    Args:
        description: what `--help` begins with.
        argv: the words of the command line; those of this process by default.

    Raises:
        UserError: naming a flag that does not exist, lacks, or has a value that is none of its kind or out of its range.
    """
    parser = Parser(groups, description)
    return parser.make(parser.read_words(sys.argv[1:] if argv is None else argv))


def take_flags(*groups: type, flags: Mapping[str, Any]) -> tuple[Any, ...]:
    """The same from Python: `flags` by name, and `config` if there is a file.

    Raises:
        UserError: as [`parse_flags`] does.
    """
    parser = Parser(groups, None)
    config = [str(flags["config"])] if flags.get("config") is not None else []
    values = parser.read_values({name: value for name, value in flags.items() if name != "config"})
    return parser.make(parser.with_config(values | {"config": config}))


def write_config(path: Path, *groups: Any, left_out: tuple[str, ...] = ("hub_token",)) -> None:
    """Writes every flag that differs from its default, so that `--config` with this file repeats the command."""
    flags = {}
    for group in groups:
        for one in dataclasses.fields(group):
            value = getattr(group, one.name)
            if one.init and value != default_of(one) and one.name not in left_out:
                flags[one.name] = list(value) if isinstance(value, tuple) else value
    words = [str(word) for value in flags.values() for word in (value if isinstance(value, list) else [value])]
    # YAML takes some characters that nobody sees for ends of lines; escaped, they come back as they were
    is_plain = all(word.isprintable() for word in words)
    write_whole(path, yaml.safe_dump(flags, sort_keys=False, allow_unicode=is_plain))
