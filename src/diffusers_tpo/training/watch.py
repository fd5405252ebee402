"""Judges a model while it trains and says which of its checkpoints is best. Knows nothing of losses or loops."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import torch

from ..data.rows import Columns
from ..errors import UserError
from ..evaluation.built_in_guidance import IMAGES, GuidanceAdvice
from ..evaluation.choose import LOWER_IS_BETTER, RULE, Choice, choose_best
from ..evaluation.compare import compare, mean_over_prompts, metric_interval
from ..evaluation.heldout import held_out_pairs
from ..evaluation.judged import Judged
from ..evaluation.prompts import Prompt
from ..evaluation.results import Results
from ..evaluation.scorers import load_scorer, scorer_identity
from ..evaluation.scorers.protocol import Scorer
from ..evaluation.suite import Suite
from ..flags import AtLeastOne, NotNegativeNumber, flag
from ..guidance import GuideWith
from ..image_files import EMBEDDED, ImageFiles
from ..privacy import public_name
from ..publish.model_card import Evaluation, Figure


BASE = "base"
LEGEND = (
    "`implicit/score` is the error under a mismatched prompt minus that under the caption, `implicit/accuracy` how often it is "
    "positive, which the noise of few draws pulls towards 1/2, `implicit/accuracy_corrected` an estimate without that noise; a "
    "reward is the base's error minus the model's."
)

GUIDANCE_LEGEND = (
    f"`guidance/built_in`, on the first {IMAGES} images at most, is what training changed, projected on the base's direction of "
    "guidance, `of_empty` the same of the empty prompt, `share` how much of the change lies along that direction."
)


@dataclass
class EvaluationConfig:
    """Judging the model on held-out pairs while it trains."""

    eval_steps: AtLeastOne | None = flag(None, "Optimizer steps between evaluations; never by default.")
    eval_dataset_name: str | None = flag(None, "Held-out pairs, with the same columns; the training data by default.")
    eval_split: str = flag("validation", "Their split.")
    max_eval_samples: AtLeastOne = flag(500, "Use only the first pairs.")
    eval_scorers: list[str] = flag([], "Render their captions too, and let these scorers of evaluate.py judge.")
    eval_guidance_scale: NotNegativeNumber = flag(4.0, "Guidance of these renders.")
    guide_with: Literal["model", "reference"] = flag(
        "model",
        "Who answers the empty prompt of these and the validation images: the model, or what it is trained from.",
    )
    eval_inference_steps: AtLeastOne = flag(30, "Sampling steps of these renders.")
    eval_batch_size: AtLeastOne = flag(
        32, "Images in a batch, of --validation_prompt too; halved until it fits into the GPU's memory."
    )
    load_best_model_at_end: bool = flag(False, "End with the best checkpoint instead of the last.")
    metric_for_best_model: str = flag("rule", "A metric, or rule: alignment up, matched error and quality not worse.")

    def __post_init__(self) -> None:
        if self.load_best_model_at_end and self.eval_steps is None:
            raise UserError("--load_best_model_at_end needs --eval_steps")


@dataclass
class CheckpointWatch:
    """The same questions for the base and for every checkpoint.

    Attributes:
        scorers: judge the renders, by name.
        metric: see [`~diffusers_tpo.evaluation.choose.choose_best`]. The rule orders by the first adherence score, or without
            scorers by `implicit/score_relative`, and lets no aesthetic score fall.
        dataset: where the pairs come from, a Hub id or local path; `split` is theirs, and `is_trained_on` says whether the
            training reads the same.
        guide_with: who answers the empty prompt of the renders.
        judged: labels of the checkpoints that have been judged, oldest first.
    """

    suite: Suite
    scorers: dict[str, Scorer] = field(default_factory=dict)
    metric: str = RULE
    dataset: str = ""
    split: str = ""
    is_trained_on: bool = False
    guide_with: GuideWith = "model"
    judged: list[str] = field(default_factory=list)

    def begin(self, model: Judged, step: int, identity: dict[str, object]) -> None:
        """Judges the base, before the first step; call it on every process.

        Args:
            model: whose weights are still the base's.
            step: from which the run goes on; what was asked of later checkpoints is forgotten.
            identity: of the base, all that its answers depend on.

        Raises:
            UserError: if the folder holds answers of another base or under other settings, the metric is none, or the base's
                own answers are no numbers.
        """
        others = {"guide_with": self.guide_with} if self.guide_with != "model" and self.scorers else {}
        self.suite.begin(**others)
        self.suite.begin_model(BASE, identity)
        for name, scorer in self.scorers.items():
            self.suite.begin_scorer(name, scorer_identity(scorer))
        labels = {
            int(path.stem.split("-")[1]): path.stem
            for path in self.suite.errors("").parent.glob("checkpoint-*.safetensors")
        }
        self.judged = [labels[number] for number in sorted(labels) if number <= step]
        self._ask(BASE, model)
        found = self.results([BASE])
        if BASE in found.faults:
            advice = "use another --mixed_precision or --resolution, or leave --eval_steps out"
            raise UserError(f"--pretrained_model_name_or_path cannot be judged: {found.faults[BASE]}; {advice}")
        known = found.values(BASE)
        if self.metric not in (RULE, *known) and not self.metric.startswith("reward/"):
            names = ", ".join(sorted(known))
            raise UserError(
                f"--metric_for_best_model must be {RULE}, reward/margin or one of {names}, got {self.metric!r}"
            )

    def _ask(self, label: str, model: Judged) -> None:
        """Asks what is not answered yet, and leaves the random numbers of the training as they were."""
        python_state, numpy_state = random.getstate(), np.random.get_state()
        with torch.random.fork_rng():
            self.suite.ask(label, model, progress=False, guide_with=self.guide_with)
            for name, scorer in self.scorers.items():
                self.suite.score([label], name, scorer, progress=False)
        random.setstate(python_state)
        np.random.set_state(numpy_state)

    def judge(self, label: str, model: Judged) -> dict[str, float]:
        """Judges the present weights as `label`; call it on every process.

        Returns:
            The mean of every metric, under `eval/<metric>`; one that is not finite is left out.
        """
        self.suite.forget(label)
        self._ask(label, model)
        self.judged = [name for name in self.judged if name != label] + [label]
        values = self.results([BASE, label]).values(label)
        means = {f"eval/{name}": float(mean_over_prompts(part)) for name, part in values.items()}
        return {name: mean for name, mean in means.items() if np.isfinite(mean)}

    def results(self, models: list[str]) -> Results:
        return self.suite.results(models, {name: scorer.kinds for name, scorer in self.scorers.items()})

    def choose(self) -> Choice:
        """The best checkpoint so far."""
        results = self.results([BASE, *self.judged])
        return choose_best(
            {name: results.values(name) for name in self.judged},
            self.metric,
            results.values(BASE),
            next(iter(results.metrics("adherence")), "implicit/score_relative"),
            results.metrics("aesthetics"),
            broken=results.faults,
        )

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
                old, gain = metric_interval(name, before[name]), compare(values, before[name]).difference
            figures.append(Figure(name, old, metric_interval(name, values), gain))
        advice = GuidanceAdvice.of(after, results.unguided.get(label, 1.0))
        note = self._note(set(after), results.faults.get(label), chosen is not None, advice)
        return chosen, choice.sentence(), Evaluation(note, self.dataset, self.split, label, figures)

    def _note(self, metrics: set[str], fault: str | None, is_chosen: bool, advice: GuidanceAdvice | None) -> str:
        """What the figures of a model are, what follows for its guidance, and what they are not."""
        suite, source = self.suite, public_name(self.dataset, "data set")
        assert suite.pairs is not None  # a watch always has some
        mismatched = sum(len(texts) - 1 for texts in suite.pairs.prompts)
        sentences = [
            f"{len(suite.pairs)} images of the split `{self.split}` of {source}, each under its own caption, and {mismatched} "
            f"mismatched prompts: denoising errors at {suite.strata * suite.repeats} timesteps, with the same noise for "
            f"every prompt and for the base (seed {suite.seed}). {LEGEND}"
        ]
        if self.scorers:
            sentences.append(
                f"{', '.join(self.scorers)}: one render of each caption, seed {suite.seed}, guidance "
                f"{suite.guidance_scales[0]:g}, {suite.num_inference_steps} steps, for the base too."
            )
            if self.guide_with == "reference":
                sentences.append("The base answered the empty prompt of their guidance.")
        else:
            sentences.append("No rendered image was judged.")
        sentences.append(
            "Means over images with 95 % bootstrap intervals; the difference from the base is paired by image."
        )
        if lower := sorted(metrics & set(LOWER_IS_BETTER)):
            sentences.append(f"Lower is better for {', '.join(lower)}.")
        if advice is not None:
            sentences.append(f"{GUIDANCE_LEGEND} {advice.sentence(suite.guidance_scales[0], is_measured=False)}")
        if fault is not None:
            sentences.append(f"**{fault[0].upper()}{fault[1:]}; the figures speak of the rest.**")
        if self.is_trained_on:
            sentences.append("**The model was trained on these images.**")
        if is_chosen:
            sentences.append("The checkpoint was chosen by these figures, so they flatter it.")
        return " ".join(sentences)


def make_watch(
    config: EvaluationConfig,
    rows: datasets.Dataset,
    columns: Columns,
    resolution: int,
    seed: int,
    folder: Path,
    device: str = "cpu",
    cache_dir: str | None = None,
    token: str | None = None,
    files: ImageFiles = EMBEDDED,
    **source: Any,
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
    return CheckpointWatch(
        suite, scorers, config.metric_for_best_model, split=config.eval_split, guide_with=config.guide_with, **source
    )
