"""The folder of a run is its own, and nothing in it is lost to another."""

import json
import shutil

import pytest

from diffusers_tpo.errors import UserError
from diffusers_tpo.models.checkpoints import partial_folder, publish
from diffusers_tpo.training.folder import RunFolder


def make_checkpoint(folder, step: int) -> None:
    partial = partial_folder(folder, step)
    partial.mkdir(parents=True)
    (partial / "weights").write_text(str(step))
    publish(partial, {"step": step, "identity": {}, "model": {}})


def test_a_second_run_is_refused_until_the_first_one_leaves(tmp_path):
    with RunFolder(tmp_path / "run"):
        with pytest.raises(UserError, match="^--output_dir .*run' is what another run writes to"):
            RunFolder(tmp_path / "run", patience=0).__enter__()
        with RunFolder(tmp_path / "other"), RunFolder(tmp_path / "run", is_main=False):
            pass
    with RunFolder(tmp_path / "run"):
        pass


def test_a_run_that_fails_leaves_its_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path):
        raise ZeroDivisionError
    with RunFolder(tmp_path):
        pass


@pytest.mark.parametrize("name", ["/dev/zero", "/proc/1/nothing", "\0"])
def test_what_can_be_no_folder_is_one_sentence(name):
    with pytest.raises(UserError, match="^--output_dir "):
        RunFolder(name).__enter__()


def test_a_file_in_the_place_of_the_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="^--output_dir .*file' cannot be made"):
        RunFolder(tmp_path / "file").__enter__()


def test_a_run_from_the_start_takes_no_folder_of_another(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.find_start() is None and folder.find_start("latest") is None
    (tmp_path / "training_log.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    with pytest.raises(
        UserError, match="holds the log of a run of 2 steps; go on with --resume_from_checkpoint latest"
    ):
        folder.find_start()
    assert folder.find_start("latest") is None
    make_checkpoint(tmp_path, 4)
    with pytest.raises(UserError, match="holds checkpoint-4 of a run; go on with --resume_from_checkpoint latest"):
        folder.find_start()
    assert folder.find_start("latest") == tmp_path / "checkpoint-4"


@pytest.mark.parametrize("name", ["model_index.json", "pytorch_lora_weights.safetensors"])
@pytest.mark.parametrize("resume_from", [None, "latest"])
def test_a_run_from_the_start_overwrites_no_model(tmp_path, name, resume_from):
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=rf"holds a model \({name}\), which would be overwritten"):
        RunFolder(tmp_path).find_start(resume_from)
    make_checkpoint(tmp_path, 1)
    assert RunFolder(tmp_path).find_start("latest") == tmp_path / "checkpoint-1"


def test_foreign_files_are_set_aside_and_a_run_s_own_are_not(tmp_path, caplog):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "config.yaml").write_text("rank: 1")
    (tmp_path / "README.before-1.md").write_text("older")
    RunFolder(tmp_path).make_room()
    assert (tmp_path / "README.before-2.md").read_text() == "mine"
    assert (tmp_path / "config.before-1.yaml").read_text() == "rank: 1"
    assert not (tmp_path / "README.md").exists() and "README.md" in caplog.text
    (tmp_path / "README.md").write_text("card"), (tmp_path / "config.yaml").write_text("rank: 2")
    (tmp_path / "training_log.jsonl").write_text(json.dumps({"step": 1}) + "\n")
    RunFolder(tmp_path).make_room()
    assert (tmp_path / "README.md").read_text() == "card" and (tmp_path / "config.yaml").exists()
    assert (tmp_path / "training_log.before-1.jsonl").read_text() == '{"step": 1}\n'


def test_what_happens_to_the_folder_under_a_run_is_one_sentence(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(UserError, match="run' takes no more files .*No such file.*--resume_from_checkpoint latest"):
        with RunFolder(path):
            open(path / "missing" / "file", "w")
    with pytest.raises(UserError, match="run' was removed while it was in use; .*--resume_from_checkpoint latest"):
        with RunFolder(path):
            shutil.rmtree(path)
            raise RuntimeError("Parent directory does not exist")
    for error in (RuntimeError("out of memory"), FileNotFoundError(2, "gone", str(tmp_path / "elsewhere"))):
        with pytest.raises(type(error)), RunFolder(path):
            raise error
