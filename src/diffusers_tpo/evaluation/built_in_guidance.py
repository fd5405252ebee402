"""How much of guidance a model has built in: what training changed, projected on the direction of the reference's guidance.

A preference between conditions is guidance that is learned (https://huggingface.co/papers/2410.09347). With the predictions `f`,
the reference's direction of guidance for a prompt c is `d = f_ref(c) - f_ref(empty)`, and the built-in guidance is the `w` for
which `f_ref(c) + w d` lies nearest to `f_policy(c)`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor
from tqdm.auto import tqdm

from ..guidance import GuideWith
from ..memory import FittingBatches
from ..models.adapters import predict_by_reference
from ..models.precision import precision_of
from ..noising import Draw, add_noise
from .compare import mean_over_prompts
from .implicit import by_principle, principle_table
from .judged import Judged


IMAGES = 32  # of the held-out pairs, at most, that are measured
BUILT_IN, OF_EMPTY, SHARE = "guidance/built_in", "guidance/of_empty", "guidance/share"


@dataclass(frozen=True)
class Shifts:
    """What training changed, for `N` images under up to `M` prompts each; nan where an image has no such prompt.

    Attributes:
        products: `(4, N, M)`, means over timesteps, noise and the elements of a prediction: of `s d`, `d d`, `s s` and `s0 d`, where `s`
            is the policy's prediction minus the reference's, `s0` the same of the empty prompt, and `d` the direction of guidance.
    """

    products: Tensor

    def values(self, principles: list[list[str]], number: int) -> dict[str, np.ndarray]:
        """`(number,)` each, nan for images that were not measured; the matched prompt stands in column 0.

        `guidance/built_in` is the least-squares `w` of `s = w d`, without unit: 0 is the reference, and a policy that
        predicts what the reference predicts under guidance of scale g has `w = g - 1`. `guidance/built_in/content` and so on are the same
        under the mismatched prompts of a principle. `guidance/of_empty` is the same of the empty prompt's shift, and
        `guidance/share` the part of the squared shift that lies along `d`: near 0, the policy differs in other ways, and `w` says little.

        Args:
            principles: of the mismatched prompts of each image.
            number: of all held-out images.
        """
        along, length, shift, empty = self.products.double().numpy()
        length, shift = (np.where(part > 0, part, np.nan) for part in (length, shift))
        built_in = along / length
        names = principle_table(principles[: len(built_in)], built_in[:, 1:].shape)
        parts = by_principle(BUILT_IN, built_in[:, 1:], names)
        parts |= {
            BUILT_IN: built_in[:, 0],
            OF_EMPTY: (empty / length)[:, 0],
            SHARE: (along**2 / (length * shift))[:, 0],
        }
        missing = np.full(number - len(built_in), np.nan)
        return {name: np.concatenate([values, missing]) for name, values in parts.items()}


@torch.no_grad()
def measure_shifts(
    model: Judged,
    latents: Tensor,
    sizes: Tensor,
    prompts: list[list[str]],
    strata: int = 8,
    seed: int = 0,
    batch_size: int = 64,
    progress: str | None = None,
) -> Shifts:
    """Asks policy and reference about each image under each of its prompts and under the empty one.

    That is `2 N (1 + M) strata` rows; timesteps are stratified as in [`~diffusers_tpo.evaluation.error_matrix`]. Every process must call
    it: each takes its share of the images, and all get the whole.

    Args:
        model: one that knows its reference.
        latents: `(N, C, H, W)`.
        sizes: `(N, 6)`, see [`~diffusers_tpo.families.Family.encode_sizes`].
        prompts: of each image; their numbers may differ.
        batch_size: rows (image, prompt) in a forward pass, about.
        progress: label of a progress bar, `None` for none.
    """
    state, family = PartialState(), model.family
    denoiser = getattr(model.pipe, family.denoiser)
    width = max(map(len, prompts))
    products = torch.zeros(4, len(prompts), width)
    device = next(denoiser.parameters(), latents).device
    hidden = progress is None or not state.is_local_main_process

    def measure(images: list[int]) -> list[Tensor]:
        """Products `(4, M)` of each image."""
        texts = [text for image in images for text in [*prompts[image], ""]]
        rows = [place for place, image in enumerate(images) for _ in [*prompts[image], ""]]
        distinct = list(dict.fromkeys(texts))
        cond = family.encode_prompts(model.pipe, distinct)
        cond = {name: value[[distinct.index(text) for text in texts]] for name, value in cond.items()}
        cond |= family.encode_sizes(sizes[images][rows].to(device))
        found = torch.zeros(4, len(images), width)
        for stratum in range(strata):
            draws = [Draw(seed, image, stratum) for image in images]
            bounds = (stratum / strata, (stratum + 1) / strata)
            noised = add_noise(model.scheduler, latents[images].to(device), draws, timestep_range=bounds)
            told = (noised.latents[rows], noised.timesteps[rows], cond)
            expected = predict_by_reference(family, denoiser, model.reference, *told).float()
            with precision_of(denoiser):
                shift = family.predict(denoiser, *told).float() - expected
            start = 0
            for place, image in enumerate(images):
                number = len(prompts[image])
                part = slice(start, start + number)
                empty = start + number
                direction = expected[part] - expected[empty]
                pairs = (
                    (shift[part], direction),
                    (direction, direction),
                    (shift[part], shift[part]),
                    (shift[empty : empty + 1], direction),
                )
                found[:, place, :number] += torch.stack([(a * b).flatten(1).mean(dim=1) for a, b in pairs]).cpu()
                start = empty + 1
        return list((found / strata).unbind(dim=1))

    images = list(range(len(prompts)))
    size = max(1, batch_size // (1 + width))
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    fitting = FittingBatches("images under prompts", size)
    for batch in tqdm(batches[state.process_index :: state.num_processes], desc=progress, disable=hidden):
        for image, part in zip(batch, fitting.map(measure, batch), strict=True):
            products[:, image] = part
    products = reduce(products.to(state.device), "sum").cpu()
    for image, texts in enumerate(prompts):
        products[:, image, len(texts) :] = torch.nan
    return Shifts(products.where(products.isfinite(), torch.nan))


@dataclass(frozen=True)
class GuidanceAdvice:
    """At which guidance scale a model is to be sampled where its reference is best at some other.

    Guiding with the reference's answer to the empty prompt at scale g gives `f_ref(empty) + g (1 + w) d`, and with the policy's own
    `f_ref(empty) + (g (1 + w - v) + v) d`, where `v` is what the policy's answer to the empty prompt moved along `d`. Either is the reference at
    the scale in front of `d`, as far as the shift lies along `d` at all.

    Attributes:
        built_in: `w`, `of_empty`: `v`, `share`: of the squared shift along `d`; means over images.
        unguided: the pipeline's scale for g = 1, see [`~diffusers_tpo.families.Family`]; all scales here are the pipeline's.
    """

    built_in: float
    of_empty: float
    share: float
    unguided: float = 1.0

    @classmethod
    def of(cls, values: dict[str, np.ndarray], unguided: float = 1.0) -> "GuidanceAdvice | None":
        """From a model's values of [`Shifts.values`]; `None` if they were not measured."""
        names = (BUILT_IN, OF_EMPTY, SHARE)
        if any(name not in values for name in names):
            return None
        built_in, of_empty, share = (float(mean_over_prompts(values[name])) for name in names)
        is_there = np.isfinite([built_in, of_empty, share]).all()
        return cls(built_in, of_empty, share, unguided) if is_there else None

    def scale(self, best: float, guide_with: GuideWith = "model") -> float:
        """The scale that does what `best` does for the reference; that without guidance where it would be less."""
        empty = 0.0 if guide_with == "reference" else self.of_empty
        per_scale = 1 + self.built_in - empty
        found = (best + 1 - self.unguided - empty) / per_scale if per_scale > 0 else 1.0
        return max(found, 1.0) - 1 + self.unguided

    def sentence(self, best: float, is_measured: bool) -> str:
        """The advice in words.

        Args:
            best: the scale that suits the reference.
            is_measured: whether renders said so, or it is an example.
        """
        where = (
            f"The base is best at guidance {best:g}" if is_measured else f"In place of guidance {best:g} with the base"
        )
        own, other = self.scale(best), self.scale(best, "reference")
        return (
            f"{where}: sample at about {own:.1f}, or at about {other:.1f} if the base answers the empty prompt, as the model has a guidance of "
            f"{self.built_in:.2f} built in. {self.share:.0%} of what training changed lies along the direction of guidance; of the rest "
            "this says nothing."
        )
