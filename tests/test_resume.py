"""A run that dies goes on as if it had not: killed, told to stop, out of disk, or fed numbers that are not finite."""

import errno
import hashlib
import json
import os
import random
import resource
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from conftest import as_flags
from processes import PATIENCE, finish, said, start
from safetensors.torch import load_file

from diffusers_tpo import TPOTrainer
from diffusers_tpo.models.adapters import LORA_FILE
from diffusers_tpo.models.checkpoints import find_checkpoint, list_checkpoints, read_state
from diffusers_tpo.training import outputs


LORA = "pytorch_lora_weights.safetensors"
STEPS = 10
SHORT = {"use_lora": True, "train_batch_size": 2, "max_train_steps": STEPS, "num_train_epochs": STEPS, "beta": 500}


def read_log(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]


def wait_until_training(started, output: Path) -> bool:
    """Waits for the run's first step, and returns whether it is still running."""
    log, began = output / "training_log.jsonl", time.time_ns()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and started[0].is_alive():
        if log.exists() and log.stat().st_mtime_ns > began and log.stat().st_size:
            return True
        time.sleep(0.01)
    return False


def files_of(output: Path) -> dict:
    """Digests of weights, averages, optimizer, schedule and random states of the last step."""
    return read_state(output / f"checkpoint-{STEPS}")["files"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "kills", "flags"),
    [
        (
            1,
            4,
            {"loss_type": "tdpo", "lora_dropout": 0.1, "gradient_accumulation_steps": 2, "dataloader_num_workers": 1},
        ),
        (1, 2, {"loss_type": "tkto", "use_lora": False, "streaming": True, "lr_scheduler": "cosine"}),
        (2, 2, {"loss_type": "tdpo", "lora_dropout": 0.1, "train_batch_size": 1}),
    ],
    ids=["workers and accumulation", "full and streaming", "two processes"],
)
def test_a_run_killed_again_and_again_is_the_uninterrupted_run(tmp_path, small_flags, processes, kills, flags):
    """Every step writes a checkpoint, so about half of the kills fall into a write."""
    flags = small_flags | SHORT | {"use_ema": True, "checkpointing_steps": 1, "checkpoints_total_limit": 2} | flags
    whole, killed, moments = tmp_path / "whole", tmp_path / "killed", random.Random(processes + kills)
    began = time.monotonic()
    assert finish(start(processes, as_flags(flags | {"output_dir": whole}), whole)) == [0] * processes, said(whole)
    again = as_flags(flags | {"output_dir": killed, "resume_from_checkpoint": "latest"})
    length, deaths = (time.monotonic() - began) / 4, 0
    for _ in range(kills):
        started = start(processes, again, killed)
        if wait_until_training(started, killed):
            time.sleep(moments.uniform(0, length / 2))
        for process in started:
            process.kill()
        deaths += finish(started)[0] == -signal.SIGKILL
    assert deaths >= kills / 2
    assert finish(start(processes, again, killed)) == [0] * processes, said(killed)

    assert files_of(killed) == files_of(whole)
    assert read_log(killed) == read_log(whole) and len(read_log(whole)) == STEPS
    weights = LORA if flags["use_lora"] else "unet/diffusion_pytorch_model.safetensors"
    first, second = load_file(whole / weights), load_file(killed / weights)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert [path.name for path in list_checkpoints(killed)] == [f"checkpoint-{STEPS - 1}", f"checkpoint-{STEPS}"]
    assert not list(killed.glob(".partial*"))


@pytest.mark.parametrize(
    ("number", "processes"),
    [(signal.SIGINT, 1), pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_to_one_process_saves_a_checkpoint_first(tmp_path, small_flags, number, processes):
    flags = small_flags | SHORT | {"output_dir": tmp_path, "dataloader_num_workers": 1, "max_train_steps": 1000}
    started = start(processes, as_flags(flags), tmp_path)
    assert wait_until_training(started, tmp_path), said(tmp_path)
    os.kill(started[-1].pid, number)
    codes = finish(started)
    assert codes[-1] == 128 + number and codes[0] > 128, said(tmp_path)
    step = read_log(tmp_path)[-1]["step"]
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"checkpoint-{step}"]
    assert f"stopped at step {step}: a signal came; checkpoint-{step} goes on" in said(tmp_path)
    assert "Traceback" not in said(tmp_path)


@pytest.mark.slow
def test_a_signal_to_the_whole_group_with_data_workers_saves_a_checkpoint_first(tmp_path, small_flags):
    """As a job queue sends it, to every process of the job."""
    flags = small_flags | SHORT | {"output_dir": tmp_path, "dataloader_num_workers": 2, "max_train_steps": 1000}
    (started,) = start(1, as_flags(flags), tmp_path)
    assert wait_until_training([started], tmp_path), said(tmp_path)
    for process in [started.pid, *children_of(started.pid)]:
        os.kill(process, signal.SIGTERM)
    assert finish([started]) == [128 + signal.SIGTERM], said(tmp_path)
    step = read_log(tmp_path)[-1]["step"]
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"checkpoint-{step}"]
    assert "Traceback" not in said(tmp_path) and not children_of(started.pid)


def children_of(pid: int) -> list[int]:
    """Processes that it has started, and those that these have."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        own = [int(child) for child in tasks.read_text().split()]
        found += [*own, *(other for child in own for other in children_of(child))]
    return found


@pytest.mark.slow  # a quick test asks the folder itself
def test_a_second_run_in_the_same_folder_is_refused_and_harms_nothing(tmp_path, small_flags):
    flags = small_flags | SHORT | {"output_dir": tmp_path, "max_train_steps": 1000}
    started = start(1, as_flags(flags), tmp_path / "first")
    assert wait_until_training(started, tmp_path), said(tmp_path / "first")
    assert finish(start(1, as_flags(flags), tmp_path / "second")) == [2], said(tmp_path / "second")
    assert "is what another run writes to at this moment" in said(tmp_path / "second")
    os.kill(started[0].pid, signal.SIGTERM)
    assert finish(started) == [128 + signal.SIGTERM], said(tmp_path / "first")
    steps = [row["step"] for row in read_log(tmp_path)]
    assert (
        steps == list(range(1, steps[-1] + 1))
        and find_checkpoint(tmp_path, "latest").name == f"checkpoint-{steps[-1]}"
    )


@pytest.mark.slow
def test_a_folder_that_is_removed_under_the_run_takes_no_training_with_it(tmp_path, small_flags):
    output = tmp_path / "model"
    flags = small_flags | SHORT | {"output_dir": output, "max_train_steps": 25}
    started = start(1, as_flags(flags), tmp_path)
    assert wait_until_training(started, output), said(tmp_path)
    output.rename(tmp_path / "gone")  # at once, while it is written to
    assert finish(started) == [0], said(tmp_path)
    assert [row["step"] for row in read_log(output)] == list(range(1, 26)) and (output / LORA).is_file()
    told = (tmp_path / "output-0.txt").read_text()
    assert "was removed; it is written again" in told and "Traceback" not in told


@pytest.mark.slow
def test_the_death_of_one_process_ends_all(tmp_path, small_flags):
    flags = small_flags | SHORT | {"output_dir": tmp_path, "max_train_steps": 1000}
    started = start(2, as_flags(flags), tmp_path)
    assert wait_until_training(started, tmp_path), said(tmp_path)
    started[1].kill()
    codes = finish(started)
    assert codes[0] not in (0, None) and codes[1] == -signal.SIGKILL


@contextmanager
def full_disk(owner, name: str, condition=lambda *args: True):
    """The system refuses to write long files from a call of `owner.name` on that meets `condition`.

    Only inside of this: the report of the tests may go to a file too.
    """
    limits, function = resource.getrlimit(resource.RLIMIT_FSIZE), getattr(owner, name)

    def call(*args, **kwargs):
        if condition(*args):
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_ends_in_one_sentence_and_leaves_the_earlier_checkpoints(refused, tmp_path):
    with full_disk(Accelerator, "save_state", lambda accelerator, folder: folder.endswith("-4")):
        sentence = refused(**SHORT, checkpointing_steps=2, output_dir=tmp_path)
    assert "output_dir takes no checkpoint of step 4" in sentence and "--resume_from_checkpoint latest" in sentence
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint-2"]
    assert find_checkpoint(tmp_path, "latest").name == "checkpoint-2"


def test_a_disk_that_is_full_at_the_end_takes_no_training_with_it(run_script, refused, tmp_path):
    flags = {**SHORT, "max_train_steps": 2, "checkpointing_steps": 2, "output_dir": tmp_path}
    with full_disk(outputs, "save_lora"):
        sentence = refused(**flags)
    assert "takes no more files (" in sentence and os.strerror(errno.EFBIG) in sentence
    run_script(**flags, resume_from_checkpoint="latest")
    assert (tmp_path / LORA).is_file() and len(read_log(tmp_path)) == 2


@pytest.mark.parametrize("place", ["loss", "gradient"])
def test_a_step_without_finite_numbers_is_skipped_and_its_rows_are_named(
    run_script, monkeypatch, tmp_path, caplog, place
):
    whole, calls = TPOTrainer.tpo_loss, []

    def faulty(self, *args, **kwargs):
        loss, metrics = whole(self, *args, **kwargs)
        calls.append(loss)
        if len(calls) == 3 and place == "loss":
            loss = loss * float("inf")
            metrics["loss"] = loss.detach()
        elif len(calls) == 3:
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss, metrics

    monkeypatch.setattr(TPOTrainer, "tpo_loss", faulty)
    flags = {**SHORT, "max_train_steps": 4, "checkpointing_steps": 1, "use_ema": True}
    run_script(**flags, output_dir=tmp_path)
    assert [row["skipped_steps"] for row in read_log(tmp_path)] == [0, 0, 1, 1]
    assert "loss" not in read_log(tmp_path)[2] if place == "loss" else "grad_norm" not in read_log(tmp_path)[2]
    weights = [load_file(tmp_path / f"checkpoint-{step}" / LORA_FILE) for step in (2, 3, 4)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[1][name], weights[2][name]) for name in weights[0])
    averages = [read_state(tmp_path / f"checkpoint-{step}")["files"]["ema.safetensors"] for step in (2, 3, 4)]
    assert averages[0] == averages[1] != averages[2]
    skipped = [record.getMessage() for record in caplog.records if "Step 3 is skipped" in record.getMessage()]
    assert len(skipped) == 1 and len(json.loads(skipped[0].split("rows ")[1])) == 2


def test_a_run_whose_numbers_stay_infinite_stops_with_the_last_good_weights(run_script, tmp_path, capsys):
    flags = {**SHORT, "learning_rate": 1e30, "nonfinite_patience": 3}
    with pytest.raises(SystemExit) as stopped:
        run_script(**flags, output_dir=tmp_path)
    assert stopped.value.code == 1
    rows = read_log(tmp_path)
    assert [row["skipped_steps"] for row in rows[-4:]] == [0, 1, 2, 3]
    assert f"stopped at step {rows[-1]['step']}: Not finite: the last 3 steps were skipped" in capsys.readouterr().err
    weights = load_file(tmp_path / f"checkpoint-{rows[-1]['step']}" / LORA_FILE)
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("file", ["optimizer.bin", LORA_FILE, "ema.safetensors"])
def test_a_pickle_in_a_checkpoint_is_refused_and_not_run(run_script, refused, tmp_path, file):
    """Even if the state file vouches for it."""

    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    flags = {
        **SHORT,
        "use_ema": True,
        "max_train_steps": 1,
        "checkpointing_steps": 1,
        "output_dir": tmp_path / "model",
    }
    run_script(**flags)
    checkpoint = tmp_path / "model" / "checkpoint-1"
    torch.save(Trap(), checkpoint / file)
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    state["files"][file] = hashlib.sha256((checkpoint / file).read_bytes()).hexdigest()
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    sentence = refused(**flags, resume_from_checkpoint="latest")
    assert "resume_from_checkpoint checkpoint-1 does not load" in sentence
    assert not (tmp_path / "sprung").exists()
