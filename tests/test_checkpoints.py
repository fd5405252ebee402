"""Checkpoints are there whole or not at all."""

import hashlib
import itertools
import os

import pytest

from diffusers_tpo.errors import UserError
from diffusers_tpo.models import checkpoints
from diffusers_tpo.models.checkpoints import (
    clear_partial,
    find_checkpoint,
    find_damage,
    list_checkpoints,
    partial_folder,
    publish,
    read_state,
)


def write(output, step: int, limit: int | None = None, **config):
    partial = partial_folder(output, step)
    (partial / "deep").mkdir(parents=True)
    (partial / "deep" / "weights").write_text(f"weights of {step}")
    return publish(partial, {"step": step, "identity": config, "model": {}}, limit)


def names(output) -> list[str]:
    return [path.name for path in list_checkpoints(output)]


def test_publishing_gives_the_final_name_the_weights_and_the_state(tmp_path):
    final = write(tmp_path, 7, rank=4)
    assert final == tmp_path / "checkpoint-7" and names(tmp_path) == ["checkpoint-7"]
    assert (final / "deep" / "weights").read_text() == "weights of 7"
    digest = hashlib.sha256(b"weights of 7").hexdigest()
    assert read_state(final) == {"step": 7, "identity": {"rank": 4}, "model": {}, "files": {"deep/weights": digest}}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-7"]


def test_checkpoints_are_ordered_by_step_and_not_by_name(tmp_path):
    for step in (100, 9, 20):
        write(tmp_path, step)
    assert names(tmp_path) == ["checkpoint-9", "checkpoint-20", "checkpoint-100"]
    assert find_checkpoint(tmp_path, "latest").name == "checkpoint-100"


@pytest.mark.parametrize(("limit", "kept"), [(None, [1, 2, 3, 4]), (2, [3, 4]), (1, [4]), (0, [4])])
def test_rotation_keeps_the_newest(tmp_path, limit, kept):
    for step in range(1, 5):
        write(tmp_path, step, limit)
    assert names(tmp_path) == [f"checkpoint-{step}" for step in kept]


def test_writing_a_step_again_replaces_it_whole(tmp_path):
    (write(tmp_path, 5) / "stale").touch()
    assert not (write(tmp_path, 5, seed=1) / "stale").exists()
    assert read_state(tmp_path / "checkpoint-5")["identity"] == {"seed": 1}


def test_what_a_killed_run_leaves_is_never_a_checkpoint_and_can_be_cleared(tmp_path):
    write(tmp_path, 1)
    partial = partial_folder(tmp_path, 2)
    partial.mkdir()
    (partial / "trainer_state.json").write_text('{"step": 2, "identity": {}}')
    (tmp_path / "checkpoint-3").mkdir()  # no state in it
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-best" / "trainer_state.json").write_text("{}")
    assert names(tmp_path) == ["checkpoint-1"]
    clear_partial(tmp_path)
    assert not partial.exists() and names(tmp_path) == ["checkpoint-1"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(tmp_path):
    write(tmp_path, 1)
    partial = partial_folder(tmp_path, 2)
    partial.mkdir()
    with pytest.raises(TypeError):
        publish(partial, {"step": 2, "identity": object()}, limit=1)
    assert names(tmp_path) == ["checkpoint-1"]


def test_everything_is_on_the_disk_before_the_name_is_given(tmp_path, monkeypatch):
    calls, replace = [], os.replace
    monkeypatch.setattr(checkpoints, "sync", lambda path: calls.append(path.name))
    monkeypatch.setattr(os, "replace", lambda *names: calls.append("rename") or replace(*names))
    write(tmp_path, 1)
    assert calls[:-2] == ["deep", "weights", "trainer_state.json", ".partial-checkpoint-1"]
    assert calls[-2:] == ["rename", tmp_path.name]


class Death(BaseException):
    """What a kill looks like to the disk: nothing after the call at which it comes."""


def die_at(monkeypatch, call: int) -> None:
    calls = itertools.count()

    def dies(function):
        def run(*args, **kwargs):
            if next(calls) == call:
                raise Death
            return function(*args, **kwargs)

        return run

    for name in ("replace", "fsync", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, dies(getattr(os, name)))


def test_a_death_at_any_call_to_the_system_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    """The new one takes the place of one of the same step, and two older ones are removed."""
    for call in itertools.count():
        output, died = tmp_path / str(call), False
        for step in (1, 2, 3):
            write(output, step)
        try:
            die_at(monkeypatch, call)
            write(output, 3, limit=1)
        except Death:
            died = True
        monkeypatch.undo()
        assert all(find_damage(path) is None for path in list_checkpoints(output))
        assert find_checkpoint(output, "latest").name in ("checkpoint-2", "checkpoint-3")
        clear_partial(output)
        write(output, 4, limit=1)
        assert names(output) == ["checkpoint-4"] and len(list(output.iterdir())) == 1
        if not died:
            break
    assert call > 15


def spoil(path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        half = len(content) // 2
        path.write_bytes(
            {"cut off": content[:half], "bit": content[:half] + b"~" + content[half + 1 :], "text": b"[]"}[how]
        )


@pytest.mark.parametrize(
    ("file", "how", "message"),
    [
        ("deep/weights", "missing", "deep/weights is missing"),
        ("deep/weights", "cut off", "deep/weights is not what was written"),
        ("deep/weights", "bit", "deep/weights is not what was written"),
        ("trainer_state.json", "cut off", "trainer_state.json cannot be read"),
        ("trainer_state.json", "text", "trainer_state.json lacks step, identity, model or files"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, caplog, file, how, message):
    write(tmp_path, 1), write(tmp_path, 2)
    spoil(tmp_path / "checkpoint-2" / file, how)
    assert find_checkpoint(tmp_path, "latest").name == "checkpoint-1"
    assert len(
        caplog.records
    ) == 1 and f"checkpoint-2 is skipped for the one before it: {message}" in caplog.text.replace("checkpoint-2/", "")
    with pytest.raises(UserError, match="--resume_from_checkpoint 'checkpoint-2' is damaged: "):
        find_checkpoint(tmp_path, "checkpoint-2")
    write(tmp_path, 2, limit=1)  # the run that goes on replaces it
    assert names(tmp_path) == ["checkpoint-2"] and find_checkpoint(tmp_path, "latest").name == "checkpoint-2"


def test_rotation_leaves_what_lies_ahead_and_never_takes_the_new_one(tmp_path):
    for step in (1, 2, 9):
        write(tmp_path, step)
    write(tmp_path, 3, limit=1)
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-9"]


def test_finding_by_name_or_latest(tmp_path):
    assert find_checkpoint(tmp_path, "latest") is None
    assert find_checkpoint(tmp_path / "nowhere", "latest") is None
    write(tmp_path, 1), write(tmp_path, 2)
    assert find_checkpoint(tmp_path, "checkpoint-1") == tmp_path / "checkpoint-1"
    assert find_checkpoint(tmp_path, str(tmp_path / "checkpoint-2")) == tmp_path / "checkpoint-2"
    write(tmp_path / "elsewhere", 2)
    with pytest.raises(
        UserError, match="elsewhere/checkpoint-2' lies outside of --output_dir, which has checkpoint-1"
    ):
        find_checkpoint(tmp_path, str(tmp_path / "elsewhere" / "checkpoint-2"))
    with pytest.raises(UserError, match="'checkpoint-3' is not in --output_dir, which has checkpoint-1, checkpoint-2"):
        find_checkpoint(tmp_path, "checkpoint-3")
    with pytest.raises(UserError, match="which has no checkpoint"):
        find_checkpoint(tmp_path / "nowhere", "checkpoint-3")
