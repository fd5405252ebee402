"""Draws the timestep and noise of each row and makes noisy latents and target. Knows nothing of prompts or models.

Randomness is counted, not streamed: every draw has its own generator, so a run does not depend on batch split, number of
processes, workers or where it was resumed.
"""

import dataclasses
import hashlib
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from .errors import UserError


@dataclass(frozen=True)
class Draw:
    """Names one use of one row: `number` counts how often the row has been drawn before, usually the epoch."""

    seed: int
    row: int | str
    number: int = 0

    def generator(self, purpose: str) -> torch.Generator:
        """A fresh CPU generator that depends on this draw and the purpose alone."""
        key = f"{self.seed}/{self.row}/{self.number}/{purpose}".encode(errors="surrogatepass")
        return torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1)


@dataclass(frozen=True)
class Noised:
    """Noisy latents `(N, C, H, W)`, timesteps `(N,)`, the target of the denoiser `(N, C, H, W)`.

    `weights` `(N,)` weigh the error of supervised fine-tuning; `None` means one.
    """

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    weights: Tensor | None = None

    def repeat(self, n: int) -> "Noised":
        """The same images, noise and timesteps for `n` prompts each: `n` blocks of `N` rows."""
        return Noised(*(None if x is None else x.repeat(n, *[1] * (x.ndim - 1)) for x in dataclasses.astuple(self)))


def training_scheduler(scheduler, prediction_type: str | None = None) -> DDPMScheduler:
    """The forward process of a pipeline's scheduler.

    Raises:
        UserError: if the scheduler is not a discrete-time one that predicts noise or velocity.
    """
    if "beta_schedule" not in scheduler.config:
        raise UserError(
            f"pretrained_model_name_or_path has a {type(scheduler).__name__}, which has no discrete noise schedule; "
            "use a pipeline that predicts noise or velocity"
        )
    changes = {} if prediction_type is None else {"prediction_type": prediction_type}
    trained = DDPMScheduler.from_config(scheduler.config, **changes)
    if trained.config.prediction_type not in ("epsilon", "v_prediction"):
        raise UserError(
            f"prediction_type must be epsilon or v_prediction, got {trained.config.prediction_type!r}: "
            "set --prediction_type to what the model was trained with"
        )
    return trained


def add_noise(
    scheduler: DDPMScheduler,
    latents: Tensor,
    draws: list[Draw],
    timestep_range: tuple[float, float] = (0.0, 1.0),
    noise_offset: float = 0.0,
    snr_gamma: float | None = None,
) -> Noised:
    """Noises each row at a random timestep.

    Args:
        scheduler: a scheduler with `alphas_cumprod`, see [`training_scheduler`].
        latents: clean latents `x0`, `(N, C, H, W)`.
        draws: one per row.
        timestep_range: share of the training timesteps to draw from; (0.3, 1.0) leaves out the least noisy 30 %.
        noise_offset: adds this much of one normal number per row and channel to the noise.
        snr_gamma: if set, fills `weights` with min-SNR weights (https://huggingface.co/papers/2303.09556, section 3.4).

    Returns:
        [`Noised`], on the device and in the dtype of `latents`.
    """
    steps = scheduler.config.num_train_timesteps
    low, high = (round(bound * steps) for bound in timestep_range)
    generators = [draw.generator("noise") for draw in draws]
    timesteps = torch.stack([torch.randint(low, high, (), generator=g) for g in generators])
    noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators])
    if noise_offset:
        shape = (latents.shape[1], *[1] * (latents.ndim - 2))
        noise = noise + noise_offset * torch.stack([torch.randn(shape, generator=g) for g in generators])
    timesteps, noise = timesteps.to(latents.device), noise.to(latents.device, latents.dtype)
    is_velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
    weights = None
    if snr_gamma is not None:
        snr = compute_snr(scheduler, timesteps)
        weights = snr.clamp(max=snr_gamma) / (snr + 1 if is_velocity else snr)
    return Noised(scheduler.add_noise(latents, noise, timesteps), timesteps, target, weights)
