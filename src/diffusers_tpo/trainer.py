"""Joins losses, noising, families and adapters into the training objective. Knows nothing of data, files or loops."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from accelerate.utils import reduce
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from .errors import UserError
from .families import Conditioning, Family, StableDiffusion
from .flags import NotNegativeNumber, PositiveNumber, Range, Share, check_ranges, flag
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
from .models.precision import precision_of
from .noising import Noised


NESTED = "added_cond_kwargs"
PositiveShare = Annotated[float, Range(above=0, at_most=1)]
PositiveOrInfinite = Annotated[float, Range(above=0, may_be_infinite=True)]


@dataclass
class TPOConfig:
    """The objective of Text Preference Optimization.

    `tkto_baseline` is the reference point that rewards are judged against, over the rows of all processes:
    *batch_mean* - the mean reward, at least 0; *class_mean* - the middle between the mean rewards of the matched and of
    the mismatched rows; *shuffled* - the mean reward of every image with its neighbour's prompt, at least 0 (one more
    forward pass; 0 where a process holds a single image).

    Raises:
        UserError: naming the flag, for a value out of range or a method that does not exist.
    """

    loss_type: Literal["sft", "tdpo", "tkto"] = flag("tdpo", "Supervised, TDPO or TKTO.")
    beta: PositiveNumber = flag(5000.0, "Pull to the reference; smaller models want less than the paper's 5000.")
    mismatched_clip: PositiveOrInfinite | None = flag(
        0.1, "Stop pushing a mismatched prompt at this relative rise of its error; inf: never."
    )
    anchor_weight: NotNegativeNumber = flag(0.05, "Adds the matched error times this share of beta / 2 to the loss.")
    winner_preserving_mu: Share | None = flag(
        None, "Scale the mismatched gradient so that this share of the matched descent stays; tdpo only."
    )
    null_anchor: NotNegativeNumber = flag(
        0.0, "Adds the error at the empty prompt times this share of beta / 2 to the loss."
    )
    null_keep: NotNegativeNumber = flag(
        0.0,
        "Adds the squared distance to the reference's prediction at the empty prompt times this share of beta / 2.",
    )
    null_share: PositiveShare = flag(0.2, "Share of the images that are asked about the empty prompt for these two.")
    tkto_baseline: Literal["batch_mean", "class_mean", "shuffled"] = flag("batch_mean", "TKTO's reference point.")
    matched_weight: NotNegativeNumber = flag(1.0, "TKTO's weight of matched rows.")
    mismatched_weight: NotNegativeNumber = flag(1.0, "TKTO's weight of mismatched rows.")

    def __post_init__(self) -> None:
        if self.loss_type not in ("sft", "tdpo", "tkto"):
            raise UserError(f"--loss_type must be sft, tdpo or tkto, got {self.loss_type!r}")
        if self.tkto_baseline not in ("batch_mean", "class_mean", "shuffled"):
            raise UserError(f"--tkto_baseline must be batch_mean, class_mean or shuffled, got {self.tkto_baseline!r}")
        check_ranges(self)
        if self.winner_preserving_mu is not None and self.loss_type != "tdpo":
            raise UserError(f"--winner_preserving_mu needs pairs, so --loss_type tdpo, got {self.loss_type!r}")
        if self.holds_empty and self.loss_type == "sft":
            raise UserError(
                "--null_anchor and --null_keep go with --loss_type tdpo or tkto, got 'sft', which learns the empty prompt by "
                "--proportion_empty_prompts"
            )

    @property
    def holds_empty(self) -> bool:
        """Whether the answer to the empty prompt is held where it was."""
        return self.null_anchor > 0 or self.null_keep > 0

    @property
    def empty_share(self) -> float:
        """Share of the images that are asked about the empty prompt."""
        return self.null_share if self.holds_empty else 0.0


def check_parts(tpo: object, family: object, reference: object) -> None:
    """Raises [`UserError`] for what no [`TPOTrainer`] can be made of; `None` is the default of each."""
    if not isinstance(tpo, TPOConfig | None):
        raise UserError(f"tpo must be a TPOConfig, got {tpo!r}; as in TPOTrainer(TPOConfig(loss_type=...))")
    if isinstance(family, str | type):
        got = repr(family) if isinstance(family, str) else f"the class {family.__name__}"
        raise UserError(f"family must be an object such as diffusers_tpo.families.StableDiffusionXL(), got {got}")
    if not isinstance(reference, nn.Module | None):
        advice = "; give its unet or transformer" if isinstance(reference, DiffusionPipeline) else ""
        raise UserError(f"reference must be a frozen copy of the denoiser, got a {type(reference).__name__}{advice}")


def flat(cond: Mapping[str, Any]) -> Conditioning:
    """Conditioning with what diffusers nests in `added_cond_kwargs` beside the rest."""
    return {**{name: value for name, value in cond.items() if name != NESTED}, **(cond.get(NESTED) or {})}


def check_rows(noised: Noised, cond: Conditioning) -> None:
    """Raises [`UserError`] if conditioning and noised images differ in their number of rows."""
    number = len(noised.latents)
    of_empty = f", and {noised.num_empty} of the empty prompt at the end" if noised.num_empty else ""
    for name, value in cond.items():
        if len(value) != number:
            raise UserError(
                f"{name} has {len(value)} rows and noised has {number}; both need one row for each image and prompt, as "
                f"noised.repeat(1 + k) makes them{of_empty}"
            )


def check_empty_rows(noised: Noised, share: float) -> None:
    """Raises [`UserError`] if there are no rows of the empty prompt in a batch that is large enough for some."""
    images = noised.num_prompted / noised.prompts_per_image
    if noised.num_empty == 0 and share * images >= 1:
        raise UserError(
            f"null_anchor and null_keep need rows of the empty prompt, about {share:g} of {images:g} images: "
            "noised.repeat(1 + k, num_empty=...) and as many rows of '' at the end of cond"
        )


def rows_of(cond: Conditioning, rows: slice) -> Conditioning:
    return {name: value[rows] for name, value in cond.items()}


@dataclass(frozen=True)
class Rewards:
    """What policy and reference make of one batch of rows that have a prompt.

    Attributes:
        error: of the policy, `(N,)`, float32, with its gradient; `ref_error` is the reference's.
        reward: [`~diffusers_tpo.losses.implicit_reward`] of both.
        residual: the policy's prediction minus its target, `(N, C, ...)`, without gradient.
    """

    error: Tensor
    ref_error: Tensor
    reward: Tensor
    residual: Tensor

    @classmethod
    def of(cls, prediction: Tensor, target: Tensor, ref_error: Tensor) -> "Rewards":
        """Of the policy's predictions of `N` rows, beside the reference's errors `(N,)`."""
        error = denoising_error(prediction, target)
        return cls(error, ref_error, implicit_reward(error, ref_error), (prediction - target).detach())


@dataclass(frozen=True)
class FromReference:
    """What the reference makes of a batch: `error` `(N,)` of the rows with a prompt, `empty` `(M, C, ...)` of those without."""

    error: Tensor
    empty: Tensor | None


class TPOTrainer:
    """Text Preference Optimization (https://huggingface.co/papers/2509.25771) for any diffusers training loop.

    Make one and call [`~TPOTrainer.tpo_loss`] where the loop computes its mean squared error; or let a trainer of your own
    inherit from it, as its base or as a mixin before another base, whose arguments are passed on.

    Args:
        tpo: the objective, by default `TPOConfig()`.
        family: how to call the denoiser; by default a Stable Diffusion UNet, 1.x to XL.
        reference: a frozen copy of the denoiser for full training; `None` takes the policy with its adapters off.
        args, kwargs: of the next class, where this is a mixin.

    Raises:
        UserError: if one of the first three is something else.
    """

    def __init__(
        self,
        tpo: TPOConfig | None = None,
        family: Family | None = None,
        reference: nn.Module | None = None,
        *args: Any,
        **kwargs: Any,
    ):
        check_parts(tpo, family, reference)
        super().__init__(*args, **kwargs)
        self.tpo = TPOConfig() if tpo is None else tpo
        self.family = StableDiffusion() if family is None else family
        self.reference = reference

    def denoising_error(self, denoiser: nn.Module, noised: Noised, cond: Conditioning) -> Tensor:
        """Mean squared error of each row, `(N,)`, float32."""
        prediction = self.family.predict(denoiser, noised.latents, noised.timesteps, flat(cond))
        return denoising_error(prediction, noised.target)

    def reference_error(self, denoiser: nn.Module, noised: Noised, cond: Conditioning) -> Tensor:
        """The same for the reference, see [`~TPOTrainer.reference_prediction`]."""
        return denoising_error(self.reference_prediction(denoiser, noised, cond), noised.target)

    @torch.no_grad()
    def reference_prediction(self, denoiser: nn.Module, noised: Noised, cond: Conditioning) -> Tensor:
        """What the reference predicts, `(N, C, ...)`: adapters off, or the frozen copy on its own device, in its own precision.

        It is told the same float32 latents, timesteps and sizes as the policy.
        """
        if self.reference is None:
            with adapters_off(denoiser) as bare:
                return self.family.predict(bare, noised.latents, noised.timesteps, flat(cond))
        device = next(self.reference.parameters()).device
        with precision_of(self.reference):
            prediction = self.family.predict(
                self.reference,
                noised.latents.to(device),
                noised.timesteps.to(device),
                {name: value.to(device) for name, value in flat(cond).items()},
            )
        return prediction.to(noised.target.device)

    def tpo_loss(
        self,
        denoiser: nn.Module,
        noised: Noised,
        cond: Conditioning,
        is_matched: Tensor | list[bool] | None = None,
        ref_cond: Conditioning | None = None,
        ref_error: Tensor | None = None,
        ref_empty: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch of rows.

        For TDPO the rows are blocks `[matched; mismatched_1; ...; mismatched_K]` of the same `B` images, and rows of one
        image share latents, noise and timestep: `noised.repeat(1 + K)`. TKTO takes rows in any mixture.

        With `null_anchor` or `null_keep`, `M` rows follow in which some of the images are asked about the empty prompt:
        `noised.repeat(1 + K, num_empty=M)`, with `M` near `null_share * B`, and `cond` ends in `M` rows of "".

        Args:
            denoiser: the policy, wrapped or not.
            noised: `N + M` rows.
            cond: conditioning of `N + M` rows, by name; that of a UNet may stand in `added_cond_kwargs`, as diffusers nests it.
            is_matched: `(N,)` boolean, a list too; `None` for supervised fine-tuning, where all rows are. Nothing waits for the
                device if it is on the CPU.
            ref_cond: what the reference is given instead of `cond`, where the text encoders are trained too.
            ref_error: the reference's error of each row with a prompt, `(N,)`, if it is known already.
            ref_empty: the reference's predictions of the empty prompt, `(M, C, ...)`, if they are known already. If all that is
                needed is known, no reference is.

        Returns:
            The scalar loss and detached scalars of this process: see the metrics in the README.

        Raises:
            UserError: if the parts differ in their number of rows, nothing says which are matched, these are not in blocks as TDPO
                needs them, or there is no reference.
        """
        cond = flat(cond)
        check_rows(noised, cond)
        if self.tpo.loss_type == "sft":
            return self.sft_loss(denoiser, noised, cond)
        prompted = noised.part(slice(noised.num_prompted))
        rows = Layout.of(self._labels(is_matched, noised.num_prompted), noised.latents.device)
        if self.tpo.loss_type == "tdpo" and not rows.in_blocks:
            raise UserError(
                f"is_matched must hold one block of B matched rows and K >= 1 blocks of B mismatched rows, got "
                f"{len(rows.is_matched)} rows of which {len(rows.matched)} are matched"
            )
        if self.tpo.holds_empty:
            check_empty_rows(noised, self.tpo.null_share)
        # The reference comes first: switching adapters off breaks the policy's graph.
        ref_cond = cond if ref_cond is None else flat(ref_cond)
        known = self._ask_reference(denoiser, noised, ref_cond, ref_error, ref_empty)
        baseline = None
        if self.tpo.loss_type == "tkto" and self.tpo.tkto_baseline == "shuffled":
            baseline = self._shuffled_reward(denoiser, prompted, cond, rows, ref_cond)
        prediction = self.family.predict(denoiser, noised.latents, noised.timesteps, cond)
        rewards = Rewards.of(prediction[: noised.num_prompted], prompted.target, known.error)
        share_image = self.tpo.loss_type == "tdpo" or noised.prompts_per_image > 1
        metrics = reward_metrics(rewards.reward.detach(), rewards.error.detach(), rows, known.error, share_image)

        stable, stabilisers = self._stabilise(rewards, rows)
        metrics |= stabilisers
        if self.tpo.loss_type == "tdpo":
            loss = self.tdpo_loss(stable, rows)
        else:
            if baseline is None:
                baseline = self._baseline(rewards.reward.detach(), rows)
            loss = self.tkto_loss(stable, rows, baseline)
            metrics["baseline"] = baseline
        metrics["preference_loss"] = loss.detach()
        if self.tpo.anchor_weight and len(rows.matched):
            anchor = self.tpo.anchor_weight * self.tpo.beta / 2 * rewards.error[rows.matched].mean()
            metrics["anchor"] = anchor.detach()
            loss = loss + anchor
        if noised.num_empty:
            held, of_empty = self._hold_empty(prediction[noised.num_prompted :], noised, known.empty)
            metrics |= of_empty
            loss = loss + held
        return loss, {"loss": loss.detach(), **metrics}

    def sft_loss(self, denoiser: nn.Module, noised: Noised, cond: Conditioning) -> tuple[Tensor, dict[str, Tensor]]:
        """Supervised fine-tuning: the mean error of `N` matched rows, weighted where `noised` has weights; as `tpo_loss`."""
        error = self.denoising_error(denoiser, noised, cond)
        loss = (error if noised.weights is None else error * noised.weights).mean()
        return loss, {"loss": loss.detach(), "error/matched": error.detach().mean()}

    def tdpo_loss(self, reward: Tensor, rows: Layout) -> Tensor:
        """TDPO, a scalar, of rewards `(N,)` in blocks: see [`~diffusers_tpo.losses.tdpo_loss`]."""
        blocks = reward.unflatten(0, (-1, len(rows.matched)))
        return tdpo_loss(blocks[0], blocks[1:], self.tpo.beta).mean()

    def tkto_loss(self, reward: Tensor, rows: Layout, baseline: Tensor) -> Tensor:
        """TKTO, a scalar, of rewards `(N,)` in any order: see [`~diffusers_tpo.losses.tkto_loss`]."""
        of_rows = tkto_loss(
            reward, rows.is_matched, baseline, self.tpo.beta, self.tpo.matched_weight, self.tpo.mismatched_weight
        )
        return of_rows.mean()

    def _ask_reference(
        self,
        denoiser: nn.Module,
        noised: Noised,
        ref_cond: Conditioning,
        ref_error: Tensor | None,
        ref_empty: Tensor | None,
    ) -> FromReference:
        """What is not known already, in at most one forward pass of the reference."""
        begin = 0 if ref_error is None else noised.num_prompted
        needs_empty = self.tpo.null_keep and ref_empty is None
        end = len(noised.latents) if needs_empty else noised.num_prompted
        if begin == end:
            assert ref_error is not None  # there is a row with a prompt
            return FromReference(ref_error, ref_empty)
        asked = slice(begin, end)
        prediction = self.reference_prediction(denoiser, noised.part(asked), rows_of(ref_cond, asked))
        if ref_error is None:
            of_prompts = prediction[: noised.num_prompted]
            ref_error = denoising_error(of_prompts, noised.target[: noised.num_prompted])
        if needs_empty:
            ref_empty = prediction[noised.num_prompted - begin :]
        return FromReference(ref_error, ref_empty)

    def _hold_empty(
        self, prediction: Tensor, noised: Noised, reference: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss that holds the empty prompt, a scalar, and its metrics.

        Args:
            prediction: the policy's, of the empty prompt, `(M, C, ...)`; `reference` the reference's, where it is needed.
            noised: all rows.
        """
        images = noised.num_prompted / noised.prompts_per_image
        scale = self.tpo.beta / 2 / (self.tpo.null_share * images)  # the mean over all images, from a share of them
        error = denoising_error(prediction, noised.target[noised.num_prompted :])
        metrics = {"null/error": error.detach().mean()}
        loss = self.tpo.null_anchor * scale * error.sum()
        if reference is not None:
            distance = denoising_error(prediction, reference)
            metrics["null/distance"] = distance.detach().mean()
            loss = loss + self.tpo.null_keep * scale * distance.sum()
        return loss, metrics | {"null_loss": loss.detach()}

    def _labels(self, is_matched: Tensor | list[bool] | None, number: int) -> Tensor:
        """Which of `number` rows are matched, as a boolean tensor."""
        if is_matched is None:
            raise UserError(
                f"is_matched must say which of the {number} rows are matched for {self.tpo.loss_type}; only sft does without"
            )
        labels = torch.as_tensor(is_matched).bool()
        if labels.shape != (number,):
            raise UserError(f"is_matched must have one label for each of the {number} rows, got {tuple(labels.shape)}")
        return labels

    def _stabilise(self, rewards: Rewards, rows: Layout) -> tuple[Tensor, dict[str, Tensor]]:
        """The rewards `(N,)` with a tamed gradient of the mismatched rows, and what that did."""
        metrics, stable, images = {}, rewards.reward, len(rows.matched)
        if self.tpo.winner_preserving_mu is not None:
            winner, *losers = rewards.residual.unflatten(0, (-1, images))
            scale = torch.stack(
                [winner_preserving_scale(winner, loser, self.tpo.winner_preserving_mu) for loser in losers]
            )
            stable = torch.cat([stable[:images], scale_gradient(stable[images:], scale.flatten())])
            metrics["winner_preserving_scale"] = scale.mean()
        if self.tpo.mismatched_clip is not None:
            clipped = clip_mismatched(stable, rewards.ref_error, self.tpo.mismatched_clip)
            stable = torch.where(rows.is_matched, stable, clipped)
            is_clipped = rewards.reward.detach() < -self.tpo.mismatched_clip * rewards.ref_error
            metrics["clipped_fraction"] = share(is_clipped & ~rows.is_matched, ~rows.is_matched)
        return stable, metrics

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
