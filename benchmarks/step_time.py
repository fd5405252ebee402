#!/usr/bin/env python
"""Time of one optimizer step of TDPO and TKTO as a multiple of supervised fine-tuning on the same images, same process.

python benchmarks/step_time.py [--use_lora]
"""

import argparse
import copy
import time

import torch

from diffusers_tpo import Draw, TPOConfig, TPOTrainer, add_noise, training_scheduler
from diffusers_tpo.adapters import add_lora
from diffusers_tpo.families import family_of
from diffusers_tpo.noising import sample_latents
from diffusers_tpo.shapes.evaluate import load_model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--use_lora", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=16)
    args = parser.parse_args()

    pipe = load_model()
    family, scheduler = family_of(pipe), training_scheduler(pipe.scheduler)
    reference = None if args.use_lora else copy.deepcopy(pipe.unet).requires_grad_(False)
    if args.use_lora:
        add_lora(pipe.unet, family.lora_targets)
    parameters = [p for p in pipe.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6)
    pixels = torch.rand(args.batch_size, 3, 32, 32) * 2 - 1
    draws = [Draw(0, row) for row in range(args.batch_size)]
    is_matched = torch.arange(2 * args.batch_size) < args.batch_size

    def step(loss_type: str) -> float:
        trainer = TPOTrainer()
        trainer.tpo, trainer.family, trainer.reference = TPOConfig(loss_type=loss_type), family, reference
        prompts = ["a small red circle on the left at night"] * args.batch_size * (1 if loss_type == "sft" else 2)
        start = time.perf_counter()
        with torch.no_grad():
            latents = sample_latents(*family.encode_images(pipe, pixels), draws)
            cond = family.encode_prompts(pipe, prompts)
        noised = add_noise(scheduler, latents, draws).repeat(len(prompts) // args.batch_size)
        trainer.tpo_loss(pipe.unet, noised, cond, is_matched)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    times = {name: [] for name in ("sft", "tdpo", "tkto")}
    for index in range(args.steps + 2):
        for name in times:  # in turn, so that a change of the machine's speed hits all alike
            seconds = step(name)
            if index >= 2:
                times[name].append(seconds)
    medians = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name}: {seconds * 1000:.0f} ms a step, {seconds / medians['sft']:.2f} x sft")


if __name__ == "__main__":
    main()
