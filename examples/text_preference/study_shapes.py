#!/usr/bin/env python
r"""Compares base, continued supervised fine-tuning, TDPO and TKTO on the embedded shapes world, over guidance scales.

    python examples/text_preference/study_shapes.py --output_dir outputs/study --arms main
    python examples/text_preference/study_shapes.py --output_dir outputs/search --arms search --seeds 0 --num_prompts 512 \
        --guidance_scales 1 1.5 2 2.5 --rival "SFT, lr 5e-5"
    python examples/text_preference/study_shapes.py --output_dir outputs/draws --arms draws --num_prompts 512 --seeds 0 1 \
        --guidance_scales 1 1.5 --rival "TDPO, LoRA, live"

Every arm is one run of train_text_to_image_tpo.py. Finished arms are kept, so a stopped study goes on where it was. results.json holds the
tables; docs/tables.py shows those that are kept in docs/results/.
"""

import datetime
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.evaluation.shapes import judge, load_model
from diffusers_tpo.evaluation.suite import keep_settings
from diffusers_tpo.files import make_folder, publish_file
from diffusers_tpo.flags import NotNegativeNumber, Range, flag
from diffusers_tpo.intervals import Interval, mean_interval, paired_difference
from diffusers_tpo.shapes.scenes import PRINCIPLES, Scene
from diffusers_tpo.shapes.world import PIPELINE, make_rows, make_scenes
from diffusers_tpo.tables import Percent, Table, write_tables


SCALES = (1.0, 1.5, 2.5, 4.0)
SCRIPT = Path(__file__).parent / "train_text_to_image_tpo.py"
STEPS = 200
TIME_RATIO = 2.4  # TPO step over SFT step of the same images
SHARED = (
    "--resolution 32 --train_batch_size 16 --use_ema --ema_decay 0.98 --report_to none --checkpointing_steps 100000"
)

FULL, LORA = "--learning_rate 1e-4", "--use_lora --learning_rate 1e-3"
PREFER = "--beta 500 --anchor_weight 0.5 --principles content attribute"
TDPO, TKTO = f"--loss_type tdpo {PREFER}", f"--loss_type tkto {PREFER}"
LONGER = f"--max_train_steps {round(STEPS * TIME_RATIO)}"
FEW = "--max_train_samples 256 --center_crop --cache_latents --cache_prompt_embeddings"
DRAWS = (1, 2, 4, 8)  # of 12.5 epochs
ARMS = {
    "main": {
        "base": None,
        "SFT, same time, full": f"--loss_type sft {FULL} {LONGER}",
        "TDPO, full": f"{TDPO} {FULL}",
        "TKTO, full": f"{TKTO} {FULL}",
        "SFT, same time, LoRA": f"--loss_type sft {LORA} {LONGER}",
        "TDPO, LoRA": f"{TDPO} {LORA}",
        "TKTO, LoRA": f"{TKTO} {LORA}",
        "SFT, same rows, full": f"--loss_type sft {FULL}",
        "SFT, same rows, LoRA": f"--loss_type sft {LORA}",
    },
    "search": {
        "base": None,
        "SFT, lr 5e-5": f"--loss_type sft --learning_rate 5e-5 {LONGER}",
        "SFT, lr 2e-4": f"--loss_type sft --learning_rate 2e-4 {LONGER}",
        "TKTO, lr 5e-5": "--loss_type tkto --beta 500 --learning_rate 5e-5",
        "TKTO, lr 2e-4": "--loss_type tkto --beta 500 --learning_rate 2e-4",
        "TDPO, lr 5e-5": "--loss_type tdpo --beta 500 --learning_rate 5e-5",
        "TDPO, lr 5e-5, beta 100": "--loss_type tdpo --beta 100 --learning_rate 5e-5",
        "TKTO, lr 5e-5, content and attribute": "--loss_type tkto --beta 500 --learning_rate 5e-5 "
        "--principles content attribute",
        "TDPO, lr 1e-4, content and attribute, anchor 1": "--loss_type tdpo --beta 500 --learning_rate 1e-4 "
        "--principles content attribute --anchor_weight 1",
        "TKTO, lr 1e-4, content and attribute, anchor 0.5": f"{TKTO} {FULL}",
        "TKTO, LoRA, batch_mean": f"{TKTO} {LORA}",
        "TKTO, LoRA, class_mean": f"{TKTO} {LORA} --tkto_baseline class_mean",
        "TKTO, LoRA, shuffled": f"{TKTO} {LORA} --tkto_baseline shuffled",
        "TDPO, LoRA": f"{TDPO} {LORA}",
        "TDPO, LoRA, 3 mismatched": f"{TDPO} {LORA} --num_mismatched 3",
        "TDPO, LoRA, winner-preserving 0.1": f"{TDPO} {LORA} --winner_preserving_mu 0.1",
        "TDPO, LoRA, timesteps 0.3 to 1": f"{TDPO} {LORA} --min_timestep 0.3",
        "TDPO, LoRA, unclipped": f"{TDPO} {LORA} --mismatched_clip inf",
    },
    "draws": {
        "base": None,
        "TDPO, LoRA, live": f"{TDPO} {LORA} {FEW}",
        **{
            f"TDPO, LoRA, draws {d}": f"{TDPO} {LORA} {FEW} --reference_draws {d} --precompute_reference"
            for d in DRAWS
        },
    },
}


TITLES = {
    "aligned": "Wholly aligned images",
    "facts": "Each arm at its best guidance",
    "differences": "Paired differences in aligned images",
}


@dataclass
class StudyArguments:
    """Which arms, how often, and where everything goes."""

    output_dir: str = flag(help="Data, runs and results.json.")
    arms: Literal["main", "search", "draws"] = flag("main", "Which runs are compared.")
    seeds: list[Annotated[int, Range(at_least=0, below=2**32)]] = flag([0, 1, 2], "Every arm is trained with each.")
    num_prompts: Annotated[int, Range(at_least=2, at_most=100_000)] = flag(1024, "Held-out prompts.")
    guidance_scales: list[NotNegativeNumber] = flag(list(SCALES), "Every model is judged at each of them.")
    rival: str = flag("SFT, same time", "Start of the arm that differences are taken to.")


def run_arm(
    name: str, flags: str | None, args: StudyArguments, seed: int, scenes: list[Scene]
) -> dict[str, np.ndarray]:
    """Trains and judges one arm with one seed, or reads what an earlier call left."""
    output = Path(args.output_dir)
    folder = output / f"{name.replace(', ', '_').replace(' ', '-')}-{seed}"
    asked = {"flags": flags, "num_prompts": args.num_prompts, "guidance_scales": args.guidance_scales}
    keep_settings(folder / "asked.json", asked, f"the arm {name!r}")
    file = folder / "judged.npz"
    if not file.exists():
        run = folder / "run"
        if flags is not None and not (run / "README.md").exists():  # the card is written last
            command = [sys.executable, str(SCRIPT), "--pretrained_model_name_or_path", str(PIPELINE), "--dataset_name"]
            command += [str(output / "data"), "--output_dir", str(run), "--seed", str(seed)]
            command += f"--max_train_steps {STEPS} {SHARED} {flags} --resume_from_checkpoint latest".split()
            with (folder / "train.log").open("w") as log:
                code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
            if code:
                raise UserError(f"the training of {name!r} ended with exit code {code}; {folder}/train.log tells why")
        pipe = load_model(PIPELINE if flags is None else run)
        judged = judge(pipe, scenes, tuple(args.guidance_scales), seed, progress=False)
        partial = folder / ".partial-judged.npz"
        np.savez(partial, **judged)
        publish_file(partial, file)
    return dict(np.load(file))


def percent(interval: Interval) -> Percent:
    return Percent(**vars(interval))


def share(values: np.ndarray) -> Percent:
    """A mean that cannot leave 0 and 1."""
    return percent(mean_interval(values).inside(0, 1))


def report(judged: dict[str, list[dict]], scales, rival: str) -> dict[str, Table]:
    """Three tables: alignment over guidance, facts at each arm's best guidance, paired differences to base and rival."""

    def stack(arm: str, name: str) -> np.ndarray:
        return np.stack([seed[name] for seed in judged[arm]])

    best = {arm: max(scales, key=lambda scale: stack(arm, f"{scale:g}/aligned").mean()) for arm in judged}
    header = ["arm", *(f"guidance {scale:g}" for scale in scales), "best at"]
    rows = [[arm, *(share(stack(arm, f"{scale:g}/aligned")) for scale in scales), f"{best[arm]:g}"] for arm in judged]
    tables = {"aligned": Table(header, rows)}

    facts = [*PRINCIPLES, "clean"]
    implicit = {"implicit/accuracy": "implicit accuracy", "implicit/accuracy_corrected": "without noise"}
    shown = [name for name in implicit if all(name in seed for runs in judged.values() for seed in runs)]
    rows = []
    for arm in judged:
        values = [share(stack(arm, f"{best[arm]:g}/{fact}")) for fact in facts]
        accuracies = [share(stack(arm, name)) for name in shown]
        rows.append([arm, *values, *accuracies, percent(mean_interval(stack(arm, "implicit/score_relative")))])
    header = ["arm", *facts, *(implicit[name] for name in shown), "implicit margin"]
    tables["facts"] = Table(header, rows)

    rows = []
    for arm in judged:
        kind = arm.split(", ")[-1]
        rivals = [name for name in judged if name.startswith(rival) and name.endswith(kind)] or [rival]
        for other in ["base", *rivals]:
            if other in judged and arm not in ("base", other):
                at_one = paired_difference(
                    stack(arm, f"{scales[0]:g}/aligned"), stack(other, f"{scales[0]:g}/aligned")
                )
                at_best = paired_difference(
                    stack(arm, f"{best[arm]:g}/aligned"), stack(other, f"{best[other]:g}/aligned")
                )
                rows.append([arm, other, percent(at_one), percent(at_best)])
    header = ["arm", "minus", f"at guidance {scales[0]:g}", "each at its best guidance"]
    return tables | {"differences": Table(header, rows)}


def main(args: StudyArguments) -> None:
    output = Path(args.output_dir)
    make_folder(output, "--output_dir")
    data = output / "data" / "train.parquet"
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        make_rows(make_scenes(8192, 0), 0).to_parquet(data)
    scenes = make_scenes(args.num_prompts, 0, held_out=True)
    judged: dict[str, list[dict[str, np.ndarray]]] = {}
    for seed in args.seeds:
        for arm, flags in ARMS[args.arms].items():
            found = run_arm(arm, flags, args, seed, scenes)
            judged.setdefault(arm, []).append(found)
            aligned = [f"{found[f'{scale:g}/aligned'].mean():.1%}" for scale in args.guidance_scales]
            print(f"{arm}, seed {seed}: aligned {' '.join(aligned)}", flush=True)
    tables = report(judged, args.guidance_scales, args.rival)
    print(
        f"\n{len(scenes)} held-out prompts, seeds {args.seeds}; mean with 95 % interval over prompts, in percent and points."
    )
    for name, table in tables.items():
        print(f"\n{TITLES[name]}\n\n{table.markdown()}")
    write_tables(
        output / "results.json",
        tables,
        command=shlex.join(["python", "examples/text_preference/study_shapes.py", *sys.argv[1:]]),
        date=str(datetime.date.today()),
        machine=f"{os.cpu_count()} cores, torch {torch.__version__}",
        seeds=args.seeds,
        prompts=len(scenes),
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(StudyArguments, description=__doc__))
