"""The folder of an evaluation: one run at a time writes into it, and only over what an evaluation wrote."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from ..errors import UserError
from ..files import make_folder, writing_to
from .suite import SETTINGS


RESULTS = ("results.json", "report.html")


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Holds the folder for this run; call it on every process.

    Raises:
        UserError: if it cannot be written to, another run holds it, or it has results that no evaluation wrote.
    """
    make_folder(folder, "--output_dir")
    with writing_to(folder, "output_dir"), contextlib.ExitStack() as held:
        problem = _claim(folder, held) if PartialState().is_main_process else None
        found = [problem]
        broadcast_object_list(found)  # so that no process waits for one that has ended
        if found[0] is not None:
            raise UserError(found[0])
        yield


def _claim(folder: Path, held: contextlib.ExitStack) -> str | None:
    """Takes the lock, or says why not."""
    foreign = [name for name in RESULTS if (folder / name).exists() and not (folder / SETTINGS).exists()]
    if foreign:
        return (
            f"--output_dir {str(folder)!r} holds a {foreign[0]} that no evaluation wrote, and it would be overwritten; choose "
            "another folder"
        )
    try:
        held.enter_context(FileLock(folder / ".lock", timeout=0))
    except Timeout:
        return f"--output_dir {str(folder)!r} is being filled by another run; wait for it, or choose another folder"
    return None
