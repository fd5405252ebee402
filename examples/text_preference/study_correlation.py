#!/usr/bin/env python
"""Does the implicit preference say how well a model follows prompts? Checkpoints of every strength on the shapes world.

    python examples/text_preference/study_correlation.py --output_dir outputs/correlation

It trains a denoiser from scratch, then the shipped and a half-trained one with text preferences and without, and judges every
checkpoint with evaluate.py, where an exact verifier knows what an image shows. Finished runs and judgements are kept.
"""

import datetime
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.evaluation.choose import choose_best
from diffusers_tpo.evaluation.compare import mean_over_prompts
from diffusers_tpo.evaluation.correlation import regress
from diffusers_tpo.files import make_folder
from diffusers_tpo.flags import Range, flag
from diffusers_tpo.intervals import paired_difference
from diffusers_tpo.models.checkpoints import list_checkpoints
from diffusers_tpo.models.loading import load_model
from diffusers_tpo.shapes.scenes import PRINCIPLES
from diffusers_tpo.shapes.world import PIPELINE, make_rows, make_scenes
from diffusers_tpo.tables import Percent, Table, write_tables


FOLDER = Path(__file__).parent
SHARED = "--resolution 32 --use_ema --ema_decay 0.98 --report_to none"
SCRATCH = (
    "--loss_type sft --train_batch_size 64 --learning_rate 1e-3 --lr_warmup_steps 100 --proportion_empty_prompts 0.1"
)
TUNED = "--train_batch_size 16 --checkpointing_steps 50 --max_train_steps 200"
PREFER = "--beta 500 --anchor_weight 0.5 --principles content attribute --learning_rate 1e-4"


@dataclass(frozen=True)
class Run:
    """A training run: what it begins with, and its flags."""

    base: str
    flags: str


RUNS = {
    "scratch": Run("untrained", f"{SCRATCH} --max_train_steps 1600 --checkpointing_steps 100"),
    "shipped-sft": Run("shipped", f"{TUNED} --loss_type sft --learning_rate 1e-4"),
    "shipped-tdpo": Run("shipped", f"{TUNED} --loss_type tdpo {PREFER}"),
    "shipped-unclipped": Run(
        "shipped",
        f"{TUNED} --loss_type tdpo --beta 5000 --anchor_weight 0 --mismatched_clip inf --learning_rate 3e-4",
    ),
    "weak-sft": Run("weak", f"{TUNED} --loss_type sft --learning_rate 1e-4"),
    "weak-tdpo": Run("weak", f"{TUNED} --loss_type tdpo {PREFER}"),
    "weak-tkto": Run("weak", f"{TUNED} --loss_type tkto {PREFER}"),
}
WEAK_STEP = 400  # of the run from scratch
GROUPS = {  # which checkpoints: by the start of their labels
    "all": ("base", *RUNS),
    "all but unclipped": ("base", *(name for name in RUNS if name != "shipped-unclipped")),
    "from scratch": ("scratch/",),
    "tuned from the shipped base": ("base", "shipped-"),
    "tuned from the weak base": (f"scratch/{WEAK_STEP}", "weak-"),
}
PREDICTORS = {"score": "implicit/score", "relative score": "implicit/score_relative", "matched error": "error/matched"}
SCORES = ("shapes/aligned", "shapes/clean")
TITLES = {
    "groups": "Over the checkpoints of each group; the matched error with its sign turned",
    "principles": "Spearman of a principle's own relative score with that fact of the images",
    "choices": "What each way of choosing a checkpoint picks",
}


def make_base(name: str, output: Path) -> Path:
    """The pipeline that a run begins with: shipped, with a denoiser of random weights, or half trained."""
    if name == "shipped":
        return PIPELINE
    folder = output / name
    if not (folder / "model_index.json").exists():
        if name == "untrained":
            pipe = StableDiffusionPipeline.from_pretrained(PIPELINE)
            torch.manual_seed(0)
            pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config)
        else:
            pipe = load_model(
                str(output / "runs" / "scratch" / f"checkpoint-{WEAK_STEP}"), str(output / "untrained")
            ).pipe
        pipe.save_pretrained(folder)
    return folder


def train(name: str, output: Path, log: Path) -> None:
    run = RUNS[name]
    command = [sys.executable, str(FOLDER / "train_text_to_image_tpo.py"), *f"{SHARED} {run.flags}".split()]
    command += [
        "--pretrained_model_name_or_path",
        str(make_base(run.base, output)),
        "--dataset_name",
        str(output / "data"),
    ]
    command += ["--output_dir", str(output / "runs" / name), "--resume_from_checkpoint", "latest"]
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        raise UserError(f"the training of {name} ended with exit code {code}; {str(log)!r} tells why")


def report(results: dict) -> dict[str, Table]:
    """How well figures of the denoising errors say what the images show, over the checkpoints of each group."""
    models, scales = results["models"], results["guidance_scales"]
    means = {
        name: [np.nanmean(np.array(results["preference"][model][name], float)) for model in models]
        for name in PREDICTORS.values()
    }
    rows = []
    for group, starts in GROUPS.items():
        chosen = [index for index, model in enumerate(models) if model.startswith(starts)]
        for score in SCORES:
            y = mean_over_prompts(np.array(results["scores"][score], float))[chosen]
            for label, name in PREDICTORS.items():
                x = np.array(means[name])[chosen] * (-1 if name == "error/matched" else 1)
                found = [regress(x, y[:, g]) for g in range(len(scales))]
                figures = [part for one in found for part in (one.pearson, one.spearman)]
                rows.append([group, str(len(chosen)), score.removeprefix("shapes/"), label, *figures])
    header = ["checkpoints", "n", "images", "predictor"]
    header += [f"{name}, guidance {scale:g}" for scale in scales for name in ("r", "Spearman")]
    tables = {"groups": Table(header, rows)}

    rows = []
    for principle in PRINCIPLES:
        x = [
            np.nanmean(np.array(results["preference"][model][f"implicit/score_relative/{principle}"], float))
            for model in models
        ]
        row = [principle]
        for starts in (GROUPS["all"], GROUPS["all but unclipped"]):
            chosen = [index for index, model in enumerate(models) if model.startswith(starts)]
            y = mean_over_prompts(np.array(results["scores"][f"shapes/{principle}"], float))[chosen]
            row += [regress(np.array(x)[chosen], y[:, g]).spearman for g in range(len(scales))]
        rows.append(row)
    header = [
        "principle",
        *(f"{group}, guidance {scale:g}" for group in ("all", "all but unclipped") for scale in scales),
    ]
    return tables | {"principles": Table(header, rows), "choices": choices(results)}


def choices(results: dict) -> Table:
    """The checkpoints that the rule and the score alone choose without any image, beside the last one."""
    models, scales = results["models"], results["guidance_scales"]
    rows = []
    for run in (name for name, own in RUNS.items() if own.base != "untrained"):
        base = "base" if RUNS[run].base == "shipped" else f"scratch/{WEAK_STEP}"
        names = [model for model in models if model.startswith(f"{run}/")]
        values = {
            model: {name: np.array(results["preference"][model][name], float) for name in PREDICTORS.values()}
            for model in (base, *names)
        }
        before = values.pop(base)
        picks = {
            "rule": choose_best(values, "rule", before).best,
            "score alone": choose_best(values, "implicit/score").best,
            "last": names[-1],
        }
        for way, pick in picks.items():
            pick = pick or base
            own, rival = (
                np.array(results["scores"]["shapes/aligned"][models.index(name)], float) for name in (pick, base)
            )
            gains = [Percent(**vars(paired_difference(own[g], rival[g]))) for g in range(len(scales))]
            rows.append([run, way, "none: the base" if pick == base else pick, *gains])
    return Table(["run", "by", "pick", *(f"aligned minus base, guidance {scale:g}" for scale in scales)], rows)


@dataclass
class StudyArguments:
    """How much is judged, and where everything goes."""

    output_dir: str = flag(help="Data, runs, evaluation and tables.")
    num_pairs: Annotated[int, Range(at_least=2, at_most=100_000)] = flag(
        256, "Held-out images, and their captions to render."
    )
    seed: Annotated[int, Range(at_least=0, below=2**32)] = flag(0, "Of the evaluation; the runs have seed 0.")


def main(args: StudyArguments) -> None:
    output = Path(args.output_dir)
    make_folder(output, "--output_dir")

    # What all runs learn from, and the runs.
    data = output / "data" / "train.parquet"
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        make_rows(make_scenes(8192, 0), 0).to_parquet(data)
    for name in RUNS:
        folder = output / "runs" / name
        if not (folder / "README.md").exists():  # the card is written last
            folder.mkdir(parents=True, exist_ok=True)
            print(f"training {name}", flush=True)
            train(name, output, folder / "train.log")

    # Every checkpoint is judged.
    models = [
        f"{name}/{path.name.split('-')[1]}={path}"
        for name in RUNS
        for path in list_checkpoints(output / "runs" / name)
    ]
    command = [sys.executable, str(FOLDER / "evaluate.py"), "--pretrained_model_name_or_path", str(PIPELINE)]
    command += ["--models", *models, "--pairs", "shapes", "--num_pairs", str(args.num_pairs), "--seed", str(args.seed)]
    command += (
        "--scorers shapes --guidance_scales 1 2.5 --num_inference_steps 10 --resolution 32 --batch_size 128".split()
    )
    command += ["--scheduler", "DPMSolverMultistepScheduler", "--title", "Implicit preference and alignment"]
    command += ["--output_dir", str(output / f"evaluation-{args.seed}")]
    if code := subprocess.run(command).returncode:
        raise UserError(f"evaluate.py ended with exit code {code}; what it says above tells why")

    # How well figures of the errors say what the images show.
    tables = report(json.loads((output / f"evaluation-{args.seed}" / "results.json").read_text()))
    for name, table in tables.items():
        print(f"\n{TITLES[name]}\n\n{table.markdown()}")
    write_tables(
        output / f"correlation-{args.seed}.json",
        tables,
        command=shlex.join(["python", "examples/text_preference/study_correlation.py", *sys.argv[1:]]),
        date=str(datetime.date.today()),
        machine=f"{os.cpu_count()} cores, torch {torch.__version__}",
        seeds=[args.seed],
        prompts=args.num_pairs,
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(StudyArguments, description=__doc__))
