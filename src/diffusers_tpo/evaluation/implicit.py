"""A model's own judgement: how well it denoises an image under each of several prompts."""

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from ..families import Conditioning, Family
from ..losses import denoising_error
from ..noising import Draw, add_noise


@torch.no_grad()
def error_matrix(
    family: Family,
    denoiser: nn.Module,
    scheduler: DDPMScheduler,
    latents: Tensor,
    conds: list[Conditioning],
    strata: int = 8,
    seed: int = 0,
    batch_size: int = 64,
) -> Tensor:
    """Denoising errors of every image under each of its prompts, with common random numbers.

    The timesteps are stratified: one draw in each of `strata` equal parts of the schedule. All prompts of an image share noise
    and timestep, so the noise of the estimate cancels in their difference.

    Args:
        latents: `(N, C, H, W)`.
        conds: `M` conditionings of `N` rows; column `j` holds prompt `j` of every image.

    Returns:
        `(N, M)`, the mean over strata.
    """
    errors = torch.zeros(len(latents), len(conds))
    for start in range(0, len(latents), batch_size):
        rows = range(start, min(start + batch_size, len(latents)))
        for stratum in range(strata):
            draws = [Draw(seed, row, stratum) for row in rows]
            bounds = (stratum / strata, (stratum + 1) / strata)
            noised = add_noise(scheduler, latents[rows.start : rows.stop], draws, timestep_range=bounds)
            for column, cond in enumerate(conds):
                part = {name: value[rows.start : rows.stop] for name, value in cond.items()}
                prediction = family.predict(denoiser, noised.latents, noised.timesteps, part)
                errors[rows.start : rows.stop, column] += denoising_error(prediction, noised.target).cpu() / strata
    return errors


def prefers_matched(errors: Tensor) -> Tensor:
    """Per pair, whether the model prefers the matched prompt (column 0): `(N, M - 1)` of 0 and 1."""
    return (errors[:, :1] < errors[:, 1:]).float()
