#!/usr/bin/env python
"""Writes flags.md, the tables of all flags of all commands, from the dataclasses that the commands read.

python docs/flags.py [--check]
"""

import argparse
import dataclasses
import inspect
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

from diffusers_tpo.flags import Kind, Range, default_of, kinds_of
from diffusers_tpo.show import markdown_table


DOCS = Path(__file__).resolve().parent
SCRIPTS = DOCS.parent / "examples" / "text_preference"
PAGE = DOCS / "flags.md"
HEAD = """# Flags

Every flag of every command: its default, what it takes, and what it does. `python docs/flags.py` writes this page from the lines of code
that the commands read, so do not edit it by hand. What a flag is for, and when to change it, stands in [Data](data.md),
[Training](training.md) and [Evaluation](evaluation.md).

All commands take two more. `--config file.yaml` reads flags from a file, one `name: value` a line; those of the command line win. `--version` prints
the version. A flag that is off or on takes no value, `true` or `false`.
"""
COMMANDS = {  # headings, by script
    "train_text_to_image_tpo.py": "Training",
    "build_negatives.py": "Building the data",
    "build_negatives_at_scale.py": "Building the data at scale",
    "evaluate.py": "Evaluation",
    "advise.py": "Advice",
    "export_lora.py": "Export of a LoRA",
}
WORDS = {str: "text", int: "whole number", float: "number", bool: "off or on"}


def groups_of(script: Path) -> list[type]:
    """The dataclasses that a script reads its flags into: what its `main` takes."""
    hints = get_type_hints(runpy.run_path(str(script))["main"])
    return [hint for hint in hints.values() if dataclasses.is_dataclass(hint)]


def takes(kind: Kind) -> str:
    """What a flag takes, in words."""
    words = ", ".join(f"`{choice}`" for choice in kind.choices) or WORDS[kind.type]
    if kind.range != Range():
        words += f", {kind.range}"
    return f"one or more: {words}" if kind.is_list else words


def shown(value: object) -> str:
    """A default."""
    if value is dataclasses.MISSING:
        return "required"
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    values = value if isinstance(value, list) else [value]
    return f"`{' '.join(f'{one:g}' if isinstance(one, float) else str(one) for one in values)}`"


def table(group: type) -> str:
    kinds = kinds_of(group)
    rows = []
    for field in dataclasses.fields(group):
        if field.name in kinds:
            help = field.metadata["help"].replace("|", "\\|")
            rows.append([f"`--{field.name}`", shown(default_of(field)), takes(kinds[field.name]), help])
    return markdown_table(["flag", "default", "takes", "what it does"], rows)


def sections() -> Iterator[str]:
    yield HEAD
    for script, heading in COMMANDS.items():
        yield f"## {heading}\n\n`{script}`\n"
        for group in groups_of(SCRIPTS / script):
            sentence = inspect.cleandoc(group.__doc__).splitlines()[0]
            yield f"### {sentence.rstrip('.')}\n\n{table(group)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is not current")
    args = parser.parse_args()
    page = "\n".join(sections())
    if not args.check:
        PAGE.write_text(page, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page:
        sys.exit("docs/flags.md is not current: run python docs/flags.py")


if __name__ == "__main__":
    main()
