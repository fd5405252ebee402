"""Writes files whole or not at all, and says how two configurations differ. Knows nothing of what is in them."""

import json
import os
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
