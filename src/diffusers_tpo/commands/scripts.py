"""Finds the example scripts and runs them, as a program or inside this process. Knows no flag of theirs."""

import ast
import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from ..errors import UserError
from .parsing import take_flags


PROGRAM = "diffusers-tpo"
SCRIPTS = {
    "train": "train_text_to_image_tpo.py",
    "negatives": "build_negatives.py",
    "negatives-at-scale": "build_negatives_at_scale.py",
    "evaluate": "evaluate.py",
    "advise": "advise.py",
    "export": "export_lora.py",
    "quickstart": "quickstart.py",
}
PACKAGE = Path(__file__).parents[1]
FOLDERS = (PACKAGE / "scripts", PACKAGE.parents[1] / "examples" / "text_preference")  # of a wheel, of a clone


def find_script(command: str) -> Path:
    """The file of a command's script: of the wheel, or of the clone that this package lies in.

    Raises:
        UserError: if there is none, as in a copy of the package alone.
    """
    for folder in FOLDERS:
        if (folder / SCRIPTS[command]).is_file():
            return folder / SCRIPTS[command]
    raise UserError(f"the script of {PROGRAM} {command} is not installed; install diffusers_tpo again")


def sentence_of(command: str) -> str:
    """What a command does: the first line of its script."""
    docstring = ast.get_docstring(ast.parse(find_script(command).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def run_program(command: str, words: list[str]) -> None:
    """Runs a script as `python script.py words` would, only that its help names the command."""
    path = find_script(command)
    module = ModuleType("__main__")
    module.__file__ = str(path)  # where processes that it starts find what it defines
    code = compile(path.read_bytes(), path, "exec")
    with (
        _command_line([f"{PROGRAM} {command}", *words]),
        _main_module(module),
    ):  # runpy would put the path before the words
        exec(code, module.__dict__)


def call(command: str, flags: Mapping[str, Any]) -> None:
    """Runs a script's `main` in this process, whose other uses of accelerate it leaves alone.

    Raises:
        UserError: where the command would say what is wrong with its input.
        RuntimeError: where it would end with another exit code, as when training has stopped early.
    """
    main = _module(command).main
    groups = [group for name, group in get_type_hints(main).items() if name != "return"]
    parsed = take_flags(*groups, flags=flags)
    try:
        with _command_line([f"{PROGRAM} {command}", *_as_words(flags)]), _own_accelerate():
            main(*parsed)
    except SystemExit as stopped:
        if stopped.code:
            raise RuntimeError(f"{command} ended early, with exit code {stopped.code}") from stopped


def _module(command: str) -> ModuleType:
    """The script as a module, so that what it defines can be pickled."""
    path = find_script(command)
    name = f"diffusers_tpo.scripts.{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _as_words(flags: Mapping[str, Any]) -> list[str]:
    """The command line that asks for the same, as cards show it."""
    words = []
    for name, value in flags.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return words


@contextlib.contextmanager
def _command_line(words: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _main_module(module: ModuleType) -> Iterator[None]:
    before, sys.modules["__main__"] = sys.modules["__main__"], module
    try:
        yield
    finally:
        sys.modules["__main__"] = before


@contextlib.contextmanager
def _own_accelerate() -> Iterator[None]:
    """An `Accelerator` made inside starts afresh, and one that was there before goes on as it was."""
    from accelerate.state import (  # which is slow, and not needed for --help
        AcceleratorState,
        GradientState,
        PartialState,
    )

    states = [kind._shared_state for kind in (AcceleratorState, PartialState, GradientState)]
    before = [dict(state) for state in states]
    for state in states:
        state.clear()
    try:
        yield
    finally:
        for state, values in zip(states, before, strict=True):
            state.clear()
            state.update(values)
