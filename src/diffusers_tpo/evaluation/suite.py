"""What is asked of every model, and the folder where the answers lie: renders, scores, errors on held-out pairs."""

import json
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import UserError
from ..files import differences, publish_file, read_json, write_whole
from ..guidance import GuideWith, guided
from .built_in_guidance import IMAGES, Shifts, measure_shifts
from .heldout import HeldOutPairs
from .implicit import ErrorMatrix, error_matrix, preference_values, prompt_divergence, retrieval_accuracy
from .judged import Judged
from .prompts import Prompt
from .renders import is_rendered, marker_path, render_missing
from .results import Results
from .scorers.protocol import Scorer
from .scores import score_missing, score_table


SETTINGS = "settings.json"
GUIDANCE = "guidance"  # beside the errors of a model: what training changed, if its reference can be asked ...
UNGUIDED = "unguided"  # ... and the scale at which its pipeline is not guided


class OtherSettings(UserError):
    """A folder was begun with other settings, or by another model, than those it is to be filled with."""


def keep_settings(path: Path, settings: dict, what: str) -> None:
    """Keeps the settings that a folder is filled with.

    Raises:
        OtherSettings: if it was begun with others, naming them.
    """
    settings = json.loads(json.dumps(settings))  # as it will be read
    if path.exists():
        changed = differences(read_json(path), settings)
        if changed:
            advice = "use the same, or another --output_dir"
            raise OtherSettings(f"{what} was begun with other settings: {changed}; {advice}")
    elif PartialState().is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(settings, indent=1, sort_keys=True))
    PartialState().wait_for_everyone()


def digest(value: Any) -> str:
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
        """All that an answer depends on, but for the model; of texts and images a digest of their content."""
        names = ("num_inference_steps", "resolution", "images_per_prompt", "batch_size", "seed", "strata", "repeats")
        settings = {name: getattr(self, name) for name in (*names, "retrieval_size", "score_batch_size")}
        settings["prompts"] = digest([prompt.text for prompt in self.prompts])
        pairs = {} if self.pairs is None else self.pairs.content()
        return settings | {f"{part} of the pairs": digest(content) for part, content in pairs.items()}

    def begin(self, **others: object) -> None:
        """Keeps the settings, and `others` that answers depend on.

        Raises:
            UserError: if the folder holds answers under other settings.
        """
        keep_settings(self.folder / SETTINGS, self.settings() | others, "--output_dir")

    def begin_model(self, model: str, identity: dict[str, object]) -> None:
        """Keeps what a model is, before it is asked.

        Args:
            model: its label, which names its folders.
            identity: all of it that answers depend on, such as
                [`~diffusers_tpo.models.recipe.ModelRecipe.identity`]: content, and no path.

        Raises:
            UserError: if the folder holds answers of another model under this label.
        """
        keep_settings(self.folder / "models" / f"{model}.json", identity, f"the model {model!r}")

    def begin_scorer(self, name: str, identity: dict[str, object]) -> None:
        """Keeps what a scorer is, before it is asked; see [`~Suite.begin_model`]."""
        keep_settings(self.folder / "scorers" / f"{name.replace(':', '.')}.json", identity, f"the scorer {name!r}")

    def begin_questions(self, questions: dict[str, list[str]]) -> None:
        """Keeps what is asked about the images of each prompt, before it is asked; more prompts may come later.

        Raises:
            UserError: if other questions were asked about a prompt.
        """
        path = self.folder / "scorers" / "questions.json"
        known = read_json(path) if path.exists() else {}
        asked = {digest(prompt): digest(texts) for prompt, texts in questions.items()}
        if changed := sum(known.get(prompt, own) != own for prompt, own in asked.items()):
            raise UserError(
                f"--questions_file asks other questions about {changed} of the prompts than those that their images were judged "
                "by; use the same, or another --output_dir"
            )
        PartialState().wait_for_everyone()
        if PartialState().is_main_process:
            write_whole(path, json.dumps(known | asked, indent=1, sort_keys=True))
        PartialState().wait_for_everyone()

    def images(self, model: str, scale: float) -> Path:
        return self.folder / "images" / model / f"guidance-{scale:g}"

    def scores(self, model: str, scale: float) -> Path:
        return self.folder / "scores" / model / f"guidance-{scale:g}"

    def errors(self, model: str) -> Path:
        return self.folder / "implicit" / f"{model}.safetensors"

    def jobs(self) -> list[tuple[int, int]]:
        """Prompt and number of every image of a model at one guidance scale."""
        return [(index, number) for index in range(len(self.prompts)) for number in range(self.images_per_prompt)]

    def is_answered(self, model: str) -> bool:
        """Whether nothing is left to ask the model itself; call it on every process, and all get the same answer."""
        answer = (self.pairs is None or self.errors(model).exists()) and all(
            is_rendered(self.images(model, scale), *job) for scale in self.guidance_scales for job in self.jobs()
        )
        PartialState().wait_for_everyone()  # before any process goes on and adds to it
        return answer

    def fault(self, model: str) -> str | None:
        """What of a model's answers is no number, so that its figures speak of the rest only; `None` if all are."""
        parts = []
        marks = [marker_path(self.images(model, scale), *job) for scale in self.guidance_scales for job in self.jobs()]
        if broken := sum(mark.exists() for mark in marks):
            parts.append(f"{broken} of {len(marks)} images")
        if self.pairs is not None:
            answers = load_file(self.errors(model))
            draws = torch.cat([draws.flatten() for name, draws in answers.items() if name not in (GUIDANCE, UNGUIDED)])
            if broken := int(draws.isinf().sum()):
                parts.append(f"{broken} of {int((~draws.isnan()).sum())} denoising errors")
        return f"{' and '.join(parts)} of it are not finite numbers" if parts else None

    def forget(self, model: str) -> None:
        """Removes all answers of a model; call it on every process."""
        if PartialState().is_main_process:
            for folder in ("images", "scores"):
                shutil.rmtree(self.folder / folder / model, ignore_errors=True)
            self.errors(model).unlink(missing_ok=True)
        PartialState().wait_for_everyone()

    def ask(self, label: str, model: Judged, progress: bool = True, guide_with: GuideWith = "model") -> None:
        """Renders the prompts and judges the held-out pairs with one model; call it on every process.

        Args:
            label: of the model, which names its folders.
            guide_with: who answers the empty prompt of the renders, see [`~diffusers_tpo.guidance.guide_with_reference`].
        """
        with guided(model.pipe, guide_with, model.reference):
            self._render(label, model, progress)
        if self.pairs is not None and not self.errors(label).exists():
            draws = self._judge_pairs(self.pairs, label, model, progress)
            if PartialState().is_main_process:
                path = self.errors(label)
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f"{path.name}.partial")
                save_file({name: part.contiguous() for name, part in draws.items()}, partial)
                publish_file(partial, path)
        PartialState().wait_for_everyone()

    def _render(self, label: str, model: Judged, progress: bool) -> None:
        size = {} if self.resolution is None else {"height": self.resolution, "width": self.resolution}
        for scale in self.guidance_scales if self.prompts else ():
            render_missing(
                model.pipe,
                [prompt.text for prompt in self.prompts],
                self.images(label, scale),
                images_per_prompt=self.images_per_prompt,
                seed=self.seed,
                batch_size=self.batch_size,
                progress=f"{label}, guidance {scale:g}" if progress else None,
                family=model.family,
                guidance_scale=scale,
                num_inference_steps=self.num_inference_steps,
                **size,
            )

    def _judge_pairs(self, pairs: HeldOutPairs, label: str, model: Judged, progress: bool) -> dict[str, Tensor]:
        """The draws of the model's error matrices, of the held-out pairs and of the captions among one another, and on the first
        pairs the shift from its reference, if that can be asked."""
        what = f"{label}, encoding" if progress else None
        latents, sizes = pairs.encode(model.family, model.pipe, self.seed, self.batch_size, what)

        def draws(rows: slice | list[int], prompts: list[list[str]], what: str) -> Tensor:
            return error_matrix(
                model.family,
                model.pipe,
                getattr(model.pipe, model.family.denoiser),
                model.scheduler,
                latents[rows],
                sizes[rows],
                prompts,
                strata=self.strata,
                repeats=self.repeats,
                seed=self.seed,
                batch_size=4 * self.batch_size,
                progress=f"{label}, {what}" if progress else None,
            ).draws

        found = {"pairs": draws(slice(None), pairs.prompts, "held-out pairs")}
        if self.retrieval_size:
            rows = pairs.distinct(self.retrieval_size)
            captions = [pairs.prompts[row][0] for row in rows]
            found["retrieval"] = draws(rows, [captions] * len(rows), "retrieval")
        if model.knows_reference and model.family.asks_empty_prompt(model.pipe):
            found[UNGUIDED] = torch.tensor(model.family.unguided)
            found[GUIDANCE] = measure_shifts(
                model,
                latents[:IMAGES],
                sizes[:IMAGES],
                pairs.prompts[:IMAGES],
                strata=self.strata,
                seed=self.seed,
                batch_size=4 * self.batch_size,
                progress=f"{label}, built-in guidance" if progress else None,
            ).products
        return found

    def score(self, models: list[str], name: str, scorer: Scorer, progress: bool = True) -> None:
        """Lets a scorer judge the images of all models that it has not judged; call it on every process."""
        for model in models:
            for scale in self.guidance_scales:
                score_missing(
                    scorer,
                    name,
                    [prompt.text for prompt in self.prompts],
                    self.images(model, scale),
                    self.scores(model, scale),
                    self.images_per_prompt,
                    self.score_batch_size,
                    progress=f"{name}: {model}, guidance {scale:g}" if progress else None,
                )
        PartialState().wait_for_everyone()

    def results(self, models: list[str], kinds: dict[str, dict[str, str]]) -> Results:
        """All answers of the models; the first is what the others are compared with.

        Args:
            kinds: for the name of each scorer, the kind of each of its metrics.

        Raises:
            UserError: if two scorers give the same metric.
        """
        captions = self.pairs.captions() if self.pairs is not None else []
        is_shared = captions == [prompt.text for prompt in self.prompts]
        results = Results(self.prompts, list(models), list(self.guidance_scales), shared=is_shared)
        for model in models:
            if (fault := self.fault(model)) is not None:
                results.faults[model] = fault
        if self.prompts:
            self._add_scores(results, kinds)
        if self.pairs is not None:
            self._add_preferences(results, self.pairs)
        return results

    def _add_scores(self, results: Results, kinds: dict[str, dict[str, str]]) -> None:
        shape = (len(results.models), len(self.guidance_scales), len(self.prompts))
        givers: dict[str, str] = {}
        for name, metrics in kinds.items():
            for metric, kind in metrics.items():
                results.kinds[metric] = kind
                results.scores[metric] = np.full(shape, np.nan)
            for m, model in enumerate(results.models):
                for g, scale in enumerate(self.guidance_scales):
                    table = score_table(
                        self.scores(model, scale),
                        name,
                        len(self.prompts),
                        self.images_per_prompt,
                        self.score_batch_size,
                    )
                    for metric, values in table.items():
                        if givers.setdefault(metric, name) != name:
                            both = f"{givers[metric]} and {name}"
                            raise UserError(f"--scorers {both} both give {metric!r}; leave one of them out")
                        results.kinds.setdefault(metric, "adherence")
                        results.scores.setdefault(metric, np.full(shape, np.nan))[m, g] = values

    def _add_preferences(self, results: Results, pairs: HeldOutPairs) -> None:
        first = None
        for model in results.models:
            answers = load_file(self.errors(model))
            shifts, unguided = answers.pop(GUIDANCE, None), answers.pop(UNGUIDED, None)
            matrices = {name: ErrorMatrix(draws).finite() for name, draws in answers.items()}
            reference = first["pairs"] if first else None
            results.preference[model] = preference_values(matrices["pairs"], pairs.principles, reference)
            if shifts is not None and unguided is not None:
                results.unguided[model] = float(unguided)
                results.preference[model] |= Shifts(shifts).values(pairs.principles, len(pairs))
            if self.retrieval_size:
                results.retrieval[model] = retrieval_accuracy(matrices["retrieval"])
                if first:
                    results.divergence[model] = prompt_divergence(matrices["retrieval"], first["retrieval"])
            first = first or matrices
