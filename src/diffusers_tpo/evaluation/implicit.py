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
from ..models.precision import precision_of
from ..noising import Draw, Noised, Scheduler, add_noise


LEAST_RELIABILITY = 0.1  # of measured margins; below it a correction for noise says nothing


@dataclass(frozen=True)
class ErrorMatrix:
    """Denoising errors of `N` images under up to `M` prompts each.

    Attributes:
        draws: `(strata, repeats, N, M)`, one error for each draw of noise and timestep; nan where an image has no such prompt,
            infinite where the model's prediction is not finite.
    """

    draws: Tensor

    def finite(self) -> "ErrorMatrix":
        """With nan for what is infinite, so that figures speak of the rest."""
        return ErrorMatrix(self.draws.where(self.draws.isfinite(), torch.nan))

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
                with precision_of(denoiser):
                    prediction = family.predict(denoiser, noised.latents, noised.timesteps, cond)
                error = denoising_error(prediction, noised.target).cpu()
                found[stratum, repeat] = error.where(error.isfinite(), torch.inf)
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
        score in these draws, ties counted half, which the noise of few draws pulls towards 1/2; from two draws on
        `implicit/accuracy_corrected`, see [`corrected_accuracy`], without that bias; the last three also as
        `implicit/accuracy/content` and so on; with repeats `implicit/score_error`, how far other draws would move the score of
        the image. Against the reference: `reward/matched`, `reward/matched_relative`, `reward/margin` and `reward/accuracy`, as
        in training, and `reward/accuracy_corrected`.
    """
    matched, differences = errors.mean()[:, 0].numpy(), errors.margins()
    margins = differences.mean().numpy()
    names = principle_table(principles, margins.shape)
    strata, repeats = errors.draws.shape[:2]
    result = {"error/matched": matched, "implicit/score": _row_mean(margins)}
    result |= by_principle("implicit/score_relative", margins / matched[:, None], names)
    result |= by_principle("implicit/accuracy", _preferred(margins), names)
    if strata * repeats > 1:
        relative = ErrorMatrix(differences.draws / errors.mean()[:, :1])
        result["implicit/accuracy_corrected"] = corrected_accuracy(relative)
        for principle in _distinct(names):
            part = ErrorMatrix(relative.draws.where(torch.from_numpy(names == principle), torch.nan))
            result[f"implicit/accuracy_corrected/{principle}"] = corrected_accuracy(part)
    if repeats > 1:
        averaged = ErrorMatrix(differences.draws.nanmean(dim=-1, keepdim=True))
        result["implicit/score_error"] = averaged.standard_error()[:, 0].numpy()
    if reference is not None:
        rewards = reference.minus(errors).mean().numpy()
        gains = rewards[:, :1] - rewards[:, 1:]
        result["reward/matched"] = rewards[:, 0]
        result["reward/matched_relative"] = rewards[:, 0] / reference.mean()[:, 0].numpy()
        result["reward/margin"] = _row_mean(gains)
        result["reward/accuracy"] = _row_mean(_preferred(gains))
        if strata * repeats > 1:
            gained = errors.minus(reference).margins().draws / reference.mean()[:, :1]
            result["reward/accuracy_corrected"] = corrected_accuracy(ErrorMatrix(gained))
    return result


def corrected_accuracy(margins: ErrorMatrix) -> np.ndarray:
    """The share of pairs with a positive margin, as it would be without the noise of the draws.

    Noise pulls the share of positive means towards 1/2. Where margins and noise are normal, the share is `Phi(z)` without noise
    and `Phi(r z)` with it; `r` squared is the reliability, the part of the variance of the measured margins that is not noise
    (Spearman's correction for attenuation, https://doi.org/10.2307/1412159, applied to a probit). Where they are not normal,
    most of the bias goes still: a true share of 0.70 that eight draws show as 0.57 to 0.63 is estimated as 0.67 to 0.72, and
    as 0.64 where margins have the tails of Student's t with 3 degrees of freedom.

    The variance of the noise is that between the repeats of a stratum. With one repeat it is taken from the differences
    between neighbouring strata, which are a little wider than noise where margins change along the schedule.

    Args:
        margins: `(strata, repeats, N, M)`; nan where an image has no such pair. A positive factor of an image, such as one over
            its matched error, changes no sign and may bring the images to one scale.

    Returns:
        `(N,)` jackknife pseudo-values: their mean is the estimate, and they are independent enough for intervals and paired
        differences, but a single one may lie outside [0, 1]. nan for images without a pair, and everywhere if there are
        fewer than two draws or images, or if under a tenth of the variance is not noise: such draws are too few to tell.
    """
    measured, noise = margins.mean().double().numpy(), _noise_variance(margins.draws.double().numpy())
    rows = {
        "share": _row_mean(_preferred(measured)),
        "mean": _row_mean(measured),
        "square": _row_mean(measured**2),
        "noise": _row_mean(noise),
    }
    is_there = np.isfinite(rows["noise"])
    number = int(is_there.sum())
    found = np.full(len(measured), np.nan)
    if number < 2:
        return found
    sums = {name: values[is_there].sum() for name, values in rows.items()}
    whole = _without_noise(**{name: total / number for name, total in sums.items()})
    rest = _without_noise(**{name: (sums[name] - rows[name][is_there]) / (number - 1) for name in rows})
    found[is_there] = number * whole - (number - 1) * rest
    return found if np.isfinite(found[is_there]).all() else np.full(len(measured), np.nan)


def _without_noise(share: np.ndarray, mean: np.ndarray, square: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The share `Phi(z / r)` for the share `Phi(z)` of measured margins with this mean, mean square and noise variance."""
    variance = square - mean**2
    reliability = np.where(noise > 0, 1 - noise / np.where(variance > 0, variance, np.nan), 1.0)
    reliability = np.where(reliability >= LEAST_RELIABILITY, reliability, np.nan)
    return stats.norm.cdf(stats.norm.ppf(share) / np.sqrt(reliability))


def _noise_variance(draws: np.ndarray) -> np.ndarray:
    """Of the mean over `(strata, repeats, N, M)` draws: `(N, M)`, unbiased if margins do not change between neighbouring strata."""
    strata, repeats = draws.shape[:2]
    if repeats > 1:
        return draws.var(axis=1, ddof=1).mean(axis=0) / (strata * repeats)
    if strata < 2:
        return np.full(draws.shape[2:], np.nan)
    levels = [_mean_of_all(part) for part in draws[:, 0]]
    centred = draws[:, 0] - np.array(levels)[:, None, None]
    total = 0.0
    for group in np.array_split(centred, strata // 2):  # of two strata, of three at most
        total = total + group.var(axis=0, ddof=1) * len(group)
    return total / strata**2


def principle_table(principles: list[list[str]], shape: tuple[int, int]) -> np.ndarray:
    """The principles of the mismatched prompts of each image as an array, empty texts where there is no such prompt."""
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


def _mean_of_all(values: np.ndarray) -> float:
    """Mean of what is there, nan if nothing is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else np.nan


def _distinct(principles: np.ndarray) -> list[str]:
    return sorted({str(principle) for principle in principles.flat if principle})


def by_principle(name: str, values: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    """Means `(N,)` of `values` `(N, K)` over the mismatched prompts of each image: of all, and of each principle in `names`."""
    parts = {f"{name}/{p}": _row_mean(np.where(names == p, values, np.nan)) for p in _distinct(names)}
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
    found = {}
    for name, value in values.items():
        pseudo_values = n * value - (n - 1) * without[name]
        half = float(stats.t.ppf(0.975, n - 1) * stats.sem(pseudo_values.numpy()))
        found[name] = Interval(float(value), max(0.0, float(value) - half), float(value) + half)
    return found


def _divergences(p: Tensor, q: Tensor) -> dict[str, Tensor]:
    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a.clamp(min=1e-300).log() - b.clamp(min=1e-300).log())).sum(dim=-1).clamp(min=0)

    middle = (p + q) / 2
    return {"kl": kl(p, q), "js": (kl(p, middle) + kl(q, middle)) / 2}
