"""`diffusers-tpo COMMAND --FLAG VALUE ...`. Knows the names of the commands only."""

import sys

from ..errors import UserError, exit_on_user_error
from ..version import __version__
from .parsing import nearest
from .scripts import PROGRAM, SCRIPTS, run_program, sentence_of


ENV = "Prints what a bug report needs: versions, accelerator, packages that do not fit together."


def help_text() -> str:
    """What the program can do, one line for each command."""
    lines = {command: sentence_of(command) for command in SCRIPTS} | {"env": ENV}
    width = max(map(len, lines))
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [--config FILE] [--FLAG VALUE ...]",
            "",
            *(f"  {command:{width}}  {sentence}" for command, sentence in lines.items()),
            "",
            f"`{PROGRAM} COMMAND --help` explains every flag. On several GPUs: accelerate launch -m diffusers_tpo train ...",
        ]
    )


def run(words: list[str]) -> None:
    """Runs the command that `words` begin with.

    Raises:
        UserError: if there is no such command.
    """
    command, *rest = words or ["--help"]
    if command in SCRIPTS:
        run_program(command, rest)
    elif command == "env":
        from .environment import describe  # which imports torch

        print(describe())
    elif command == "--version":
        print(f"diffusers_tpo {__version__}")
    elif command in ("-h", "--help", "help"):
        print(help_text())
    else:
        near = nearest(command, [*SCRIPTS, "env"])
        advice = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(SCRIPTS)} and env"
        raise UserError(f"{PROGRAM} has no command {command!r}; {advice}")


def main() -> None:
    """The entry point: what a user can mend ends it with exit code 2 and one sentence."""
    with exit_on_user_error():
        run(sys.argv[1:])
