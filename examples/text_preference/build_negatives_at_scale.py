#!/usr/bin/env python
# /// script
# dependencies = ["diffusers_tpo[negatives,scale]"]
# ///
"""Builds mismatched prompts for millions of captions as a datatrove pipeline of many tasks.

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
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from transformers import HfArgumentParser

from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.negatives.asking import TEMPLATE_VERSION
from diffusers_tpo.negatives.chat import HUGGING_FACE_ROUTER
from diffusers_tpo.negatives.rules.editor import RulesEditor, count_words
from diffusers_tpo.negatives.work import Plan
from diffusers_tpo.principles import PRINCIPLES


def flag(default, help: str):
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class EditArguments:
    """What is edited and how; a run that goes on must keep these."""

    input: str = field(metadata={"help": "Folder or URL (hf://, s3://) with parquet or jsonl files of captions."})
    glob_pattern: str | None = flag(None, "Only files of input that match it, such as **/train-*.parquet.")
    caption_column: str = flag("prompt", "Column of the captions.")
    key_column: str | None = flag(None, "Column whose values name the rows; file and place of the row by default.")
    editor: Literal["rules", "chat"] = flag("chat", "Who edits; rules need no model.")
    model: str | None = flag(None, "Model at the endpoints.")
    extra_body: str | None = flag(None, "JSON with further parameters of each request, such as temperature.")
    principles: list[str] = flag(list(PRINCIPLES), "Kinds of edits; one is drawn for each mismatched prompt.")
    principle_weights: list[float] = flag([], "How likely each of them is; equal by default.")
    num_negatives: int = flag(1, "Mismatched prompts per caption.")
    num_edits: int = flag(1, "Budget of edits within one mismatched prompt.")
    seed: int = flag(0, "Seed of every random choice.")


@dataclass
class RunArguments:
    """Where it runs; a run that goes on must keep tasks."""

    output_dir: str = flag("tpo-negatives", "Receives data/train-*.parquet, failed/*.jsonl, and journals in work/.")
    logging_dir: str | None = flag(None, "Logs and marks of finished tasks; logs in output_dir by default.")
    base_url: list[str] = flag([HUGGING_FACE_ROUTER], "OpenAI-compatible endpoints that serve the model.")
    api_key_env: str | None = flag(None, "Name of the environment variable that holds their key, never the key.")
    concurrency: int = flag(32, "Requests at once, of each task that runs.")
    executor: Literal["local", "slurm", "ray"] = flag("local", "Engine of datatrove that runs the tasks.")
    tasks: int | None = flag(None, "Into how many tasks the files are dealt; one per file by default.")
    workers: int | None = flag(None, "Tasks at once; one per CPU locally, no limit elsewhere, by default.")
    retry_failed: bool = flag(False, "Do finished tasks again for the rows that got no answer.")
    partition: str | None = flag(None, "Slurm partition.")
    time: str | None = flag(None, "Slurm time limit of a task.")
    cpus_per_task: int = flag(1, "Of Slurm and Ray.")
    mem_per_cpu_gb: int = flag(4, "Of Slurm and Ray.")
    slurm_options: str | None = flag(None, "JSON with further arguments of SlurmPipelineExecutor, such as qos.")


def as_dict(name: str, text: str | None) -> dict:
    try:
        return dict(json.loads(text or "{}"))
    except (ValueError, TypeError) as error:
        raise UserError(f"{name} must be a JSON object, got {text!r}") from error


def check_arguments(edit: EditArguments, run: RunArguments) -> None:
    if wrong := [name for name in edit.principles if name not in PRINCIPLES]:
        raise UserError(f"principles must be among {', '.join(PRINCIPLES)}, got {', '.join(wrong)}")
    for name in ("num_negatives", "num_edits", "concurrency", "tasks", "workers", "cpus_per_task", "mem_per_cpu_gb"):
        value = (vars(edit) | vars(run))[name]
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if edit.editor == "chat" and edit.model is None:
        raise UserError("editor chat needs --model; without any model use --editor rules")
    if run.executor == "slurm" and (shutil.which("sbatch") is None or None in (run.partition, run.time)):
        raise UserError("executor slurm needs --partition, --time and the command sbatch; start it on a login node")
    if run.executor == "ray" and find_spec("ray") is None:
        raise UserError("executor ray needs the package 'ray'; install it with: pip install 'datatrove[ray]'")


def make_executor(pipeline: list, tasks: int, logging_dir: str, run: RunArguments):
    from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor

    settings = {"pipeline": pipeline, "tasks": tasks, "logging_dir": logging_dir}
    if run.executor == "local":
        return LocalPipelineExecutor(**settings, workers=min(run.workers or os.cpu_count(), tasks))
    settings |= {name: getattr(run, name) for name in ("cpus_per_task", "mem_per_cpu_gb")}
    settings |= {"workers": run.workers or -1}
    if run.executor == "ray":
        quiet = {"env_vars": {"LOGURU_DIAGNOSE": "NO"}}  # for the reason given in negatives/scale.py
        return RayPipelineExecutor(**settings, ray_remote_kwargs={"runtime_env": quiet})
    settings |= {"partition": run.partition, "time": run.time, "job_name": "mismatched-prompts"}
    settings |= {"venv_path": f"{sys.prefix}/bin/activate"} if sys.prefix != sys.base_prefix else {}
    try:
        return SlurmPipelineExecutor(**settings | as_dict("slurm_options", run.slurm_options))
    except TypeError as error:
        raise UserError(f"slurm_options do not fit SlurmPipelineExecutor: {error}") from error


def main(edit: EditArguments, run: RunArguments) -> None:
    check_arguments(edit, run)
    from diffusers_tpo.negatives import scale  # needs datatrove, and says so

    folder = Path(run.output_dir).resolve()
    logging_dir = run.logging_dir or str(folder / "logs")
    files = scale.CaptionFiles(edit.input, edit.caption_column, edit.key_column, edit.glob_pattern)
    sample, tasks = files.sample(10_000), run.tasks or len(files.paths)
    weights = tuple(edit.principle_weights) or None
    plan = Plan(tuple(edit.principles), weights, edit.num_negatives, edit.num_edits, seed=edit.seed)
    if edit.editor == "rules":
        make_editor = partial(RulesEditor, count_words(sample))
    else:
        chat = {"concurrency": run.concurrency, "extra_body": as_dict("extra_body", edit.extra_body)}
        make_editor = partial(scale.chat_editor, edit.model, tuple(run.base_url), run.api_key_env, **chat)
        make_editor()  # what is wrong with it shows here, not in a thousand tasks

    paths_file = files.begin(folder, asdict(edit) | {"template_version": TEMPLATE_VERSION}, tasks)
    if run.retry_failed:
        scale.reopen_unanswered(folder, logging_dir)
    edits = scale.MismatchedPrompts(make_editor, plan, folder)
    executor = make_executor([files.reader(paths_file), edits, scale.ParquetShards(folder)], tasks, logging_dir, run)
    executor.run()

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
        groups = (EditArguments, RunArguments)
        main(*HfArgumentParser(groups, description=__doc__).parse_args_into_dataclasses())
