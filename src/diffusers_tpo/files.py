"""Writes files whole or not at all, and says how two configurations differ. Knows nothing of what is in them."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError, reason


def make_folder(path: Path, argument: str) -> None:
    """Makes a folder that can be written to.

    Raises:
        UserError: if that fails, naming `argument`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # the latter for what can be no path
        why = error.strerror if isinstance(error, OSError) else reason(error)
        raise UserError(f"{argument} {str(path)!r} cannot be made ({why}); choose another folder") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"{argument} {str(path)!r} cannot be written to; choose another folder")


def is_missing_path(name: str) -> bool:
    """Whether a name of a model or data set can only mean a place on this machine, and nothing is there.

    A Hub id has at most one slash; what stands before it is no folder here.
    """
    if "://" in name or os.path.exists(name):
        return False
    owner, slash, _ = name.partition("/")
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or (bool(slash) and os.path.isdir(owner))


OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
SIGNS = tuple(map(os.strerror, OF_THE_DISK)) + ("os error",)  # safetensors has errors of its own for them


@contextlib.contextmanager
def writing_to(folder: Path, argument: str) -> Iterator[None]:
    """Turns faults of the disk inside the block into one sentence: a full or read-only disk, a folder that was removed.

    Raises:
        UserError: naming `argument`. What was whole before is as it was.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        what = fault_of(folder, error)
        if what is None:
            raise
        raise UserError(
            f"--{argument} {str(folder)!r} {what}; what is complete is kept: mend that and start the same command again"
        ) from error


def fault_of(folder: Path, error: BaseException) -> str | None:
    """What an error says of a folder that is written to, as part of a sentence; `None` if it is about something else."""
    if not Path(folder).is_dir():
        return "was removed while it was in use"
    return f"takes no more files ({reason(error)})" if _is_of_the_disk(error, Path(folder)) else None


def _is_of_the_disk(error: BaseException, folder: Path) -> bool:
    if isinstance(error, OSError):
        names = [
            Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)
        ]
        return error.errno in OF_THE_DISK or any(folder.absolute() in name.absolute().parents for name in names)
    return any(sign in str(error) for sign in SIGNS)


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_file(partial: Path, final: Path) -> None:
    """Gives a fully written file its final name, in the place of an older one."""
    sync(partial)
    os.replace(partial, final)
    sync(final.parent)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file so that a reader finds the old or the new text, never a part."""
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text, encoding="utf-8")
    publish_file(partial, path)


def write_unless_changed(path: Path, text: str, copy: Path) -> bool:
    """Writes a text file again, unless somebody else has written or changed it since; `copy` always gets the text.

    Returns:
        Whether it was written.
    """
    content, before = (file.read_bytes() if file.exists() else None for file in (path, copy))
    is_own = content is None or content == before
    if is_own:
        write_whole(path, text)
    write_whole(copy, text)
    return is_own


def read_json(path: Path) -> dict:
    """The object in a JSON file that a run has left.

    Raises:
        UserError: if the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is damaged ({reason(error)}); use another --output_dir") from error
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} is damaged (it holds no object); use another --output_dir")
    return content


def differences(saved: dict, config: dict) -> str:
    """What differs between two configurations, one clause for each name; empty if nothing does."""
    return "; ".join(
        f"{name} was {saved.get(name)!r} and is {config.get(name)!r}"
        for name in sorted(saved.keys() | config.keys())
        if saved.get(name) != config.get(name)
    )
