#!/usr/bin/env python
"""How fast sampling is in batches against one prompt at a time, and how long an evaluation takes against its training.

    python benchmarks/evaluation.py

Both on the shapes pipeline. Sampling: the same captions, steps and guidance, measured in turn. Evaluation: the quickstart's judging
of both models over the optimizer steps of its training, each scaled down; what starts and loads is left out of both.
"""

import argparse
import runpy
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from diffusers_tpo.evaluation.shapes import judge_together, load_model
from diffusers_tpo.shapes.world import draw_images, make_rows, make_scenes
from diffusers_tpo.show import markdown_table


QUICKSTART = Path(__file__).parents[1] / "examples" / "text_preference" / "quickstart.py"
STEPS, PROMPTS = 200, 256  # of the quickstart


def seconds(function, *args, **options) -> float:
    start = time.perf_counter()
    function(*args, **options)
    return time.perf_counter() - start


def figure(name: str, ratios: list[float], target: str, rival: str) -> dict[str, object]:
    """The median of the rounds, and the least and the largest of them."""
    return {"name": name, "ratio": float(np.median(ratios)), "low": min(ratios), "high": max(ratios)} | {
        "target": target,
        "rival": rival,
    }


def sampling(images: int, rounds: int) -> list[float]:
    """Images a second in batches over images a second one at a time, in each round, on one core."""
    pipe, scenes, call = load_model(), make_scenes(images, 0, held_out=True), {"steps": 10, "progress": False}
    threads, ratios = torch.get_num_threads(), []
    torch.set_num_threads(1)
    draw_images(pipe, scenes[:2], 0, 1.5, **call)
    for _ in range(rounds):
        alone, batched = (seconds(draw_images, pipe, scenes, 0, 1.5, batch_size=size, **call) for size in (1, 64))
        ratios.append(alone / batched)
    torch.set_num_threads(threads)
    return ratios


def evaluation(prompts: int, steps: int) -> float:
    """Seconds that the quickstart judges over seconds that it trains, from a few prompts and optimizer steps of each.

    The start of the training script counts once, as in the quickstart, whose evaluation starts nothing.
    """
    quickstart = runpy.run_path(str(QUICKSTART))
    train, options = quickstart["train"], {"strata": quickstart["STRATA"], "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        (output / "data").mkdir()
        make_rows(make_scenes(32 * steps, 0), 0).to_parquet(output / "data" / "train.parquet")
        short, long = (seconds(train, output / f"{number}", number, 0, output / "data") for number in (1, 1 + steps))
        training = short + (STEPS - 1) * (long - short) / steps
        start = time.perf_counter()
        pipes = {"before": load_model(), "after": load_model(output / f"{1 + steps}")}
        loading = time.perf_counter() - start
        scenes = make_scenes(prompts, 0, held_out=True)
        judging = seconds(judge_together, pipes, scenes, quickstart["SCALES"], 0, **options)
    return (loading + judging * PROMPTS / prompts) / training


def figures(images: int = 64, rounds: int = 3, prompts: int = 64, steps: int = 40) -> list[dict[str, object]]:
    """What is measured, as rows with a ratio, its range over the rounds and what it should be."""
    batched = sampling(images, rounds)
    share = [evaluation(prompts, steps)]
    return [
        figure("sampling in batches, images/s", batched, ">= 2.0", "one prompt at a time"),
        figure("evaluation in the quickstart, time", share, "< 1", "its training"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="that are sampled in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=64, help="that are judged")
    parser.add_argument("--steps", type=int, default=40, help="of the training")
    rows = [
        [row["name"], f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]", row["target"], row["rival"]]
        for row in figures(**vars(parser.parse_args()))
    ]
    print(markdown_table(["figure", "ratio, median [least, largest]", "target", "rival"], rows))


if __name__ == "__main__":
    main()
