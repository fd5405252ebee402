"""Whenever the disk fails a build, it ends in one sentence, and the same command goes on as if nothing had been."""

import errno
import os
import resource
import runpy
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from build_worker import word_build
from conftest import as_flags
from test_build import finish, start, state

from diffusers_tpo.errors import UserError, exit_on_user_error


SCRIPT = Path(__file__).parents[1] / "examples" / "text_preference" / "build_negatives.py"
CAPTIONS = Path(__file__).parent / "data" / "captions.txt"
EVENTS = ("open", "os.mkdir", "os.rename", "os.truncate")


class FaultyDisk:
    """Counts what is written below a folder and lets one of these calls fail.

    Attributes:
        written: how many calls there were.
    """

    def __init__(self):
        self.folder, self.moment, self.fault, self.written = None, None, 0, 0
        sys.addaudithook(self._hear)  # for as long as the process lives

    @contextmanager
    def failing(self, folder: Path, moment: int | None, fault: int) -> Iterator[None]:
        self.folder, self.moment, self.fault, self.written = str(folder), moment, fault, 0
        try:
            yield
        finally:
            self.folder = None

    def _hear(self, event: str, arguments: tuple) -> None:
        if self.folder is None or event not in EVENTS:
            return
        path = arguments[0]
        if not isinstance(path, str | os.PathLike) or not str(path).startswith(self.folder):
            return
        if event == "open" and not self._writes(*arguments[1:3]):
            return
        self.written += 1
        if self.written - 1 == self.moment:
            raise OSError(self.fault, os.strerror(self.fault), str(path))

    @staticmethod
    def _writes(mode: str | None, flags: int | None) -> bool:
        return any(letter in (mode or "") for letter in "wax+") or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))


@pytest.fixture(scope="module")
def disk() -> FaultyDisk:
    return FaultyDisk()


FAULTS = [errno.EROFS, errno.ENOSPC, errno.ENOENT, errno.EIO]


def sentence_of(run, capsys) -> str | None:
    """The one sentence with which a run ends; `None` where it needs not what failed, as a folder that is there already."""
    capsys.readouterr()
    try:
        with exit_on_user_error():
            run()
    except SystemExit as stopped:
        told = capsys.readouterr().err
        assert stopped.code == 2 and "Traceback" not in told
        (sentence,) = [line for line in told.splitlines() if line.startswith("error: ")]
        return sentence
    return None


@pytest.mark.slow
@pytest.mark.parametrize("images", [False, True])
def test_a_build_survives_a_fault_at_every_write(images, tmp_path, disk, capsys):
    arguments = (50, None, 0.0, images)
    with disk.failing(tmp_path / "whole", None, 0):
        word_build(tmp_path / "whole", *arguments)
    writes, ended = disk.written, 0
    for moment in range(writes):
        folder, fault = tmp_path / str(moment), FAULTS[moment % len(FAULTS)]
        with disk.failing(folder, moment, fault):
            sentence = sentence_of(lambda folder=folder: word_build(folder, *arguments), capsys)
        if sentence is not None:
            assert os.strerror(fault) in sentence and str(folder) in sentence
            ended += 1
        word_build(folder, *arguments)
        assert state(folder) == state(tmp_path / "whole")
        assert not list(folder.rglob(".partial-*"))
    assert ended >= 12 and ended > writes / 2


@pytest.mark.slow
def test_the_script_survives_a_fault_at_every_write(tmp_path, disk, capsys, monkeypatch):
    def run(folder: Path) -> None:
        flags = {"shapes_rows": 20, "editor": "shapes", "output_dir": folder, "preview": 1}
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *as_flags(flags)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    whole = tmp_path / "whole" / "out"
    with disk.failing(whole, None, 0):
        run(whole)
    writes, ended = disk.written, 0
    for moment in range(writes):
        folder, fault = tmp_path / str(moment) / "out", FAULTS[moment % len(FAULTS)]
        with disk.failing(folder, moment, fault):
            ended += sentence_of(lambda folder=folder: run(folder), capsys) is not None
        run(folder)
        assert state(folder) == state(whole)
        for name in ("README.md", "audit.json", "preview.html"):
            assert (folder / name).read_text() == (whole / name).read_text()
    assert ended >= 15 and ended > writes / 2


def small_disk_build(folder: Path, errors: Path) -> None:
    """A build in a process that may write no file of more than 20 kB."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    with exit_on_user_error():
        word_build(folder, 80, None, 0.0, True)


@pytest.mark.slow
def test_images_that_do_not_fit_on_the_disk_are_one_sentence(tmp_path):
    assert finish(start(small_disk_build, tmp_path / "out", tmp_path / "errors")) == 2
    told = (tmp_path / "errors").read_text()
    assert "Traceback" not in told and os.strerror(errno.EFBIG) in told and "make room" in told
    word_build(tmp_path / "out", 80, tmp_path / "asked", 0.0, True)
    word_build(tmp_path / "whole", 80, None, 0.0, True)
    assert state(tmp_path / "out") == state(tmp_path / "whole")


def test_a_folder_that_is_deleted_under_the_run_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("diffusers_tpo.negatives.journal.SYNC_SECONDS", 0)

    class Deleting:
        name = "deleting"

        def edit(self, requests):
            from diffusers_tpo.negatives.editors import Edits

            for request in requests:
                if request.row == 3:
                    shutil.rmtree(tmp_path / "out")
                yield request, Edits((request.caption.replace("red", "blue"),))

    def run():
        from build_worker import captions, source_of

        from diffusers_tpo.negatives.build import build
        from diffusers_tpo.negatives.work import Plan

        build(source_of(captions(9)), Deleting(), Plan(("attribute",)), tmp_path / "out", {})

    with pytest.raises(UserError, match="was deleted while the run wrote to it"):
        run()
    assert not (tmp_path / "out" / "data").exists()
