"""A model's own judgement: how well it denoises an image under each of several prompts, and what follows from that."""

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from diffusers import DiffusionPipeline
from scipy import stats
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..families import Family
from ..intervals import Interval
from ..losses import denoising_error
from ..memory import FittingBatches
from ..noising import Draw, Noised, Scheduler, add_noise


@dataclass(frozen=True)
class ErrorMatrix:
    """Denoising errors of `N` images under up to `M` prompts each.

    Attributes:
        draws: `(strata, repeats, N, M)`, one error for each draw of noise and timestep; nan where an image has no such prompt.
    """

    draws: Tensor

    def mean(self) -> Tensor:
        """The estimate `(N, M)`."""
        return self.draws.mean(dim=(0, 1))

    def standard_error(self) -> Tensor:
        """Of the estimate `(N, M)`: how far other draws of noise and timestep would move it; needs two repeats, else nan."""
        strata, repeats = self.draws.shape[:2]
        if repeats < 2:
            return torch.full_like(self.draws[0, 0], torch.nan)
        return (self.draws.var(dim=1).mean(dim=0) / (strata * repeats)).sqrt()

    def minus(self, other: "ErrorMatrix") -> "ErrorMatrix":
        """Differences of the draws: noise that both share cancels in the standard error."""
        return ErrorMatrix(self.draws - other.draws)

    def margins(self) -> "ErrorMatrix":
        """How much larger the errors of columns 1, 2, ... are than that of column 0: `M - 1` columns."""
        return ErrorMatrix(self.draws[..., 1:] - self.draws[..., :1])


@torch.no_grad()
def error_matrix(
    family: Family,
    pipe: DiffusionPipeline,
    denoiser: nn.Module,
    scheduler: Scheduler,
    latents: Tensor,
    sizes: Tensor,
    prompts: list[list[str]],
    strata: int = 8,
    repeats: int = 2,
    seed: int = 0,
    batch_size: int = 64,
    progress: str | None = None,
) -> ErrorMatrix:
    """Denoising errors of every image under each of its prompts, with common random numbers.

    The timesteps are stratified: `repeats` draws in each of `strata` equal parts of the schedule. All prompts of an image share
    noise and timestep, so the noise of the estimate cancels in their difference. The draws of an image depend on its place and
    the seed alone, so two models, or a model and its reference, share them too.

    Every process must call it: each takes its share of the batches, and all get the whole matrix.

    Args:
        pipe: encodes the prompts.
        denoiser: the pipeline's, or a reference of the same shape.
        latents: `(N, C, H, W)`.
        sizes: `(N, 6)`, see [`~diffusers_tpo.families.Family.encode_sizes`].
        prompts: of each image; their numbers may differ.
        batch_size: rows (image, prompt) in a forward pass, at most.
        progress: label of a progress bar, `None` for none.
    """
    state = PartialState()
    rows = [(image, column) for image, texts in enumerate(prompts) for column in range(len(texts))]
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    draws = torch.zeros(strata, repeats, len(prompts), max(map(len, prompts)))
    device = next(denoiser.parameters(), latents).device
    hidden = progress is None or not state.is_local_main_process

    def judge(batch: list[tuple[int, int]]) -> list[Tensor]:
        """Draws `(strata, repeats)` of each row."""
        images = [image for image, _ in batch]
        found = torch.zeros(strata, repeats, len(batch))
        texts = [prompts[image][column] for image, column in batch]
        distinct = list(dict.fromkeys(texts))
        cond = family.encode_prompts(pipe, distinct)
        cond = {name: value[[distinct.index(text) for text in texts]] for name, value in cond.items()}
        cond |= family.encode_sizes(sizes[images].to(device))
        first, last = images[0], images[-1]
        for stratum in range(strata):
            for repeat in range(repeats):
                numbers = [Draw(seed, image, stratum * repeats + repeat) for image in range(first, last + 1)]
                bounds = (stratum / strata, (stratum + 1) / strata)
                part = latents[first : last + 1].to(device)
                noised = _rows(add_noise(scheduler, part, numbers, timestep_range=bounds), [i - first for i in images])
                prediction = family.predict(denoiser, noised.latents.to(_dtype(cond)), noised.timesteps, cond)
                found[stratum, repeat] = denoising_error(prediction, noised.target).cpu()
        return list(found.unbind(dim=-1))

    fitting = FittingBatches("images under prompts", batch_size)
    for batch in tqdm(batches[state.process_index :: state.num_processes], desc=progress, disable=hidden):
        for (image, column), part in zip(batch, fitting.map(judge, batch), strict=True):
            draws[:, :, image, column] = part
    draws = reduce(draws.to(state.device), "sum").cpu()
    for image, texts in enumerate(prompts):
        draws[:, :, image, len(texts) :] = torch.nan
    return ErrorMatrix(draws)


def _rows(noised: Noised, index: list[int]) -> Noised:
    return Noised(noised.latents[index], noised.timesteps[index], noised.target[index])


def _dtype(cond: dict[str, Tensor]) -> torch.dtype:
    """The precision that the pipeline computes in."""
    return next(value.dtype for value in cond.values() if value.is_floating_point())


def preference_values(
    errors: ErrorMatrix, principles: list[list[str]], reference: ErrorMatrix | None = None
) -> dict[str, np.ndarray]:
    """What the error matrix of held-out pairs says of each image; the matched prompt stands in column 0.

    The implicit preference score (https://huggingface.co/papers/2509.25771) is the error of a mismatched prompt minus that of
    the matched one, averaged over the mismatched prompts of an image.

    Args:
        principles: of the mismatched prompts of each image.
        reference: the errors of the reference, with the same draws.

    Returns:
        `(N,)` each, nan where an image has no such pair. Of the model alone: `error/matched`; `implicit/score`;
        `implicit/score_relative`, as a share of the matched error; `implicit/accuracy`, the share of pairs with a positive
        score, ties counted half; the last two also as `implicit/accuracy/content` and so on; with repeats
        `implicit/score_error`, how far other draws would move the score of the image. Against the reference:
        `reward/matched`, `reward/matched_relative`, `reward/margin` and `reward/accuracy`, as in training.
    """
    matched, margins = errors.mean()[:, 0].numpy(), errors.margins().mean().numpy()
    names = _as_array(principles, margins.shape)
    result = {"error/matched": matched, "implicit/score": _row_mean(margins)}
    result |= _by_principle("implicit/score_relative", margins / matched[:, None], names)
    result |= _by_principle("implicit/accuracy", _preferred(margins), names)
    if errors.draws.shape[1] > 1:
        averaged = ErrorMatrix(errors.margins().draws.nanmean(dim=-1, keepdim=True))
        result["implicit/score_error"] = averaged.standard_error()[:, 0].numpy()
    if reference is not None:
        rewards = reference.minus(errors).mean().numpy()
        gains = rewards[:, :1] - rewards[:, 1:]
        result["reward/matched"] = rewards[:, 0]
        result["reward/matched_relative"] = rewards[:, 0] / reference.mean()[:, 0].numpy()
        result["reward/margin"] = _row_mean(gains)
        result["reward/accuracy"] = _row_mean(_preferred(gains))
    return result


def _as_array(principles: list[list[str]], shape: tuple[int, int]) -> np.ndarray:
    names = np.full(shape, "", dtype=object)
    for row, texts in enumerate(principles):
        names[row, : len(texts)] = texts
    return names


def _preferred(margins: np.ndarray) -> np.ndarray:
    """1 for a positive margin, 1/2 for none, 0 for a negative one; nan stays."""
    return (np.sign(margins) + 1) / 2


def _row_mean(values: np.ndarray) -> np.ndarray:
    """Mean over what is there in each row, nan for an empty row."""
    there = ~np.isnan(values)
    count = there.sum(axis=1)
    return np.where(count > 0, np.where(there, values, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _by_principle(name: str, values: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    found = sorted({str(principle) for principle in names.flat if principle})
    parts = {f"{name}/{p}": _row_mean(np.where(names == p, values, np.nan)) for p in found}
    return {name: _row_mean(values)} | parts


def retrieval_accuracy(errors: ErrorMatrix) -> np.ndarray:
    """Whether an image's own caption denoises it best of all: `(N,)` of 0 and 1, shared between ties.

    Args:
        errors: `(N, N)`, caption `i` is that of image `i`; chance is `1 / N`.
    """
    mean = errors.mean().numpy()
    best = mean == mean.min(axis=1, keepdims=True)
    return np.diagonal(best) / best.sum(axis=1)


def prompt_divergence(
    policy: ErrorMatrix, reference: ErrorMatrix, temperature: float | None = None
) -> dict[str, Interval]:
    """How far the policy's p(c) has moved from the reference's, which the derivation of the loss takes as equal.

    `p(c_j | x_i) = softmax_j(-E[i, j] / temperature)` and `p(c_j)` is its mean over the images.

    Args:
        policy: `(N, M)`, the same prompts for every image.
        temperature: in units of the error. By default the spread of the reference's errors over the prompts of an image: our
            choice, which keeps p(c | x) from being flat or all in one prompt.

    Returns:
        In nats: `kl`, of the policy's p(c) from the reference's; `js`, the Jensen-Shannon divergence. Both are zero or more, and
        too large with few images. The intervals are the jackknife's over images, cut at zero; one image has an infinite one.
    """
    errors, base = policy.mean().double(), reference.mean().double()
    temperature = temperature or float(base.std(dim=1).mean()) or 1.0
    p, q = torch.softmax(-errors / temperature, dim=1), torch.softmax(-base / temperature, dim=1)
    values, n = _divergences(p.mean(dim=0), q.mean(dim=0)), len(p)
    if n < 2:
        return {name: Interval(float(value), 0.0, np.inf) for name, value in values.items()}
    without = _divergences((p.sum(dim=0) - p) / (n - 1), (q.sum(dim=0) - q) / (n - 1))
    half = {
        name: float(stats.t.ppf(0.975, n - 1) * (n - 1) / n**0.5 * x.std(correction=0)) for name, x in without.items()
    }
    return {
        name: Interval(float(v), max(0.0, float(v) - half[name]), float(v) + half[name]) for name, v in values.items()
    }


def _divergences(p: Tensor, q: Tensor) -> dict[str, Tensor]:
    def kl(a, b):
        return (a * (a.clamp(min=1e-300).log() - b.clamp(min=1e-300).log())).sum(dim=-1).clamp(min=0)

    middle = (p + q) / 2
    return {"kl": kl(p, q), "js": (kl(p, middle) + kl(q, middle)) / 2}
