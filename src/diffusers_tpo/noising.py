"""Draws the timestep and noise of each row and makes noisy latents and target. Knows nothing of prompts or models.

Randomness is counted, not streamed: every draw has its own generator, so a run does not depend on batch split, number of
processes, workers or where it was resumed.
"""

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
    compute_snr,
)
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

    `weights` `(N,)` weigh the error of supervised fine-tuning; `None` means one. `prompts_per_image` counts the blocks of rows
    of the same images. The last `num_empty` rows are asked about the empty prompt.
    """

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    weights: Tensor | None = None
    prompts_per_image: int = 1
    num_empty: int = 0

    def repeat(self, n: int, num_empty: int = 0) -> "Noised":
        """The same images, noise and timesteps for `n` prompts each: `n` blocks of `N` rows.

        Args:
            num_empty: the first so many images have one more row, at the end, for the empty prompt.
        """

        def repeated(tensor: Tensor) -> Tensor:
            blocks = tensor.repeat(n, *[1] * (tensor.ndim - 1))
            return torch.cat([blocks, tensor[:num_empty]]) if num_empty else blocks

        return Noised(
            repeated(self.latents),
            repeated(self.timesteps),
            repeated(self.target),
            None if self.weights is None else repeated(self.weights),
            n * self.prompts_per_image,
            num_empty,
        )

    @property
    def num_prompted(self) -> int:
        """Rows that are asked about a prompt: all but the last `num_empty`."""
        return len(self.latents) - self.num_empty

    def part(self, rows: slice) -> "Noised":
        """Some of the rows, each an image of its own."""
        weights = None if self.weights is None else self.weights[rows]
        return Noised(self.latents[rows], self.timesteps[rows], self.target[rows], weights)


def sample_latents(mean: Tensor, std: Tensor, draws: list[Draw]) -> Tensor:
    """One sample of each row of the autoencoder's posterior, `(N, C, ...)`; row `i` is drawn by `draws[i]`."""
    noise = torch.stack([torch.randn(mean.shape[1:], generator=draw.generator("vae")) for draw in draws])
    return mean + std * noise.to(mean.device, mean.dtype, non_blocking=True)


Scheduler: TypeAlias = DDPMScheduler | FlowMatchEulerDiscreteScheduler


def training_scheduler(scheduler: SchedulerMixin, prediction_type: str | None = None) -> Scheduler:
    """The forward process of a pipeline's scheduler: discrete diffusion, or the straight flow from image to noise.

    Raises:
        UserError: if the scheduler is neither, or does not predict noise or velocity.
    """
    config = scheduler.config
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or config.get("use_flow_sigmas"):
        if prediction_type is not None:
            raise UserError(
                f"--prediction_type {prediction_type!r} is for diffusion models, and this is a flow model; leave it out"
            )
        shift = 1.0 if config.get("use_dynamic_shifting") else config.get("flow_shift", config.get("shift", 1.0))
        return FlowMatchEulerDiscreteScheduler(config.num_train_timesteps, shift=shift)
    if "beta_schedule" not in config:
        raise UserError(
            f"--pretrained_model_name_or_path has a {type(scheduler).__name__}, which has no discrete noise schedule; "
            "use a pipeline that predicts noise, velocity or flow"
        )
    changes = {} if prediction_type is None else {"prediction_type": prediction_type}
    trained = DDPMScheduler.from_config(config, **changes)
    if trained.config.prediction_type not in ("epsilon", "v_prediction"):
        raise UserError(
            f"--prediction_type must be epsilon or v_prediction, got {trained.config.prediction_type!r}: "
            "set --prediction_type to what the model was trained with"
        )
    return trained


def add_noise(
    scheduler: Scheduler,
    latents: Tensor,
    draws: list[Draw],
    timestep_range: tuple[float, float] = (0.0, 1.0),
    noise_offset: float = 0.0,
    snr_gamma: float | None = None,
    weighting_scheme: str = "none",
    logit_mean: float = 0.0,
    logit_std: float = 1.0,
    mode_scale: float = 1.29,
) -> Noised:
    """Noises each row at a random timestep.

    A flow model sees `(1 - sigma) x0 + sigma noise` and predicts `noise - x0`; see https://huggingface.co/papers/2403.03206,
    section 3.1 for the density of `sigma` before the schedule's shift, and equation 23 for the shift.

    Args:
        scheduler: see [`training_scheduler`].
        latents: clean latents `x0`, `(N, C, H, W)`.
        draws: one per row.
        timestep_range: share of the training timesteps to draw from; (0.3, 1.0) leaves out the least noisy 30 %. Of a flow, the
            share before the shift.
        noise_offset: adds this much of one normal number per row and channel to the noise.
        snr_gamma: if set, fills `weights` with min-SNR weights (https://huggingface.co/papers/2303.09556, section 3.4);
            diffusion only.
        weighting_scheme: flow only. "logit_normal" (with `logit_mean` and `logit_std`) and "mode" (with `mode_scale`) draw sigma
            from that density instead of evenly, with the meaning that these numbers have in the training scripts of diffusers: a
            larger `logit_mean` is less noise. "sigma_sqrt" and "cosmap" draw it evenly and fill `weights`.

    Returns:
        [`Noised`], on the device and in the dtype of `latents`.

    Raises:
        UserError: for min-SNR weights of a flow, or a weighting scheme of a diffusion model.
    """
    generators = [draw.generator("noise") for draw in draws]
    is_flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    if is_flow:
        low, high = timestep_range
        shape = {"logit_mean": logit_mean, "logit_std": logit_std, "mode_scale": mode_scale}
        shares = [compute_density_for_timestep_sampling(weighting_scheme, 1, **shape, generator=g) for g in generators]
        shares = torch.cat(shares)
        if weighting_scheme in (
            "logit_normal",
            "mode",
        ):  # densities of places in a schedule that begins with noise alone
            shares = 1 - shares
        shares = shares * (high - low) + low
    elif weighting_scheme != "none":
        raise UserError(
            f"--weighting_scheme {weighting_scheme!r} is for flow models, and this is a diffusion model; leave it out"
        )
    else:
        low, high = (round(bound * scheduler.config.num_train_timesteps) for bound in timestep_range)
        if low >= high:
            raise UserError(
                f"--min_timestep and --max_timestep must leave a timestep between them, got {timestep_range}"
            )
        timesteps = torch.stack([torch.randint(low, high, (), generator=g) for g in generators])
    noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators])
    if noise_offset:
        shape = (latents.shape[1], *[1] * (latents.ndim - 2))
        noise = noise + noise_offset * torch.stack([torch.randn(shape, generator=g) for g in generators])
    noise = noise.to(latents.device, latents.dtype, non_blocking=True)
    if is_flow:
        if snr_gamma is not None:
            raise UserError(
                "--snr_gamma weighs the timesteps of diffusion models, and this is a flow model; leave it out"
            )
        return _flow(scheduler, latents, noise, shares.to(latents.device, non_blocking=True), weighting_scheme)
    timesteps = timesteps.to(latents.device, non_blocking=True)
    is_velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
    weights = None
    if snr_gamma is not None:
        snr = compute_snr(scheduler, timesteps)
        weights = snr.clamp(max=snr_gamma) / (snr + 1) if is_velocity else (snr_gamma / snr).clamp(max=1)
    return Noised(scheduler.add_noise(latents, noise, timesteps), timesteps, target, weights)


def _flow(
    scheduler: FlowMatchEulerDiscreteScheduler, latents: Tensor, noise: Tensor, shares: Tensor, weighting_scheme: str
) -> Noised:
    """Noises each row at this share `(N,)` of the way to noise, before the shift."""
    steps, shift = scheduler.config.num_train_timesteps, scheduler.config.shift
    sigmas = shift * shares / (1 + (shift - 1) * shares)
    wide = sigmas.view(-1, *[1] * (latents.ndim - 1)).to(latents.dtype)
    weights = None
    if weighting_scheme in ("sigma_sqrt", "cosmap"):  # one over sigma squared would be infinite at 0
        weights = compute_loss_weighting_for_sd3(weighting_scheme, sigmas.clamp(min=1 / steps))
    return Noised((1 - wide) * latents + wide * noise, sigmas * steps, noise - latents, weights)
