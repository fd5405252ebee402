"""Finds checkpoints, writes them whole or not at all, rotates them. Knows nothing of what is inside but its state file."""

import json
import os
import re
import shutil
from pathlib import Path

from .errors import UserError
from .files import differences, sync


STATE = "trainer_state.json"


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if (path / STATE).is_file()), key=lambda path: int(path.name.split("-")[1]))


def find_checkpoint(output_dir: Path, name: str) -> Path | None:
    """The checkpoint called `name`, or the newest for "latest"; `None` if "latest" finds none.

    Raises:
        UserError: if a named checkpoint does not exist.
    """
    checkpoints = list_checkpoints(output_dir)
    if name == "latest":
        return checkpoints[-1] if checkpoints else None
    for path in checkpoints:
        if path.name == Path(name).name:
            return path
    there = ", ".join(path.name for path in checkpoints) or "no checkpoint"
    raise UserError(f"resume_from_checkpoint {name!r} is not in output_dir, which has {there}")


def read_state(checkpoint: Path) -> dict:
    """What was saved beside the weights: `step` and `config`."""
    return json.loads((checkpoint / STATE).read_text())


def check_config(checkpoint: Path, config: dict) -> None:
    """Checks that a run goes on with the configuration that its checkpoint was written with.

    Raises:
        UserError: naming every difference.
    """
    changed = differences(read_state(checkpoint)["config"], config)
    if changed:
        raise UserError(
            f"resume_from_checkpoint {checkpoint.name} was written by another configuration: {changed}; "
            "use the same flags or another output_dir"
        )


def publish(partial: Path, state: dict, limit: int | None = None, keep: str | None = None) -> Path:
    """Turns a fully written folder into a checkpoint under its final name; call it on one process.

    Args:
        partial: the folder from [`partial_folder`] with all weights in it.
        state: `step`, `config` and whatever else describes the run; must be JSON.
        limit: how many checkpoints to keep; older ones are removed after the new one is safe ...
        keep: ... but for the one of this name.
    """
    (partial / STATE).write_text(json.dumps(state, indent=2, sort_keys=True))
    for path in sorted(partial.rglob("*")):
        sync(path)
    sync(partial)
    final = partial.parent / partial.name.removeprefix(".partial-")
    if final.exists():
        shutil.rmtree(final)
    os.replace(partial, final)
    sync(final.parent)
    if limit is not None:
        for old in list_checkpoints(final.parent)[: -max(limit, 1)]:
            if old.name != keep:
                shutil.rmtree(old)
    return final


def partial_folder(output_dir: Path, step: int) -> Path:
    """Where the checkpoint of `step` is put together; leftovers of a killed run are removed by [`clear_partial`]."""
    return Path(output_dir) / f".partial-checkpoint-{step}"


def clear_partial(output_dir: Path) -> None:
    """Removes what a killed run left half written."""
    for path in Path(output_dir).glob(".partial-checkpoint-*"):
        shutil.rmtree(path)


def save_checkpoint(output_dir: Path, state: dict, accelerator, limit: int | None, keep: str | None = None) -> None:
    """Writes one checkpoint; call it on every process.

    Args:
        state: see [`publish`], as for `limit` and `keep`.
        accelerator: its `save_state` writes the weights and its barrier joins the processes.
    """
    partial = partial_folder(output_dir, state["step"])
    if accelerator.is_main_process:
        clear_partial(output_dir)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        publish(partial, state, limit, keep)
    accelerator.wait_for_everyone()


class TrainingLog:
    """One JSON line of metrics per optimizer step, cut back to the step from which a run goes on."""

    def __init__(self, path: Path, step: int, is_main: bool):
        self.path, self.is_main = Path(path), is_main
        lines = self.path.read_text().splitlines() if step and self.path.exists() else []
        self.rows = [row for row in map(json.loads, lines) if row["step"] <= step]
        if is_main:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def append(self, step: int, metrics: dict[str, float]) -> None:
        self.rows.append({"step": step, **metrics})
        if self.is_main:
            with self.path.open("a") as file:
                file.write(json.dumps(self.rows[-1]) + "\n")
