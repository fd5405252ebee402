"""Judges a model while it trains and says which of its checkpoints is best. Knows nothing of losses or loops."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline

from ..data.rows import Columns
from ..errors import UserError
from ..evaluation.choose import LOWER_IS_BETTER, RULE, Choice, choose_best
from ..evaluation.compare import compare, mean_over_prompts
from ..evaluation.heldout import held_out_pairs
from ..evaluation.prompts import Prompt
from ..evaluation.results import Results
from ..evaluation.scorers import load_scorer
from ..evaluation.scorers.protocol import Scorer
from ..evaluation.suite import Suite
from ..image_files import EMBEDDED, ImageFiles
from ..intervals import bootstrap_interval
from ..noising import Scheduler
from ..privacy import public_name
from ..publish.model_card import Evaluation, Figure


BASE = "base"
LEGEND = (
    "`implicit/score` is the error under a mismatched prompt minus that under the caption, `implicit/accuracy` how often it is "
    "positive; a reward is the base's error minus the model's."
)


def _flag(default, help: str):
    return field(default=default, metadata={"help": help})


@dataclass
class EvaluationConfig:
    """How a model is judged on held-out pairs while it trains."""

    eval_steps: int | None = _flag(None, "Optimizer steps between evaluations; never by default.")
    eval_dataset_name: str | None = _flag(None, "Held-out pairs, with the same columns; the training data by default.")
    eval_split: str = _flag("validation", "Their split.")
    max_eval_samples: int = _flag(500, "Use only the first pairs.")
    eval_scorers: list[str] = field(
        default_factory=list,
        metadata={"help": "Render their captions too, and let these scorers of evaluate.py judge."},
    )
    eval_guidance_scale: float = _flag(4.0, "Guidance of these renders.")
    eval_inference_steps: int = _flag(30, "Sampling steps of these renders.")
    eval_batch_size: int = _flag(
        32, "Images in a batch, of --validation_prompt too; halved until it fits into the GPU's memory."
    )
    load_best_model_at_end: bool = _flag(False, "End with the best checkpoint instead of the last.")
    metric_for_best_model: str = _flag("rule", "A metric, or rule: alignment up, matched error and quality not worse.")

    def __post_init__(self):
        for name in ("eval_steps", "max_eval_samples", "eval_inference_steps", "eval_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        if self.load_best_model_at_end and self.eval_steps is None:
            raise UserError("load_best_model_at_end needs --eval_steps")


@dataclass
class CheckpointWatch:
    """The same questions for the base and for every checkpoint.

    Attributes:
        scorers: judge the renders, by name.
        metric: see [`~diffusers_tpo.evaluation.choose.choose_best`]. The rule orders by the first adherence score, or without
            scorers by `implicit/score_relative`, and lets no aesthetic score fall.
        dataset: where the pairs come from, a Hub id or local path; `split` is theirs, and `is_trained_on` says whether the
            training reads the same.
        judged: labels of the checkpoints that have been judged, oldest first.
    """

    suite: Suite
    scorers: dict[str, Scorer] = field(default_factory=dict)
    metric: str = "rule"
    dataset: str = ""
    split: str = ""
    is_trained_on: bool = False
    judged: list[str] = field(default_factory=list)

    def begin(self, pipe: DiffusionPipeline, scheduler: Scheduler, step: int, base: str = "") -> None:
        """Judges the base, before the first step; call it on every process.

        Args:
            step: from which the run goes on; what was asked of later checkpoints is forgotten.
            base: changes when the base does.

        Raises:
            UserError: if the folder holds answers under other settings, or the metric is none.
        """
        self.suite.begin(base=base)
        labels = {
            int(path.stem.split("-")[1]): path.stem
            for path in self.suite.errors("").parent.glob("checkpoint-*.safetensors")
        }
        self.judged = [labels[number] for number in sorted(labels) if number <= step]
        self._ask(BASE, pipe, scheduler)
        known = self.results([BASE]).values(BASE)
        if self.metric not in (RULE, *known) and not self.metric.startswith("reward/"):
            names = ", ".join(sorted(known))
            raise UserError(
                f"metric_for_best_model must be {RULE}, reward/margin or one of {names}, got {self.metric!r}"
            )

    def _ask(self, label: str, pipe: DiffusionPipeline, scheduler: Scheduler) -> None:
        """Asks what is not answered yet, and leaves the random numbers of the training as they were."""
        python_state, numpy_state = random.getstate(), np.random.get_state()
        with torch.random.fork_rng():
            self.suite.ask(label, pipe, scheduler, progress=False)
            for name, scorer in self.scorers.items():
                self.suite.score([label], name, scorer, progress=False)
        random.setstate(python_state)
        np.random.set_state(numpy_state)

    def judge(self, label: str, pipe: DiffusionPipeline, scheduler: Scheduler) -> dict[str, float]:
        """Judges the present weights as `label`; call it on every process.

        Returns:
            The mean of every metric, under `eval/<metric>`.
        """
        self.suite.forget(label)
        self._ask(label, pipe, scheduler)
        self.judged = [name for name in self.judged if name != label] + [label]
        values = self.results([BASE, label]).values(label)
        means = {f"eval/{name}": float(mean_over_prompts(part)) for name, part in values.items()}
        return {name: mean for name, mean in means.items() if np.isfinite(mean)}

    def results(self, models: list[str]) -> Results:
        return self.suite.results(models, {name: scorer.kinds for name, scorer in self.scorers.items()})

    def choose(self) -> Choice:
        """The best checkpoint so far."""
        results = self.results([BASE, *self.judged])
        kinds = results.kinds.items()
        alignment = next((name for name, kind in kinds if kind == "adherence"), "implicit/score_relative")
        quality = tuple(name for name, kind in kinds if kind == "aesthetics")
        values = {name: results.values(name) for name in self.judged}
        return choose_best(values, self.metric, results.values(BASE), alignment, quality)

    def best(self) -> str | None:
        """Name of the best checkpoint so far; `None` if there is none that the rule admits."""
        return self.choose().best if self.judged else None

    def conclude(self, load_best: bool) -> tuple[str | None, str, Evaluation]:
        """The end of a run.

        Returns:
            The checkpoint to end with, `None` to keep the last weights; the choice in words; what the card says.
        """
        choice = self.choose()
        chosen = choice.best if load_best else None
        label = chosen or self.judged[-1]
        results = self.results([BASE, label])
        before, after = results.values(BASE), results.values(label)
        figures = []
        for name, values in after.items():
            old, gain = None, None
            if name in before:
                old, gain = bootstrap_interval(before[name]), compare(values, before[name]).difference
            figures.append(Figure(name, old, bootstrap_interval(values), gain))
        note = self._note(set(after), is_chosen=chosen is not None)
        return chosen, choice.sentence(), Evaluation(note, self.dataset, self.split, label, figures)

    def _note(self, metrics: set[str], is_chosen: bool) -> str:
        """What the figures are, and what they are not."""
        suite, source = self.suite, public_name(self.dataset, "data set")
        prompts = sum(len(texts) - 1 for texts in suite.pairs.prompts)
        parts = [
            f"{len(suite.pairs)} images of the split `{self.split}` of {source}, each under its own caption, and {prompts}"
        ]
        parts += [
            f"mismatched prompts: denoising errors at {suite.strata * suite.repeats} timesteps, with the same noise for"
        ]
        parts += [f"every prompt and for the base (seed {suite.seed}). {LEGEND}"]
        if self.scorers:
            parts += [f"{', '.join(self.scorers)}: one render of each caption, seed {suite.seed}, guidance"]
            parts += [f"{suite.guidance_scales[0]:g}, {suite.num_inference_steps} steps, for the base too."]
        parts += [] if self.scorers else ["No rendered image was judged."]
        parts += ["Means over images with 95 % bootstrap intervals; the difference from the base is paired by image."]
        parts += (
            [f"Lower is better for {', '.join(lower)}."] if (lower := sorted(metrics & set(LOWER_IS_BETTER))) else []
        )
        parts += ["**The model was trained on these images.**"] if self.is_trained_on else []
        parts += ["The checkpoint was chosen by these figures, so they flatter it."] if is_chosen else []
        return " ".join(parts)


def make_watch(
    config: EvaluationConfig,
    rows,
    columns: Columns,
    resolution: int,
    seed: int,
    folder: Path,
    device: str = "cpu",
    cache_dir: str | None = None,
    token: str | None = None,
    files: ImageFiles = EMBEDDED,
    **source,
) -> CheckpointWatch:
    """Asks every checkpoint about the held-out pairs in `rows`, and answers in `folder`.

    Args:
        files: that the images in `rows` may name.
        source: `dataset` and `is_trained_on` of a [`CheckpointWatch`].

    Raises:
        UserError: for a wrong row or scorer.
    """
    pairs = held_out_pairs(rows, columns, resolution, config.max_eval_samples, files)
    suite = Suite(
        folder,
        [Prompt(caption) for caption in pairs.captions()] if config.eval_scorers else [],
        (config.eval_guidance_scale,),
        pairs,
        num_inference_steps=config.eval_inference_steps,
        resolution=resolution,
        batch_size=config.eval_batch_size,
        seed=seed,
    )
    scorers = {name: load_scorer(name, device, cache_dir, token) for name in config.eval_scorers}
    return CheckpointWatch(suite, scorers, config.metric_for_best_model, split=config.eval_split, **source)
