"""The log of a run: whole lines, cut back to where a run goes on, and nothing lost with its folder."""

import json
import os
import shutil

import pytest

from diffusers_tpo.errors import UserError
from diffusers_tpo.training.log import TrainingLog


def test_the_log_is_cut_back_to_the_step_from_which_a_run_goes_on(tmp_path):
    path = tmp_path / "deep" / "log.jsonl"
    log = TrainingLog(path, 0, is_main=True)
    for step in (1, 2, 3):
        log.append(step, {"loss": step / 10})
    again = TrainingLog(path, 2, is_main=True)
    assert again.rows == [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 0.2}]
    again.append(3, {"loss": 0.5})
    assert [json.loads(line) for line in path.read_text().splitlines()] == again.rows
    assert again.rows[-1] == {"step": 3, "loss": 0.5}


def test_half_a_line_of_a_killed_run_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    assert [row["step"] for row in TrainingLog(path, 2, is_main=True).rows] == [1, 2]
    assert path.read_text() == '{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 2.0}\n'


def test_a_new_run_begins_a_new_log_and_other_processes_write_none(tmp_path):
    path = tmp_path / "log.jsonl"
    TrainingLog(path, 0, is_main=True).append(1, {"loss": 1.0})
    other = TrainingLog(path, 1, is_main=False)
    other.append(2, {"loss": 2.0})
    assert [row["step"] for row in other.rows] == [1, 2] and len(path.read_text().splitlines()) == 1
    assert TrainingLog(path, 0, is_main=True).rows == [] and path.read_text() == ""


def test_a_log_whose_folder_is_removed_is_written_again(tmp_path, caplog):
    path = tmp_path / "run" / "log.jsonl"
    log = TrainingLog(path, 0, is_main=True)
    log.append(1, {"loss": 1.0})
    shutil.rmtree(path.parent)
    log.append(2, {"loss": 2.0}), log.append(3, {"loss": 3.0})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
    assert sum("written again" in record.getMessage() for record in caplog.records) == 1


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    log = TrainingLog(tmp_path / "log.jsonl", 0, is_main=True)
    os.remove(log.path), log.path.mkdir()
    with pytest.raises(UserError, match="--output_dir takes no log of step 1 .*--resume_from_checkpoint latest"):
        log.append(1, {"loss": 1.0})
