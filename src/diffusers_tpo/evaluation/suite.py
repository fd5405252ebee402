"""What is asked of every model, and the folder where the answers lie: renders, scores, errors on held-out pairs."""

import json
import os
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from accelerate import PartialState
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from ..errors import UserError
from ..families import family_of
from ..files import differences, read_json, write_whole
from ..noising import Scheduler
from .heldout import HeldOutPairs
from .implicit import ErrorMatrix, error_matrix, preference_values, prompt_divergence, retrieval_accuracy
from .prompts import Prompt
from .renders import image_path, render_missing
from .results import Results
from .scorers.protocol import Scorer
from .scores import score_missing, score_table


def keep_settings(path: Path, settings: dict, what: str) -> None:
    """Keeps the settings that a folder is filled with.

    Raises:
        UserError: if it was begun with others, naming them.
    """
    if path.exists():
        changed = differences(read_json(path), settings)
        if changed:
            raise UserError(f"{what} was begun with other settings: {changed}; use the same, or another output_dir")
    elif PartialState().is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(settings, indent=1, sort_keys=True))
    PartialState().wait_for_everyone()


def text_hash(value) -> str:
    """A short name for the content of lists of texts."""
    return sha256(json.dumps(value).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Suite:
    """The same questions for every model, answered in `folder`. What is there is not computed again.

    Attributes:
        prompts: what is rendered; empty to render nothing.
        guidance_scales: every prompt is rendered at each.
        pairs: held-out pairs that the models judge.
        strata: see [`~diffusers_tpo.evaluation.error_matrix`], as are `repeats` and `seed`.
        retrieval_size: of how many images the own caption is sought among all of their captions; 0 for none.
        num_inference_steps: of the renders; `resolution` is their side in pixels, by default the model's own.
        batch_size: images in a batch, at most; four times as many rows where held-out pairs are judged.
        score_batch_size: images that a scorer gets at once.
    """

    folder: Path
    prompts: list[Prompt]
    guidance_scales: tuple[float, ...] = (1.0,)
    pairs: HeldOutPairs | None = None
    num_inference_steps: int = 30
    resolution: int | None = None
    images_per_prompt: int = 1
    batch_size: int = 8
    seed: int = 0
    strata: int = 8
    repeats: int = 1
    retrieval_size: int = 0
    score_batch_size: int = 64

    def settings(self) -> dict[str, object]:
        """All that an answer depends on, but for the model."""
        plain = ("num_inference_steps", "resolution", "images_per_prompt", "batch_size", "seed", "strata", "repeats")
        plain = {name: getattr(self, name) for name in (*plain, "retrieval_size", "score_batch_size")}
        pairs = None if self.pairs is None else self.pairs.content()
        return plain | {"prompts": text_hash([prompt.text for prompt in self.prompts]), "pairs": text_hash(pairs)}

    def begin(self, **others) -> None:
        """Keeps the settings, and `others` that answers depend on.

        Raises:
            UserError: if the folder holds answers under other settings.
        """
        keep_settings(self.folder / "settings.json", self.settings() | others, "output_dir")

    def images(self, model: str, scale: float) -> Path:
        return self.folder / "images" / model / f"guidance-{scale:g}"

    def scores(self, model: str, scale: float) -> Path:
        return self.folder / "scores" / model / f"guidance-{scale:g}"

    def errors(self, model: str) -> Path:
        return self.folder / "implicit" / f"{model}.safetensors"

    def is_answered(self, model: str) -> bool:
        """Whether nothing is left to ask the model itself; call it on every process, and all get the same answer."""
        jobs = [(index, number) for index in range(len(self.prompts)) for number in range(self.images_per_prompt)]
        answer = (self.pairs is None or self.errors(model).exists()) and all(
            image_path(self.images(model, scale), *job).exists() for scale in self.guidance_scales for job in jobs
        )
        PartialState().wait_for_everyone()  # before any process goes on and adds to it
        return answer

    def forget(self, model: str) -> None:
        """Removes all answers of a model; call it on every process."""
        if PartialState().is_main_process:
            for folder in ("images", "scores"):
                shutil.rmtree(self.folder / folder / model, ignore_errors=True)
            self.errors(model).unlink(missing_ok=True)
        PartialState().wait_for_everyone()

    def ask(self, model: str, pipe: DiffusionPipeline, scheduler: Scheduler, progress: bool = True) -> None:
        """Renders the prompts and judges the held-out pairs with one model; call it on every process.

        Args:
            model: its label, which names its folders.
            scheduler: the forward process that the model was trained with.
        """
        texts = [prompt.text for prompt in self.prompts]
        options = {"num_inference_steps": self.num_inference_steps}
        options |= {"height": self.resolution, "width": self.resolution} if self.resolution else {}
        for scale in self.guidance_scales if texts else ():
            label = f"{model}, guidance {scale:g}" if progress else None
            job = (self.images(model, scale), self.images_per_prompt, self.seed, self.batch_size, label)
            render_missing(pipe, texts, *job, guidance_scale=scale, **options)
        if self.pairs is not None and not self.errors(model).exists():
            tensors = self._judge_pairs(model, pipe, scheduler, progress)
            if PartialState().is_main_process:
                path = self.errors(model)
                path.parent.mkdir(parents=True, exist_ok=True)
                save_file({name: draws.contiguous() for name, draws in tensors.items()}, f"{path}.partial")
                os.replace(f"{path}.partial", path)
        PartialState().wait_for_everyone()

    def _judge_pairs(self, model: str, pipe: DiffusionPipeline, scheduler: Scheduler, progress: bool) -> dict:
        family = family_of(pipe)
        denoiser = getattr(pipe, family.denoiser)
        latents, sizes = self.pairs.encode(
            family, pipe, self.seed, self.batch_size, f"{model}, encoding" if progress else None
        )

        def draws(rows, prompts: list[list[str]], what: str):
            return error_matrix(
                family,
                pipe,
                denoiser,
                scheduler,
                latents[rows],
                sizes[rows],
                prompts,
                strata=self.strata,
                repeats=self.repeats,
                seed=self.seed,
                batch_size=4 * self.batch_size,
                progress=f"{model}, {what}" if progress else None,
            ).draws

        found = {"pairs": draws(slice(None), self.pairs.prompts, "held-out pairs")}
        if self.retrieval_size:
            rows = self.pairs.distinct(self.retrieval_size)
            captions = [self.pairs.prompts[row][0] for row in rows]
            found["retrieval"] = draws(rows, [captions] * len(rows), "retrieval")
        return found

    def score(self, models: list[str], name: str, scorer: Scorer, progress: bool = True) -> None:
        """Lets a scorer judge the images of all models that it has not judged; call it on every process."""
        texts = [prompt.text for prompt in self.prompts]
        for model in models:
            for scale in self.guidance_scales:
                label = f"{name}: {model}, guidance {scale:g}" if progress else None
                job = (self.images(model, scale), self.scores(model, scale), self.images_per_prompt)
                score_missing(scorer, name, texts, *job, self.score_batch_size, label)
        PartialState().wait_for_everyone()

    def results(self, models: list[str], kinds: dict[str, dict[str, str]]) -> Results:
        """All answers of the models; the first is what the others are compared with.

        Args:
            kinds: for the name of each scorer, the kind of each of its metrics.
        """
        captions = self.pairs.captions() if self.pairs is not None else []
        is_shared = captions == [prompt.text for prompt in self.prompts]
        results = Results(self.prompts, list(models), list(self.guidance_scales), shared=is_shared)
        shape, givers = (len(models), len(self.guidance_scales), len(self.prompts)), {}
        for name, metrics in kinds.items() if self.prompts else ():
            for metric, kind in metrics.items():
                results.kinds[metric], results.scores[metric] = kind, np.full(shape, np.nan)
            for m, model in enumerate(models):
                for g, scale in enumerate(self.guidance_scales):
                    job = (len(self.prompts), self.images_per_prompt, self.score_batch_size)
                    for metric, values in score_table(self.scores(model, scale), name, *job).items():
                        if givers.setdefault(metric, name) != name:
                            raise UserError(
                                f"scorers {givers[metric]} and {name} both give {metric!r}; leave one of them out"
                            )
                        results.kinds.setdefault(metric, "adherence")
                        results.scores.setdefault(metric, np.full(shape, np.nan))[m, g] = values
        first = None
        for model in models if self.pairs is not None else ():
            matrices = {name: ErrorMatrix(draws) for name, draws in load_file(self.errors(model)).items()}
            reference = first and first["pairs"]
            results.preference[model] = preference_values(matrices["pairs"], self.pairs.principles, reference)
            if self.retrieval_size:
                results.retrieval[model] = retrieval_accuracy(matrices["retrieval"])
                if first:
                    results.divergence[model] = prompt_divergence(matrices["retrieval"], first["retrieval"])
            first = first or matrices
        return results
