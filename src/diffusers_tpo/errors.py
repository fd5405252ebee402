"""The error that a user can mend, and the one way in which programs report it."""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from .privacy import without_secrets
from .show import harmless, shorten


FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)))  # safetensors has errors of its own for them
LONGEST = 2000  # characters of a sentence
IN_WORKER = re.compile(r"^diffusers_tpo\.errors\.\w+: ", re.MULTILINE)  # a data worker puts its traceback before it


class UserError(ValueError):
    """A wrong input. Its message is one sentence that names the argument, what it got and what to do."""


class BadRow(UserError):
    """A row of a data set that cannot be used; its message begins with the row."""


def reason(error: BaseException) -> str:
    """The first line of an error, or else its kind, as part of a sentence."""
    return ([*filter(None, map(str.strip, str(error).splitlines())), type(error).__name__])[0]


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Ends the program with exit code 2 and the sentence on standard error, without a traceback.

    A full disk counts as an error that a user can mend.
    """
    try:
        yield
    except UserError as error:
        _exit(IN_WORKER.split(str(error).strip())[-1])
    except Exception as error:
        if not any(sign in str(error) for sign in FULL):
            raise
        _exit(f"a file could not be written ({reason(error)}); make room and start again: what is complete is kept")


def _exit(sentence: str) -> NoReturn:
    sentence = shorten(without_secrets(harmless(sentence)), LONGEST)
    print(f"\nerror: {sentence}", file=sys.stderr)  # a progress bar may have left its line open
    sys.exit(2)


def require(module: str, extra: str) -> Any:
    """Imports an optional package, or says which extra installs it.

    Raises:
        UserError: if the package is missing.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"the package {module!r} is missing; install it with: pip install 'diffusers_tpo[{extra}]'"
        ) from error
