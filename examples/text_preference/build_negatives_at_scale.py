#!/usr/bin/env python
# /// script
# dependencies = ["diffusers_tpo[negatives,scale]"]
# ///
r"""Builds mismatched prompts for millions of captions as a datatrove pipeline of many tasks.

On one machine, two tasks at a time:

    python build_negatives_at_scale.py --input captions/ --editor rules --workers 2 --output_dir my-negatives

Ten million captions in 1,000 parquet files, on a Slurm cluster: 40 tasks at a time with 64 open requests each share four vLLM
servers, and a request goes to the one that its task keeps least busy. Start it on a login node; all nodes see output_dir:

    python build_negatives_at_scale.py --input hf://datasets/your-name/captions/data --caption_column text --key_column id \
        --editor chat --model Qwen/Qwen3-8B --extra_body '{"chat_template_kwargs": {"enable_thinking": false}}' \
        --base_url http://gpu1:8000/v1 http://gpu2:8000/v1 http://gpu3:8000/v1 http://gpu4:8000/v1 \
        --api_key_env VLLM_API_KEY --concurrency 64 --num_negatives 3 --output_dir /shared/my-negatives \
        --executor slurm --workers 40 --partition cpu --time 24:00:00 --slurm_options '{"qos": "normal"}'

`--executor ray` runs on the cluster that RAY_ADDRESS names; its nodes must have the key in their environment.

Run the same command again to go on, once no older job is queued: finished tasks are skipped, others start again and repeat no
request that was answered. A task reads whole files, so split a large one first. build_negatives.py then adds images to it.
"""

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from diffusers_tpo import __version__
from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.files import make_folder
from diffusers_tpo.flags import AtLeastOne, NotNegativeNumber, Range, flag
from diffusers_tpo.negatives.asking import TEMPLATE_VERSION
from diffusers_tpo.negatives.chat import HUGGING_FACE_ROUTER
from diffusers_tpo.negatives.rules.editor import RulesEditor, count_words
from diffusers_tpo.negatives.work import Plan
from diffusers_tpo.principles import PRINCIPLES


PrincipleName = Literal["content", "attribute", "spatial", "contextual"]
Few = Annotated[int, Range(at_least=1, at_most=100)]
Seed = Annotated[int, Range(at_least=0, at_most=2**32 - 1)]


@dataclass
class EditArguments:
    """What is edited and how; a run that goes on must keep these."""

    input: str = flag(help="Folder or URL (hf://, s3://) with parquet or jsonl files of captions.")
    glob_pattern: str | None = flag(None, "Only files of input that match it, such as **/train-*.parquet.")
    caption_column: str = flag("prompt", "Column of the captions.")
    key_column: str | None = flag(None, "Column whose values name the rows; file and place of the row by default.")
    editor: Literal["rules", "chat"] = flag("chat", "Who edits; rules need no model.")
    model: str | None = flag(None, "Model at the endpoints.")
    extra_body: str | None = flag(None, "JSON with further parameters of each request, such as temperature.")
    principles: list[PrincipleName] = flag(
        list(PRINCIPLES), "Kinds of edits; one is drawn for each mismatched prompt."
    )
    principle_weights: list[NotNegativeNumber] = flag([], "How likely each of them is; equal by default.")
    num_negatives: Few = flag(1, "Mismatched prompts per caption.")
    num_edits: Few = flag(1, "Budget of edits within one mismatched prompt.")
    seed: Seed = flag(0, "Seed of every random choice.")


@dataclass
class RunArguments:
    """Where it runs; a run that goes on must keep tasks."""

    output_dir: str = flag("tpo-negatives", "Receives data/train-*.parquet, failed/*.jsonl, and journals in work/.")
    logging_dir: str | None = flag(None, "Logs and marks of finished tasks; logs in output_dir by default.")
    base_url: list[str] = flag([HUGGING_FACE_ROUTER], "OpenAI-compatible endpoints that serve the model.")
    api_key_env: str | None = flag(None, "Name of the environment variable that holds their key, never the key.")
    concurrency: Annotated[int, Range(at_least=1, at_most=10_000)] = flag(
        32, "Requests at once, of each task that runs."
    )
    executor: Literal["local", "slurm", "ray"] = flag("local", "Engine of datatrove that runs the tasks.")
    tasks: Annotated[int, Range(at_least=1, at_most=100_000)] | None = flag(
        None, "Into how many tasks the files are dealt; one per file by default."
    )
    workers: AtLeastOne | None = flag(None, "Tasks at once; one per CPU locally, no limit elsewhere, by default.")
    retry_failed: bool = flag(True, "Do finished tasks again for the rows that got no answer.")
    partition: str | None = flag(None, "Slurm partition.")
    time: str | None = flag(None, "Slurm time limit of a task.")
    cpus_per_task: AtLeastOne = flag(1, "Of Slurm and Ray.")
    mem_per_cpu_gb: AtLeastOne = flag(4, "Of Slurm and Ray.")
    slurm_options: str | None = flag(None, "JSON with further arguments of SlurmPipelineExecutor, such as qos.")


def as_dict(name: str, text: str | None) -> dict:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise UserError(f"--{name} must be a JSON object, got {text!r}") from error
    if not isinstance(value, dict):
        raise UserError(f"--{name} must be a JSON object, got {text!r}")
    return value


def check_arguments(edit: EditArguments, run: RunArguments) -> None:
    """What no flag can know of alone."""
    if not edit.principles or len(set(edit.principles)) != len(edit.principles):
        raise UserError(f"--principles must be different ones, got {', '.join(edit.principles) or 'none'}")
    if edit.principle_weights and (
        len(edit.principle_weights) != len(edit.principles) or not sum(edit.principle_weights)
    ):
        wanted = f"one number for each of the {len(edit.principles)} principles, not all 0"
        raise UserError(f"--principle_weights needs {wanted}, got {edit.principle_weights}")
    if edit.editor == "chat" and edit.model is None:
        raise UserError("--editor chat needs --model; without any model use --editor rules")
    if run.executor == "slurm" and (shutil.which("sbatch") is None or None in (run.partition, run.time)):
        raise UserError("--executor slurm needs --partition, --time and the command sbatch; start it on a login node")
    if run.executor == "ray" and find_spec("ray") is None:
        raise UserError("--executor ray needs the package 'ray'; install it with: pip install 'datatrove[ray]'")


def make_executor(pipeline: list, tasks: int, logging_dir: str, run: RunArguments):
    """What runs the tasks on this machine, on a Slurm cluster or on Ray."""
    from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor

    settings = {"pipeline": pipeline, "tasks": tasks, "logging_dir": logging_dir}
    if run.executor == "local":
        return LocalPipelineExecutor(**settings, workers=min(run.workers or os.cpu_count(), tasks))
    settings["workers"] = run.workers or -1
    settings["cpus_per_task"] = run.cpus_per_task
    settings["mem_per_cpu_gb"] = run.mem_per_cpu_gb
    if run.executor == "ray":
        quiet = {"env_vars": {"LOGURU_DIAGNOSE": "NO"}}  # for the reason given in negatives/scale.py
        return RayPipelineExecutor(**settings, ray_remote_kwargs={"runtime_env": quiet})
    settings["partition"] = run.partition
    settings["time"] = run.time
    settings["job_name"] = "mismatched-prompts"
    if sys.prefix != sys.base_prefix:
        settings["venv_path"] = f"{sys.prefix}/bin/activate"
    try:
        return SlurmPipelineExecutor(**settings | as_dict("slurm_options", run.slurm_options))
    except TypeError as error:
        raise UserError(f"--slurm_options do not fit SlurmPipelineExecutor: {error}") from error


def main(edit: EditArguments, run: RunArguments) -> None:
    check_arguments(edit, run)
    from diffusers_tpo.negatives import scale  # needs datatrove, and says so

    # Where it goes, and what it reads.
    folder = Path(run.output_dir).resolve()
    make_folder(folder, "--output_dir")
    logging_dir = run.logging_dir or str(folder / "logs")
    files = scale.CaptionFiles(edit.input, edit.caption_column, edit.key_column, edit.glob_pattern)
    sample = files.sample(10_000)
    tasks = run.tasks or len(files.paths)

    # Who edits, and what is asked for. Each task makes its own editor; what is wrong with it shows here, not in a thousand tasks.
    plan = Plan(
        principles=tuple(edit.principles),
        weights=tuple(edit.principle_weights) or None,
        num_negatives=edit.num_negatives,
        num_edits=edit.num_edits,
        seed=edit.seed,
    )
    if edit.editor == "rules":
        make_editor = partial(RulesEditor, count_words(sample))
    else:
        make_editor = partial(
            scale.chat_editor,
            edit.model,
            tuple(run.base_url),
            run.api_key_env,
            concurrency=run.concurrency,
            extra_body=as_dict("extra_body", edit.extra_body),
        )
        make_editor()

    # What a run goes on with must be the same.
    versions = {"template_version": TEMPLATE_VERSION, "diffusers_tpo": __version__}
    content = {"input": None, "captions": scale.fingerprint(sample)}  # wherever the files lie
    list_of_files = files.begin(folder, asdict(edit) | versions | content, tasks)
    if run.retry_failed:
        scale.reopen_unanswered(folder, logging_dir)

    # The tasks.
    pipeline = [
        files.reader(list_of_files),
        scale.MismatchedPrompts(make_editor, plan, folder),
        scale.ParquetShards(folder),
    ]
    executor = make_executor(pipeline, tasks, logging_dir, run)
    executor.run()

    # What came of them.
    unfinished = len(executor.get_incomplete_ranks())
    if unfinished and run.executor == "slurm":
        print(f"{unfinished} tasks are left to Slurm; their logs will be in {logging_dir}")
    elif unfinished:
        sys.exit(f"{unfinished} of {tasks} tasks are not finished; {logging_dir} says why; run the same command again")
    else:
        written, failed = scale.count_rows(folder)
        print(f"{written} rows are in {folder / 'data'}; {failed} captions were set aside, see {folder / 'failed'}")


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(EditArguments, RunArguments, description=__doc__))
