"""Finds checkpoints, writes them whole or not at all, rotates them. Knows nothing of what is inside but its state file."""

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError

from ..errors import UserError, reason
from ..files import sync


STATE = "trainer_state.json"
logger = logging.getLogger(__name__)


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if (path / STATE).is_file()), key=_step_of)


def find_checkpoint(output_dir: Path, name: str) -> Path | None:
    """The checkpoint called `name`, or for "latest" the newest whole one; `None` if there is none.

    Args:
        name: may be a path, which must lead into `output_dir`.

    Raises:
        UserError: if a named checkpoint does not exist there, or is damaged.
    """
    checkpoints = list_checkpoints(output_dir)
    if name == "latest":
        for path in reversed(checkpoints):
            if not (damage := find_damage(path)):
                return path
            logger.warning(f"{path.name} is skipped for the one before it: {damage}")
        return None
    there = ", ".join(path.name for path in checkpoints) or "no checkpoint"
    if Path(name).name != name and Path(name).resolve().parent != Path(output_dir).resolve():
        raise UserError(
            f"--resume_from_checkpoint {name!r} lies outside of --output_dir, which has {there}; give --output_dir "
            "the folder that it lies in"
        )
    for path in checkpoints:
        if path.name == Path(name).name:
            if damage := find_damage(path):
                raise UserError(f"--resume_from_checkpoint {name!r} is damaged: {damage}; use latest or another one")
            return path
    raise UserError(f"--resume_from_checkpoint {name!r} is not in --output_dir, which has {there}")


def find_damage(checkpoint: Path) -> str | None:
    """What has happened to the files of a checkpoint since it was written; `None` if they are what they were."""
    try:
        digests = read_state(checkpoint)["files"]
    except UserError as error:
        return str(error)
    for name, digest in digests.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if _digest(path) != digest:
            return f"{name} is not what was written"
    return None


def read_state(checkpoint: Path) -> dict:
    """What was saved beside the weights: `step`, `identity`, `model`, the digests of all `files`, and what else the run needs.

    Raises:
        UserError: if the state file cannot be read.
    """
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{checkpoint.name}/{STATE} cannot be read ({type(error).__name__})") from error
    parts = {"step": int, "identity": dict, "model": dict, "files": dict}
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in parts.items()):
        raise UserError(f"{checkpoint.name}/{STATE} lacks step, identity, model or files")
    return state


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_length(state: dict, schedule: str, steps: int) -> None:
    """Raises [`UserError`] if a run that goes on from `state` would end its learning rate schedule at another step."""
    if not schedule.startswith("constant") and state["step"] < steps != state["length"]:
        were = f"was {state['length']} and is {steps}"
        raise UserError(f"--lr_scheduler {schedule} ends with --max_train_steps, which {were}; use the same")


def publish(partial: Path, state: dict, limit: int | None = None, keep: str | None = None) -> Path:
    """Turns a fully written folder into a checkpoint under its final name; call it on one process.

    An older checkpoint of the same step is replaced. Only a run that began before that step writes it again, so
    whatever it began from is still there if it dies between the two renames.

    Args:
        partial: the folder from [`partial_folder`] with all weights in it.
        state: `step`, `identity`, `model` and whatever else describes the run; must be JSON.
        limit: how many checkpoints up to this one to keep; older ones are removed after the new one is safe ...
        keep: ... but for the one of this name.
    """
    paths = sorted(partial.rglob("*"))
    files = {path.relative_to(partial).as_posix(): _digest(path) for path in paths if path.is_file()}
    (partial / STATE).write_text(json.dumps(state | {"files": files}, indent=2, sort_keys=True))
    for path in (*paths, partial / STATE, partial):
        sync(path)
    final = partial.parent / partial.name.removeprefix(".partial-")
    if final.exists():
        _remove(final)
    os.replace(partial, final)
    sync(final.parent)
    if limit is not None:
        for old in [path for path in list_checkpoints(final.parent) if _step_of(path) <= state["step"]][
            : -max(limit, 1)
        ]:
            if old.name != keep:
                _remove(old)
    return final


def _remove(checkpoint: Path) -> None:
    """Takes the name away first, so that no half-removed folder looks like a checkpoint."""
    removed = checkpoint.with_name(f".partial-removed-{checkpoint.name}")
    os.replace(checkpoint, removed)
    shutil.rmtree(removed)


def partial_folder(output_dir: Path, step: int) -> Path:
    """Where the checkpoint of `step` is put together; leftovers of a killed run are removed by [`clear_partial`]."""
    return Path(output_dir) / f".partial-checkpoint-{step}"


def clear_partial(output_dir: Path) -> None:
    """Removes what a killed run left half written or half removed."""
    for path in Path(output_dir).glob(".partial-*checkpoint-*"):
        shutil.rmtree(path)


def save_checkpoint(
    output_dir: Path, state: dict, accelerator: Accelerator, limit: int | None, keep: str | None = None
) -> None:
    """Writes one checkpoint; call it on every process.

    Args:
        state: see [`publish`], as for `limit` and `keep`.
        accelerator: its `save_state` writes the weights and its barrier joins the processes.

    Raises:
        UserError: if it cannot be written, as on a full disk; the earlier checkpoints are as they were.
    """
    partial = partial_folder(output_dir, state["step"])
    try:
        if accelerator.is_main_process:
            clear_partial(output_dir)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            publish(partial, state, limit, keep)
        accelerator.wait_for_everyone()
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"--output_dir takes no checkpoint of step {state['step']} ({reason(error)}); the earlier ones are intact: make room "
            "and go on with --resume_from_checkpoint latest"
        ) from error


def load_state(checkpoint: Path, accelerator: Accelerator) -> None:
    """Puts a checkpoint into what `accelerator` has prepared; call it on every process. Nothing in it is executed.

    Raises:
        UserError: if it does not fit, or is none.
    """
    try:
        accelerator.load_state(str(checkpoint))
    except Exception as error:  # a foreign file may hold anything
        raise UserError(
            f"--resume_from_checkpoint {checkpoint.name} does not load ({reason(error)}); resume from another one"
        ) from error
