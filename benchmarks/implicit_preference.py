#!/usr/bin/env python
"""How many forward passes the implicit preference costs: common random numbers against independent random draws.

    python benchmarks/implicit_preference.py

Rival: each prompt of an image with its own noise and its own timestep, drawn from the whole schedule, as a training loss
draws them. Ours: all prompts of an image share noise and timestep, and the timesteps are stratified. Both estimate the mean
implicit preference score of the same held-out pairs of the shapes world with the shipped pipeline; the variance of the estimate
over repetitions says how many passes an interval of a given width costs, since it falls with their number.
"""

import argparse

import numpy as np
import torch

from diffusers_tpo.data.rows import Columns
from diffusers_tpo.evaluation import error_matrix
from diffusers_tpo.evaluation.heldout import held_out_pairs
from diffusers_tpo.evaluation.shapes import load_model
from diffusers_tpo.families import family_of
from diffusers_tpo.losses import denoising_error
from diffusers_tpo.noising import Draw, add_noise, training_scheduler
from diffusers_tpo.shapes.images import RESOLUTION
from diffusers_tpo.shapes.world import make_rows, make_scenes
from diffusers_tpo.show import markdown_table


STRATA = 8
PROMPTS = 2  # the matched prompt and one mismatched prompt of each image


@torch.no_grad()
def independent_scores(family, pipe, scheduler, latents, prompts, draws: int, seed: int) -> torch.Tensor:
    """The score of every pair `(draws, N)`: one error with its own noise and timestep for each prompt."""
    conds = [family.encode_prompts(pipe, [texts[column] for texts in prompts]) for column in range(PROMPTS)]
    scores = torch.zeros(draws, len(prompts))
    for draw in range(draws):
        errors = []
        for column, cond in enumerate(conds):
            numbers = [Draw(seed, f"{row}/{column}", draw) for row in range(len(prompts))]
            noised = add_noise(scheduler, latents, numbers)
            errors.append(
                denoising_error(family.predict(pipe.unet, noised.latents, noised.timesteps, cond), noised.target)
            )
        scores[draw] = errors[1] - errors[0]
    return scores


def variance_ratio(
    theirs: np.ndarray, ours: np.ndarray, seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """Ratio of two variances over repetitions, with a 95 % bootstrap interval over the repetitions."""
    rng = np.random.default_rng(seed)
    picks = [rng.integers(len(x), size=(resamples, len(x))) for x in (theirs, ours)]
    ratios = theirs[picks[0]].var(axis=1, ddof=1) / ours[picks[1]].var(axis=1, ddof=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return theirs.var(ddof=1) / ours.var(ddof=1), low, high


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_pairs", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=40, help="estimates of each kind")
    args = parser.parse_args()
    pipe = load_model()
    family, scheduler = family_of(pipe), training_scheduler(pipe.scheduler)
    rows = make_rows(make_scenes(args.num_pairs, 0, held_out=True), 0)
    pairs = held_out_pairs(rows, Columns(), RESOLUTION, None)
    latents, sizes = pairs.encode(family, pipe, batch_size=64)
    prompts = [texts[:PROMPTS] for texts in pairs.prompts]
    job = (family, pipe, pipe.unet, scheduler, latents, sizes, prompts)
    theirs, shared, ours = [], [], []
    for seed in range(args.repetitions):
        theirs.append(independent_scores(family, pipe, scheduler, latents, prompts, STRATA, seed).mean(dim=0))
        shared.append(error_matrix(*job, strata=1, repeats=STRATA, seed=seed, batch_size=128).margins().mean()[:, 0])
        ours.append(error_matrix(*job, strata=STRATA, repeats=1, seed=seed, batch_size=128).margins().mean()[:, 0])
        print(f"repetition {seed + 1} of {args.repetitions}", end="\r", flush=True)
    rows, between = [], float(torch.stack(ours).mean(dim=0).var()) / args.num_pairs
    names = ("independent draws", "common random numbers", "common random numbers, stratified")
    for name, estimates in zip(names, (theirs, shared, ours), strict=True):
        means = torch.stack(estimates).mean(dim=1).numpy()
        rivals = torch.stack(theirs).mean(dim=1).numpy()
        ratio, low, high = variance_ratio(rivals, means)
        whole = np.sqrt(between + means.var(ddof=1))
        saved = "-" if estimates is theirs else f"{ratio:.1f} [{low:.1f}, {high:.1f}]"
        rows.append([name, f"{means.mean():.4f}", f"{means.std(ddof=1):.5f}", saved, f"{whole:.5f}"])
    header = ["estimate", "mean score", "standard error of the draws", "times fewer passes", "with that of the images"]
    print(f"\n{args.num_pairs} pairs, {STRATA} draws for each prompt, {args.repetitions} repetitions\n")
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
