"""Joins losses, noising, families and adapters into the training objective. Knows nothing of data, files or loops."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from accelerate.utils import reduce
from torch import Tensor, nn

from .errors import UserError
from .families import Conditioning, Family, StableDiffusion
from .losses import (
    clip_mismatched,
    denoising_error,
    implicit_reward,
    scale_gradient,
    tdpo_loss,
    tkto_loss,
    winner_preserving_scale,
)
from .metrics import Layout, reward_metrics, share
from .models.adapters import adapters_off
from .noising import Noised


@dataclass
class TPOConfig:
    """The objective of Text Preference Optimization.

    `tkto_baseline` is the reference point that rewards are judged against, over the rows of all processes:
    *batch_mean* - the mean reward, at least 0; *class_mean* - the middle between the mean rewards of the matched and of
    the mismatched rows; *shuffled* - the mean reward of every image with its neighbour's prompt, at least 0 (one more
    forward pass; 0 where a process holds a single image).
    """

    loss_type: Literal["sft", "tdpo", "tkto"] = field(default="tdpo", metadata={"help": "Supervised, TDPO or TKTO."})
    beta: float = field(default=5000.0, metadata={"help": "Pull to the reference; smaller models want less."})
    mismatched_clip: float | None = field(
        default=0.1,
        metadata={"help": "Stop pushing a mismatched prompt at this relative rise of its error; inf: never."},
    )
    anchor_weight: float = field(
        default=0.05, metadata={"help": "Adds the matched error times this share of beta / 2 to the loss."}
    )
    winner_preserving_mu: float | None = field(
        default=None,
        metadata={"help": "Scale the mismatched gradient so that this share of the matched descent stays."},
    )
    tkto_baseline: Literal["batch_mean", "class_mean", "shuffled"] = field(
        default="batch_mean", metadata={"help": "TKTO's reference point."}
    )
    matched_weight: float = field(default=1.0, metadata={"help": "TKTO's weight of matched rows."})
    mismatched_weight: float = field(default=1.0, metadata={"help": "TKTO's weight of mismatched rows."})

    def __post_init__(self):
        if self.loss_type not in ("sft", "tdpo", "tkto"):
            raise UserError(f"loss_type must be sft, tdpo or tkto, got {self.loss_type!r}")
        if self.tkto_baseline not in ("batch_mean", "class_mean", "shuffled"):
            raise UserError(f"tkto_baseline must be batch_mean, class_mean or shuffled, got {self.tkto_baseline!r}")
        if not self.beta > 0:
            raise UserError(
                f"beta must be greater than 0, got {self.beta}: the paper uses 5000 for Stable Diffusion 1.5"
            )
        if self.mismatched_clip is not None and not self.mismatched_clip > 0:
            raise UserError(
                f"mismatched_clip must be greater than 0 (inf switches it off), got {self.mismatched_clip}"
            )
        if self.winner_preserving_mu is not None and not 0 <= self.winner_preserving_mu <= 1:
            raise UserError(f"winner_preserving_mu must lie between 0 and 1, got {self.winner_preserving_mu}")
        if self.winner_preserving_mu is not None and self.loss_type != "tdpo":
            raise UserError(
                f"winner_preserving_mu needs pairs and works with loss_type tdpo only, got {self.loss_type!r}"
            )
        for name in ("anchor_weight", "matched_weight", "mismatched_weight"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must not be negative, got {getattr(self, name)}")


class TPOTrainer:
    """Text Preference Optimization (https://huggingface.co/papers/2509.25771) for any diffusers training loop.

    A mixin without `__init__`: set the three attributes on the class or the object, then call [`~TPOTrainer.tpo_loss`]
    where the loop computes its mean squared error.

    Attributes:
        tpo: the objective.
        family: how to call the denoiser.
        reference: a frozen copy of the denoiser for full training; `None` takes the policy with its adapters off.
    """

    tpo: TPOConfig = TPOConfig()
    family: Family = StableDiffusion()
    reference: nn.Module | None = None

    def denoising_error(self, denoiser: nn.Module, noised: Noised, cond: Conditioning) -> Tensor:
        """Mean squared error of each row, `(N,)`, float32."""
        prediction = self.family.predict(denoiser, noised.latents, noised.timesteps, cond)
        return denoising_error(prediction, noised.target)

    @torch.no_grad()
    def reference_error(self, denoiser: nn.Module, noised: Noised, cond: Conditioning) -> Tensor:
        """The same for the reference: adapters off, or the frozen copy on its own device and in its own dtype."""
        if self.reference is None:
            with adapters_off(denoiser) as bare:
                return self.denoising_error(bare, noised, cond)
        weight = next(self.reference.parameters())
        place = {"device": weight.device, "dtype": weight.dtype}
        prediction = self.family.predict(
            self.reference,
            noised.latents.to(**place),
            noised.timesteps.to(weight.device),
            {
                name: value.to(**place) if value.is_floating_point() else value.to(weight.device)
                for name, value in cond.items()
            },
        )
        return denoising_error(prediction.to(noised.target.device), noised.target)

    def tpo_loss(
        self,
        denoiser: nn.Module,
        noised: Noised,
        cond: Conditioning,
        is_matched: Tensor | None = None,
        ref_cond: Conditioning | None = None,
        ref_error: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch of rows.

        For TDPO the rows are blocks `[matched; mismatched_1; ...; mismatched_K]` of the same `B` images, and rows of one
        image share latents, noise and timestep: `noised.repeat(1 + K)`. TKTO takes rows in any mixture.

        Args:
            denoiser: the policy, wrapped or not.
            noised: `N` rows.
            cond: conditioning of `N` rows.
            is_matched: `(N,)` boolean; `None` for supervised fine-tuning, where all rows are. Nothing waits for the device
                if it is on the CPU.
            ref_cond: what the reference is given instead of `cond`, where the text encoders are trained too.
            ref_error: the reference's error of each row, `(N,)`, if it is known already; then no reference is needed.

        Returns:
            The scalar loss and detached scalars of this process: see the metrics in the README.

        Raises:
            ValueError: if the rows are not in blocks as TDPO needs them.
        """
        if self.tpo.loss_type == "sft":
            error = self.denoising_error(denoiser, noised, cond)
            loss = (error if noised.weights is None else error * noised.weights).mean()
            return loss, {"loss": loss.detach(), "error/matched": error.detach().mean()}

        rows = Layout.of(is_matched, noised.latents.device)
        images = self._count_images(rows)
        ref_cond = cond if ref_cond is None else ref_cond
        # The reference comes first: switching adapters off breaks the policy's graph.
        if ref_error is None:
            ref_error = self.reference_error(denoiser, noised, ref_cond)
        shuffled = self._needs_shuffled()
        baseline = self._shuffled_reward(denoiser, noised, cond, rows, ref_cond) if shuffled else None
        prediction = self.family.predict(denoiser, noised.latents, noised.timesteps, cond)
        error = denoising_error(prediction, noised.target)
        reward = implicit_reward(error, ref_error)
        share_image = self.tpo.loss_type == "tdpo" or noised.prompts_per_image > 1
        metrics = reward_metrics(reward.detach(), error.detach(), rows, ref_error, share_image)

        residual = (prediction - noised.target).detach()
        stable, stabilisers = self._stabilise(reward, ref_error, residual, rows)
        metrics |= stabilisers
        if self.tpo.loss_type == "tdpo":
            blocks = stable.unflatten(0, (-1, images))
            loss = tdpo_loss(blocks[0], blocks[1:], self.tpo.beta).mean()
        else:
            baseline = self._baseline(reward.detach(), rows) if baseline is None else baseline
            weights = self.tpo.matched_weight, self.tpo.mismatched_weight
            loss = tkto_loss(stable, rows.is_matched, baseline, self.tpo.beta, *weights).mean()
            metrics["baseline"] = baseline
        metrics["preference_loss"] = loss.detach()
        if self.tpo.anchor_weight and images:
            anchor = self.tpo.anchor_weight * self.tpo.beta / 2 * error[rows.matched].mean()
            metrics["anchor"] = anchor.detach()
            loss = loss + anchor
        return loss, {"loss": loss.detach(), **metrics}

    def _count_images(self, rows: Layout) -> int:
        """The number of matched rows; raises `ValueError` if TDPO's rows are not in blocks."""
        images = len(rows.matched)
        if self.tpo.loss_type == "tdpo" and not rows.in_blocks:
            raise ValueError(
                f"is_matched must hold one block of B matched rows and K >= 1 blocks of B mismatched rows, got "
                f"{len(rows.is_matched)} rows of which {images} are matched"
            )
        return images

    def _stabilise(
        self, reward: Tensor, ref_error: Tensor, residual: Tensor, rows: Layout
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The rewards `(N,)` with a tamed gradient of the mismatched rows, and what that did."""
        metrics, stable, images = {}, reward, len(rows.matched)
        if self.tpo.winner_preserving_mu is not None:
            winner, *losers = residual.unflatten(0, (-1, images))
            scale = torch.stack(
                [winner_preserving_scale(winner, loser, self.tpo.winner_preserving_mu) for loser in losers]
            )
            stable = torch.cat([stable[:images], scale_gradient(stable[images:], scale.flatten())])
            metrics["winner_preserving_scale"] = scale.mean()
        if self.tpo.mismatched_clip is not None:
            clipped = clip_mismatched(stable, ref_error, self.tpo.mismatched_clip)
            stable = torch.where(rows.is_matched, stable, clipped)
            is_clipped = reward.detach() < -self.tpo.mismatched_clip * ref_error
            metrics["clipped_fraction"] = share(is_clipped & ~rows.is_matched, ~rows.is_matched)
        return stable, metrics

    def _needs_shuffled(self) -> bool:
        return self.tpo.loss_type == "tkto" and self.tpo.tkto_baseline == "shuffled"

    def _baseline(self, reward: Tensor, rows: Layout) -> Tensor:
        """Reference point of TKTO from the rewards `(N,)` of all processes; a class that nobody has is left out."""
        classes = torch.stack([rows.is_matched, ~rows.is_matched]).float()
        counts, sums = reduce(torch.stack([classes.sum(dim=1), (classes * reward).sum(dim=1)]), "sum")
        if self.tpo.tkto_baseline == "batch_mean":
            return (sums.sum() / counts.sum()).clamp(min=0)
        return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum()

    @torch.no_grad()
    def _shuffled_reward(
        self, denoiser: nn.Module, noised: Noised, cond: Conditioning, rows: Layout, ref_cond: Conditioning
    ) -> Tensor:
        """Mean reward of the matched images with their neighbours' prompts: an estimate of the policy's KL divergence."""
        chosen = rows.matched if len(rows.matched) else rows.mismatched
        sums = torch.zeros(2, device=noised.latents.device)
        if len(chosen) > 1:
            images = Noised(noised.latents[chosen], noised.timesteps[chosen], noised.target[chosen])
            other, ref_other = (
                {name: value[chosen.roll(1)] for name, value in part.items()} for part in (cond, ref_cond)
            )
            reward = self.reference_error(denoiser, images, ref_other) - self.denoising_error(denoiser, images, other)
            sums = torch.stack([reward.sum(), torch.ones_like(reward).sum()])
        total, count = reduce(sums, "sum")
        return (total / count.clamp(min=1)).clamp(min=0)
