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
DISK = (  # other faults that end a run
    errno.EROFS,
    errno.EEXIST,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
)
LONGEST_NAME = 300  # characters of a path
LONGEST = 2000  # characters of a sentence
IN_WORKER = re.compile(r"^diffusers_tpo\.errors\.\w+: ", re.MULTILINE)  # a data worker puts its traceback before it


class UserError(ValueError):
    """A wrong input. Its message is one sentence that names the argument, what it got and what to do."""


class BadRow(UserError):
    """A row of a data set that cannot be used; its message begins with the row."""


def reason(error: BaseException) -> str:
    """The first line of an error, or else its kind, as part of a sentence."""
    return ([*filter(None, map(str.strip, str(error).splitlines())), type(error).__name__])[0]


def _about_disk(error: BaseException) -> str | None:
    """What a fault of the disk is, as a sentence; `None` if the error is none.

    A full disk is looked for in what led to the error too: who closes a file that could not be written fails once more.
    """
    if isinstance(error, OSError) and error.errno in DISK and error.filename is not None:
        name = shorten(str(error.filename), LONGEST_NAME)
        return f"{name!r} could not be read or written ({error.strerror}); see to it"
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        if any(sign in str(link) for sign in FULL):
            return f"a file could not be written ({reason(link)}); make room"
        seen.append(link)
        link = link.__cause__ or link.__context__
    return None


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Ends the program with exit code 2 and the sentence on standard error, without a traceback.

    A full disk, and a file or folder that is gone or cannot be used, count as errors that a user can mend.
    """
    try:
        yield
    except UserError as error:
        _exit(IN_WORKER.split(str(error).strip())[-1])
    except Exception as error:
        about = _about_disk(error)
        if about is None:
            raise
        _exit(f"{about} and start again: what is complete is kept")


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
