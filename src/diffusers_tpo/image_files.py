"""Which files the image cells of a data set may name, by where the data set comes from. Decodes nothing.

A cell holds the bytes of an image, or only the path of its file. Whoever writes a data set chooses that path, so a data set of
the Hub may name its own files alone: or else it could have any picture of this machine trained on, or published.
"""

import io
import os
import threading
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from huggingface_hub import HfFileSystem
from huggingface_hub.constants import HF_HUB_CACHE

from .show import shorten


LARGEST = 2**30  # bytes of a file in an archive or on the Hub, which is read as a whole
ARCHIVE = "zip://"
HUB = "hf://"
OPENING = threading.Lock()


class ImageFiles(Protocol):
    """The files that the cells of one data set may name."""

    def open(self, path: str) -> BinaryIO:
        """A file, to be read from its start.

        Raises:
            OSError: if it is none of these files, or cannot be opened.
        """

    def state(self, path: str) -> tuple[int, ...] | None:
        """What changes when the file does; `None` if it never does or is not there."""


@dataclass(frozen=True)
class Embedded:
    """No files: every cell holds the bytes of its image."""

    def open(self, path: str) -> BinaryIO:
        raise PermissionError(
            f"the cell holds no image but the path {brief(path)}, and this data set may name no files"
        )

    def state(self, path: str) -> None:
        return None


EMBEDDED = Embedded()


@dataclass(frozen=True)
class LocalFiles:
    """Files of this machine, and those inside zip archives, for a data set that lies on it.

    Attributes:
        folder: that relative paths begin in; where it has no such file, they begin where the program was started.
    """

    folder: Path | None = None

    def open(self, path: str) -> BinaryIO:
        refuse_address(path)
        if path.startswith(ARCHIVE):
            return open_in_archive(self, path)
        if "://" in path:
            raise PermissionError(
                f"the cell names {brief(path)}, and a data set on this machine may name only its files"
            )
        return open_regular(self._place(path))

    def state(self, path: str) -> tuple[int, ...] | None:
        try:
            found = self._place(path.rpartition("::")[2]).stat()
        except (OSError, ValueError):  # the latter of a path with a null character
            return None
        return found.st_mtime_ns, found.st_size

    def _place(self, path: str) -> Path:
        beside = self.folder / path if self.folder else Path(path)
        return beside if beside.is_file() else Path(path)


@dataclass(frozen=True)
class HubFiles:
    """The files of one data set of the Hub: in its part of the cache, streamed, and inside its zip archives.

    Attributes:
        repo: id of the data set.
        token: with which the Hub is asked.
    """

    repo: str
    token: str | None = None

    def open(self, path: str) -> BinaryIO:
        refuse_address(path)
        if path.startswith(ARCHIVE):
            return open_in_archive(self, path)
        if ".." in path.split("/"):
            raise PermissionError(f"the cell names {brief(path)}, which could lie anywhere")
        if path.startswith((f"{HUB}datasets/{self.repo}@", f"{HUB}datasets/{self.repo}/")):
            with HfFileSystem(token=self.token).open(path, "rb") as file:
                return read_whole(file, path)
        if not Path(path).is_absolute() or not Path(path).is_relative_to(self._cache()):
            raise PermissionError(
                f"the cell names {brief(path)}, and a data set of the Hub may name only its own files"
            )
        if not Path(path).resolve().is_relative_to(self._cache().resolve()):
            raise PermissionError(f"the cell names {brief(path)}, which leads out of the cache of its data set")
        return open_regular(Path(path))

    def state(self, path: str) -> None:
        return None  # a revision stays as it is

    def _cache(self) -> Path:
        return Path(HF_HUB_CACHE) / f"datasets--{self.repo.replace('/', '--')}"


PART = "part://"


@dataclass(frozen=True)
class PartFiles:
    """The files of several data sets whose rows are one after the other: each may name its own alone.

    Attributes:
        parts: the files of each.
    """

    parts: tuple[LocalFiles | HubFiles, ...]

    @staticmethod
    def path(number: int, path: str) -> str:
        """The path that a cell of the data set of this number has among the others."""
        return f"{PART}{number}/{path}"

    def resolve(self, path: str) -> tuple[LocalFiles | HubFiles, str]:
        """The files that a path is one of, and what it is called there.

        Raises:
            OSError: if it names no data set.
        """
        number, slash, inside = path.removeprefix(PART).partition("/")
        if not path.startswith(PART) or not slash:
            raise PermissionError(f"the cell names {brief(path)}, of no data set")
        return self.parts[int(number)], inside

    def open(self, path: str) -> BinaryIO:
        files, inside = self.resolve(path)
        return files.open(inside)

    def state(self, path: str) -> tuple[int, ...] | None:
        files, inside = self.resolve(path)
        return files.state(inside)


def files_of(name: str, token: str | None = None) -> LocalFiles | HubFiles:
    """The files that a data set may name which was loaded by this name: a folder or a file, or an id on the Hub."""
    place = Path(name).resolve()
    return LocalFiles(place if place.is_dir() else place.parent) if place.exists() else HubFiles(name, token)


def is_address(path: str) -> bool:
    """Whether a path is one of the web."""
    return path.startswith(("http://", "https://"))


def refuse_address(path: str) -> None:
    """Raises `PermissionError` for an address of the web."""
    if is_address(path):
        raise PermissionError(
            f"the cell names the address {brief(path)}, and nothing is downloaded; name files of images"
        )


def brief(path: str) -> str:
    return shorten(repr(path), 200)


def open_regular(path: Path) -> BinaryIO:
    """A file on the disk; a device or a pipe, which might never end, is none."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {brief(str(path))}")
    return open(path, "rb")


def read_whole(file: IO[bytes], path: str) -> BinaryIO:
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OSError(f"the file {brief(path)} has more than the {LARGEST} bytes that are safe to read")
    return io.BytesIO(content)


def open_in_archive(files: LocalFiles | HubFiles, path: str) -> BinaryIO:
    """The file that `zip://inside.png::archive.zip` names, if the archive is one of `files`."""
    inside, _, archive = path.removeprefix(ARCHIVE).rpartition("::")
    if not inside or archive.startswith(ARCHIVE):
        raise FileNotFoundError(f"{brief(path)} names no file in an archive")
    with OPENING:
        opened = open_archive(files, archive, os.getpid())
    try:
        size = opened.getinfo(inside).file_size
    except KeyError as error:
        raise FileNotFoundError(f"there is no file {brief(inside)} in {brief(archive)}") from error
    if size > LARGEST:
        raise OSError(f"the file {brief(inside)} has more than the {LARGEST} bytes that are safe to read")
    with opened.open(inside) as file:
        return read_whole(file, inside)


@lru_cache(maxsize=16)
def open_archive(files: LocalFiles | HubFiles, path: str, process: int) -> zipfile.ZipFile:
    """An archive, whose table of contents is read once in each process: those that fork share the place in a file."""
    return zipfile.ZipFile(files.open(path))
