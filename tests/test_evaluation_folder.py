"""The folder of an evaluation: one run at a time, nobody else's files, faults of the disk in one sentence, nothing lost."""

import errno
import shutil

import pytest
from filelock import FileLock

from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation.folder import claimed
from diffusers_tpo.files import writing_to


def test_a_folder_is_held_by_one_run(tmp_path):
    with claimed(tmp_path / "out"):
        pass
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(UserError, match="is being filled by another run"):
        with claimed(tmp_path / "out"):
            pytest.fail("two runs fill it")
    with claimed(tmp_path / "out"):
        pass  # the lock does not outlive its run


@pytest.mark.parametrize("name", ["results.json", "report.html"])
def test_what_no_evaluation_wrote_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"holds a {name} that no evaluation wrote"), claimed(tmp_path):
        pytest.fail("it would be overwritten")
    (tmp_path / "settings.json").write_text("{}")  # what an evaluation has begun is its own
    with claimed(tmp_path):
        pass


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/below"])
def test_a_folder_that_cannot_be_is_said_with_its_flag(tmp_path, place):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="--output_dir .* cannot be made"), claimed(tmp_path / place):
        pytest.fail("there is no such folder")


def test_a_folder_that_is_removed_while_it_is_filled(tmp_path):
    with pytest.raises(UserError, match="--output_dir '.*out' was removed while it was in use; what is complete"):
        with claimed(tmp_path / "out"):
            shutil.rmtree(tmp_path / "out")
            (tmp_path / "out" / "x").write_text("lost")


FAULTS = {
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "read-only": OSError(errno.EROFS, "Read-only file system"),
    "of safetensors": RuntimeError("I/O error: No space left on device (os error 28)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_disk_are_one_sentence(tmp_path, fault):
    with pytest.raises(UserError, match="--output_dir .* takes no more files .*; what is complete is kept"):
        with writing_to(tmp_path, "output_dir"):
            raise FAULTS[fault]


def test_a_file_that_may_not_be_written_is_one_of_them(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="takes no more files"), writing_to(tmp_path, "output_dir"):
        (tmp_path / "taken").write_text("a folder is no file")


def test_other_errors_are_not_taken_for_faults_of_the_disk(tmp_path):
    for error in (
        KeyError("x"),
        OSError("the Hub cannot be reached"),
        FileNotFoundError(2, "No such file", "/elsewhere"),
    ):
        with pytest.raises(type(error)), writing_to(tmp_path, "output_dir"):
            raise error
    with pytest.raises(UserError, match="^its own$"), writing_to(tmp_path, "output_dir"):
        raise UserError("its own")
