#!/usr/bin/env python
"""Text Preference Optimization from start to end on the embedded shapes world: no GPU, no download, a few minutes.

    python examples/text_preference/quickstart.py

It writes a data set, trains with train_text_to_image_tpo.py as any user would, judges the model before and after with an
exact verifier, and leaves LoRA weights, card, pictures and figures in one folder.
"""

import json
import math
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import torch

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.evaluation.shapes import judge_together, load_model
from diffusers_tpo.files import make_folder, writing_to
from diffusers_tpo.flags import AtLeastOne, Range, flag
from diffusers_tpo.intervals import Interval, mean_interval, paired_difference
from diffusers_tpo.publish.model_card import set_evaluation
from diffusers_tpo.shapes.scenes import Scene
from diffusers_tpo.shapes.world import FACTS, PIPELINE, draw_images, make_rows, make_scenes
from diffusers_tpo.show import markdown_table


matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 - after the backend is chosen


SCALES = (1.0, 1.5, 2.5)
IMPLICIT = ("implicit/accuracy", "implicit/accuracy_corrected")
SHOWN = 8  # prompts in the picture
STRATA = 4  # draws of noise and timestep for the implicit preference of each image
SCRIPT = Path(__file__).parent / "train_text_to_image_tpo.py"


@dataclass
class QuickstartArguments:
    """How long, how much and where."""

    output_dir: str = flag("quickstart", "Data, LoRA weights, card, pictures and figures.")
    max_train_steps: AtLeastOne = flag(200, "Optimizer steps.")
    num_prompts: Annotated[int, Range(at_least=2, at_most=100_000)] = flag(256, "Held-out prompts of the evaluation.")
    seed: Annotated[int, Range(at_least=0, below=2**32)] = flag(0, "Seed of data, training and evaluation.")


@dataclass(frozen=True)
class Judgement:
    """What the verifier and the model itself say of one model, `(N,)` by name, and its first images."""

    values: dict[str, np.ndarray]
    images: np.ndarray


def train(output: Path, steps: int, seed: int, data: Path) -> None:
    """Runs the example script with the flags that a user types."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=1", "--mixed_precision=no"]
    command += [
        "--dynamo_backend=no",
        "--num_machines=1",
        f"--num_cpu_threads_per_process={min(2, torch.get_num_threads())}",
        str(SCRIPT),
    ]
    command += ["--pretrained_model_name_or_path", str(PIPELINE), "--dataset_name", str(data), "--resolution", "32"]
    command += f"--use_lora --loss_type tdpo --beta 500 --anchor_weight 0.5 --max_train_steps {steps}".split()
    command += "--principles content attribute --train_batch_size 16 --learning_rate 1e-3 --use_ema".split()
    command += ["--ema_decay", "0.98", "--seed", str(seed), "--output_dir", str(output)]
    command += f"--checkpointing_steps {steps} --checkpoints_total_limit 1 --resume_from_checkpoint latest".split()
    print("$ " + shlex.join(["accelerate", "launch", *command[7:]]), flush=True)
    code = subprocess.run(command).returncode
    if code:
        raise UserError(f"the training ended with exit code {code}; what it says above tells why")


def show_before_after(path: Path, scenes: list[Scene], judged: dict[str, Judgement]) -> None:
    """Same prompts and seeds side by side; a green frame means that every fact of the prompt holds."""
    figure, axes = plt.subplots(2, len(scenes), figsize=(1.9 * len(scenes), 4.4), squeeze=False)
    for row, (name, judgement) in enumerate(judged.items()):
        aligned = judgement.values[f"{SCALES[0]:g}/aligned"]
        for column, (scene, image) in enumerate(zip(scenes, judgement.images, strict=True)):
            axis = axes[row, column]
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(color="tab:green" if aligned[column] else "tab:red", linewidth=4)
            if row == 0:
                words = scene.caption().split()
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


def judge_both(output: Path, options: QuickstartArguments) -> tuple[list[Scene], dict[str, Judgement]]:
    """The base and the model in `output`, before and after, on captions that the training never shows."""
    scenes = make_scenes(options.num_prompts, options.seed, held_out=True)
    pipes = {"before": load_model(), "after": load_model(output)}
    judged = judge_together(pipes, scenes, SCALES, options.seed, strata=STRATA)
    drawn = {
        name: draw_images(pipe, scenes[:SHOWN], options.seed, SCALES[0], steps=10, progress=False)
        for name, pipe in pipes.items()
    }
    return scenes, {name: Judgement(judged[name], drawn[name]) for name in pipes}


def compare(before: Judgement, after: Judgement) -> dict[str, dict[str, Interval]]:
    """Mean before and after, and paired difference, of every fact at every guidance scale and of the implicit preference."""
    names = [f"{scale:g}/{fact}" for scale in SCALES for fact in FACTS] + list(IMPLICIT)
    return {
        name: {
            "before": mean_interval(before.values[name]).inside(0, 1),
            "after": mean_interval(after.values[name]).inside(0, 1),
            "difference": paired_difference(after.values[name], before.values[name]),
        }
        for name in names
    }


def main(options: QuickstartArguments) -> None:
    output = Path(options.output_dir)
    make_folder(output, "--output_dir")
    with writing_to(output, "output_dir"):
        print("1/3  Writing a text-preference data set of the shapes world", flush=True)
        (output / "data").mkdir(exist_ok=True)
        make_rows(make_scenes(4096, options.seed), options.seed).to_parquet(output / "data" / "train.parquet")

        print("2/3  Training", flush=True)
        train(output, options.max_train_steps, options.seed, output / "data")

        print(f"3/3  Judging {options.num_prompts} held-out prompts before and after", flush=True)
        scenes, judged = judge_both(output, options)
        figures = compare(judged["before"], judged["after"])
        header = ["guidance/fact", "before", "after", "difference"]
        table = markdown_table(header, [[name, *(x.percent() for x in row.values())] for name, row in figures.items()])

        # What it leaves: pictures, figures, and a card that shows them.
        show_before_after(output / "before_after.png", scenes[:SHOWN], judged)
        show_curves(output / "curves.png", output / "training_log.jsonl")
        metrics = {
            name: {
                "before": row["before"].mean,
                "after": row["after"].mean,
                "difference": vars(row["difference"]),
            }
            for name, row in figures.items()
            if math.isfinite(row["difference"].mean)
        }
        found = {"prompts": len(scenes), "seed": options.seed, "metrics": metrics}
        (output / "metrics.json").write_text(json.dumps(found, indent=2))
        note = (
            f"{len(scenes)} held-out prompts of the shapes world, seed {options.seed}, mean with 95 % interval, in percent. "
            f"The noise of {STRATA} draws pulls implicit/accuracy towards 50; implicit/accuracy_corrected estimates it without "
            "(-: the draws are too few)."
        )
        set_evaluation(output, f"{note}\n\n{table}\n\n![before and after](before_after.png)")
    print(f"\n{note}\n\n{table}\n")
    print(
        f"In {output}/: pytorch_lora_weights.safetensors, before_after.png, curves.png, metrics.json, README.md (the card)"
    )
    again = ["diffusers-tpo", "train", "--config", str(output / "config.yaml"), "--loss_type", "tkto"]
    print("Next, the same training with the other loss:")
    print(shlex.join([*again, "--output_dir", f"{output}-tkto"]))
    print("Or your own --dataset_name and --pretrained_model_name_or_path; docs/quicktour.md says how to go on.")


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(QuickstartArguments, description=__doc__))
