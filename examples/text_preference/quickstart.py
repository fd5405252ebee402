#!/usr/bin/env python
"""Text Preference Optimization from start to end on the embedded shapes world: no GPU, no download, a few minutes.

    python examples/text_preference/quickstart.py

It writes a data set, trains with train_text_to_image_tpo.py as any user would, judges the model before and after with an
exact verifier, and leaves LoRA weights, card, pictures and figures in one folder.
"""

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import exit_on_user_error
from diffusers_tpo.evaluation.shapes import judge_together, load_model
from diffusers_tpo.files import make_folder
from diffusers_tpo.flags import AtLeastOne, NotNegative, flag
from diffusers_tpo.intervals import mean_interval, paired_difference
from diffusers_tpo.publish.model_card import set_evaluation
from diffusers_tpo.shapes.world import FACTS, PIPELINE, draw_images, make_rows, make_scenes
from diffusers_tpo.show import markdown_table


matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 - after the backend is chosen


SCALES = (1.0, 1.5, 2.5)
STRATA = 4  # draws of noise and timestep for the implicit preference of each image
SCRIPT = Path(__file__).parent / "train_text_to_image_tpo.py"


def train(output: Path, steps: int, seed: int, data: Path):
    """Runs the example script with the flags that a user types."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=1", "--mixed_precision=no"]
    command += [
        "--dynamo_backend=no",
        "--num_machines=1",
        f"--num_cpu_threads_per_process={min(2, torch.get_num_threads())}",
        str(SCRIPT),
    ]
    command += f"--pretrained_model_name_or_path {PIPELINE} --dataset_name {data} --resolution 32".split()
    command += f"--use_lora --loss_type tdpo --beta 500 --anchor_weight 0.5 --max_train_steps {steps}".split()
    command += "--principles content attribute --train_batch_size 16 --learning_rate 1e-3 --use_ema".split()
    command += f"--ema_decay 0.98 --seed {seed} --output_dir {output}".split()
    command += f"--checkpointing_steps {steps} --checkpoints_total_limit 1 --resume_from_checkpoint latest".split()
    print("$ " + shlex.join(["accelerate", "launch", *command[7:]]), flush=True)
    subprocess.run(command, check=True)


def show_before_after(path: Path, before: np.ndarray, after: np.ndarray, scenes, aligned):
    """Same prompts and seeds side by side; a green frame means that every fact of the prompt holds."""
    figure, axes = plt.subplots(2, len(scenes), figsize=(1.9 * len(scenes), 4.4))
    for row, (name, images, facts) in enumerate((("before", before, aligned[0]), ("after", after, aligned[1]))):
        for column, (image, is_aligned) in enumerate(zip(images, facts, strict=True)):
            axis = axes[row, column]
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(color="tab:green" if is_aligned else "tab:red", linewidth=4)
            if row == 0:
                words = scenes[column].caption().split()
                lines = [" ".join(words[i : i + 4]) for i in range(0, len(words), 4)]
                axis.set_title("\n".join(lines), fontsize=7)
        axes[row, 0].set_ylabel(name)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def show_curves(path: Path, log: Path):
    """The curves that matter: preference loss (without the anchor), both rewards, accuracy."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    panels = {
        "preference loss": ["preference_loss"],
        "reward": ["reward/matched", "reward/mismatched"],
        "accuracy": ["reward/accuracy"],
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3))
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            values = np.array([row[name] for row in rows])
            window = min(20, len(values))
            axis.plot(values, alpha=0.25, color=f"C{names.index(name)}")
            smooth = np.convolve(values, np.ones(window) / window, mode="valid")
            axis.plot(np.arange(window - 1, len(values)), smooth, color=f"C{names.index(name)}", label=name)
        axis.set(title=title, xlabel="optimizer step")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


@dataclass
class QuickstartArguments:
    """How long it takes, and where it goes."""

    output_dir: str = flag("quickstart", "Data set, model, pictures and figures.")
    max_train_steps: AtLeastOne = flag(200, "Optimizer steps.")
    num_prompts: AtLeastOne = flag(256, "Held-out prompts of the evaluation.")
    seed: NotNegative = flag(0, "Of data, training and evaluation.")


def main(args: QuickstartArguments) -> None:
    output = Path(args.output_dir)
    make_folder(output / "data", "--output_dir")

    print("1/3  Writing a text-preference data set of the shapes world", flush=True)
    make_rows(make_scenes(4096, args.seed), args.seed).to_parquet(output / "data" / "train.parquet")

    print("2/3  Training", flush=True)
    train(output, args.max_train_steps, args.seed, output / "data")

    print(f"3/3  Judging {args.num_prompts} held-out prompts before and after", flush=True)
    scenes = make_scenes(args.num_prompts, args.seed, held_out=True)
    pipes = {"before": load_model(), "after": load_model(output)}
    judged = judge_together(pipes, scenes, SCALES, args.seed, strata=STRATA)
    names = [f"{scale:g}/{fact}" for scale in SCALES for fact in FACTS] + ["implicit/accuracy"]
    means = {m: {name: mean_interval(judged[m][name]) for name in names} for m in judged}
    gains = {name: paired_difference(judged["after"][name], judged["before"][name]) for name in names}
    rows = [[name, means["before"][name], means["after"][name], gains[name]] for name in names]
    table = markdown_table(
        ["guidance/fact", "before", "after", "difference"], [[r[0], *(x.percent() for x in r[1:])] for r in rows]
    )

    chosen = scenes[:8]
    images = [draw_images(pipe, chosen, args.seed, SCALES[0], steps=10, progress=False) for pipe in pipes.values()]
    aligned = [judged[name][f"{SCALES[0]:g}/aligned"][:8] for name in pipes]
    show_before_after(output / "before_after.png", *images, chosen, aligned)
    show_curves(output / "curves.png", output / "training_log.jsonl")
    metrics = {
        name: {"before": before.mean, "after": after.mean, "difference": vars(gain)}
        for name, before, after, gain in rows
    }
    (output / "metrics.json").write_text(
        json.dumps({"prompts": len(scenes), "seed": args.seed, "metrics": metrics}, indent=2)
    )
    note = (
        f"{len(scenes)} held-out prompts of the shapes world, seed {args.seed}, mean with 95 % interval, in percent."
    )
    set_evaluation(output, f"{note}\n\n{table}\n\n![before and after](before_after.png)")
    print(f"\n{note}\n\n{table}\n")
    print(
        f"In {output}/: pytorch_lora_weights.safetensors, before_after.png, curves.png, metrics.json, README.md (the card)"
    )
    print(
        "Next: the same command with --loss_type tkto, or your own --dataset_name and --pretrained_model_name_or_path;"
    )
    print("docs/quicktour.md says how to go on; docs/flags.md has every flag.")


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(QuickstartArguments, description=__doc__))
