"""Shows a model while it trains: its averaged weights and rendered prompts. Knows nothing of losses or data."""

import contextlib
from pathlib import Path

import numpy as np
import torch

from .families import call_arguments


@contextlib.contextmanager
def averaged_weights(ema, parameters: list[torch.nn.Parameter], *modules: torch.nn.Module):
    """What is trained in evaluation mode with the averages of an `EMAModel` in place of `parameters`; restores both."""
    was_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    if ema is not None:
        ema.store(parameters)
        ema.copy_to(parameters)
    try:
        yield
    finally:
        if ema is not None:
            ema.restore(parameters)
        for module, mode in zip(modules, was_training, strict=True):
            module.train(mode)


@torch.no_grad()
def render_prompts(
    pipe, prompts: list[str], images_per_prompt: int, guidance_scale: float, resolution: int, seed: int
) -> list[list]:
    """Renders every prompt with the seeds `seed`, `seed + 1`, ...: a list of square PIL images per prompt."""
    rendered = []
    for prompt in prompts:
        generators = [torch.Generator().manual_seed(seed + index) for index in range(images_per_prompt)]
        call = call_arguments(pipe, [prompt] * images_per_prompt, guidance_scale)
        rendered.append(pipe(**call, height=resolution, width=resolution, generator=generators).images)
    return rendered


def show_images(rendered: list[list], folder: Path, trackers: list, step: int) -> None:
    """Writes rendered prompts as `<prompt>-<image>.png` and sends them to TensorBoard and wandb."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, images in enumerate(rendered):
        for index, image in enumerate(images):
            image.save(folder / f"{number}-{index}.png")
        for tracker in trackers:
            if tracker.name == "tensorboard":
                pixels = np.stack([np.asarray(image) for image in images])
                tracker.log_images({f"validation/{number}": pixels}, step=step, dataformats="NHWC")
            elif tracker.name == "wandb":
                tracker.log_images({f"validation/{number}": images}, step=step)
