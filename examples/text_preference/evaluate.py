#!/usr/bin/env python
# /// script
# dependencies = ["diffusers_tpo[evaluate]"]
# ///
r"""Says whether models follow prompts better, at every guidance scale, and which checkpoint of a run is best.

    python evaluate.py --pretrained_model_name_or_path stable-diffusion-v1-5/stable-diffusion-v1-5 --models tpo=sd15-tpo \
        --prompts parti --scorers clip pickscore --guidance_scales 1 2 4 7.5 --pairs your-name/held-out --output_dir outputs/eval

It renders the prompts with every model, lets scorers judge the images and the models judge held-out pairs, and writes
results.json, report.html and plots. A stopped run goes on with the same command. README_evaluate.md in examples/text_preference
explains every group of flags.
"""

import dataclasses
import datetime
import logging
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import diffusers
import torch
from accelerate import Accelerator, PartialState

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.data.rows import Columns, load_rows
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.evaluation.choose import RULE, Choice, choose_best
from diffusers_tpo.evaluation.folder import claimed
from diffusers_tpo.evaluation.heldout import HeldOutPairs, held_out_pairs
from diffusers_tpo.evaluation.prompts import Prompt, load_prompts
from diffusers_tpo.evaluation.report import print_report, write_report
from diffusers_tpo.evaluation.results import Results, write_results
from diffusers_tpo.evaluation.scorers import Scorer, load_scorer, scorer_identity
from diffusers_tpo.evaluation.scorers.vlm import VLMJudge
from diffusers_tpo.evaluation.suite import OtherSettings, Suite
from diffusers_tpo.evaluation.summary import build_report
from diffusers_tpo.flags import AtLeastOne, NotNegativeNumber, Range, flag
from diffusers_tpo.guidance import GuideWith, why_not_guided
from diffusers_tpo.image_files import EMBEDDED, files_of
from diffusers_tpo.models.checkpoints import list_checkpoints
from diffusers_tpo.models.fingerprints import fingerprint
from diffusers_tpo.models.loading import (
    LoadedModel,
    NoReference,
    kind_of,
    load_model,
    recipe_of_model,
    recipe_of_reference,
    with_reference,
)
from diffusers_tpo.models.recipe import ModelRecipe
from diffusers_tpo.privacy import public_command, short_name
from diffusers_tpo.shapes.world import make_rows, make_scenes
from diffusers_tpo.versions import versions


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
BASE = "base"
BY_REFERENCE = "guided-by-reference/"  # before the label of a model that is sampled so

Few = Annotated[int, Range(at_least=1, at_most=1000)]
Many = Annotated[int, Range(at_least=1, at_most=1_000_000)]
Side = Annotated[int, Range(at_least=1, at_most=16_384)]
Seed = Annotated[int, Range(at_least=0, below=2**32)]


@dataclasses.dataclass
class ModelArguments:
    """Which models; the first is what the others are compared with."""

    pretrained_model_name_or_path: str | None = flag(None, "The base pipeline; evaluated first, under the label base.")
    models: list[str] = flag([], "Pipelines, LoRAs or checkpoints, on the Hub or disk, as source or label=source.")
    sweep: str | None = flag(None, "Output folder of a training run: all its checkpoints, and which is best.")
    revision: str | None = flag(None, "Revision of the base on the Hub; a checkpoint knows that of its own.")
    variant: str | None = flag(None, "Variant of its weight files, such as fp16.")
    prediction_type: Literal["epsilon", "v_prediction"] | None = flag(None, "If the scheduler's config is wrong.")
    dtype: Literal["float32", "float16", "bfloat16"] = flag("float32", "Precision of all models; VAEs stay float32.")


@dataclasses.dataclass
class PromptArguments:
    """What is rendered; without prompts, the captions of the held-out pairs."""

    prompts: str | None = flag(
        None, "parti, hpsv2, pickapic, open_image_preferences, shapes, a text file or a data set."
    )
    prompt_column: str | None = flag(None, "Column of the prompts in a data set.")
    category_column: str | None = flag(None, "Column of their categories.")
    prompts_config: str | None = flag(None, "Configuration of the data set.")
    prompts_split: str | None = flag(None, "Its split.")
    prompts_revision: str | None = flag(None, "Its revision.")
    num_prompts: Many = flag(500, "A random sample of so many.")


@dataclasses.dataclass
class RenderArguments:
    """How it is rendered."""

    guidance_scales: list[NotNegativeNumber] = flag([1.0, 2.0, 4.0, 7.5], "Every model is rendered at each of them.")
    num_inference_steps: Few = flag(30, "Sampling steps.")
    scheduler: str | None = flag(None, "Sampler, such as DPMSolverMultistepScheduler; the model's own by default.")
    resolution: Side | None = flag(None, "Side of the images in pixels; the model's own by default.")
    guide_with: Literal["model", "reference", "both"] = flag(
        "model", "Who answers the empty prompt of guidance: a model itself, what it was trained from, or each in turn."
    )
    images_per_prompt: Few = flag(1, "Each with its own seed.")
    batch_size: AtLeastOne = flag(32, "Images in a batch; halved until it fits into the GPU's memory.")
    seed: Seed = flag(0, "Seed of prompts, renders and held-out noise.")


@dataclasses.dataclass
class PairArguments:
    """Held-out pairs for the implicit preference: rows with mismatched prompts that no model was trained on."""

    pairs: str | None = flag(None, "Hub id or local folder of a text-preference data set, or shapes.")
    pairs_config: str | None = flag(None, "Its configuration.")
    pairs_split: str = flag("train", "Its split.")
    pairs_revision: str | None = flag(None, "Its revision.")
    num_pairs: Many = flag(500, "Use the first rows.")
    pairs_resolution: Side | None = flag(None, "Side of the images in pixels; resolution by default.")
    image_column: str = flag("image", "Column of the images.")
    caption_column: str = flag("prompt", "Column of the matched prompts.")
    negative_prompts_column: str = flag("negative_prompts", "Column of the lists of mismatched prompts.")
    principles_column: str = flag("principles", "Column of the lists of their principles.")
    strata: Few = flag(8, "Parts of the noise schedule ...")
    repeats: Few = flag(1, "... and draws in each of them, for every image.")
    retrieval_size: Annotated[int, Range(at_least=0, at_most=100_000)] = flag(
        0, "Also ask for so many images which of all their captions fits best; costs its square."
    )


@dataclasses.dataclass
class ScoreArguments:
    """Who judges the images, and by what the best checkpoint is chosen."""

    scorers: list[str] = flag(
        [], "clip, pickscore, hpsv2, hpsv3, imagereward, aesthetic, vlm, shapes, or module:function."
    )
    score_batch_size: AtLeastOne = flag(64, "Images that a scorer gets at once.")
    judge_model: str | None = flag(None, "Vision-language model of the scorer vlm.")
    judge_base_url: str = flag("http://localhost:8000/v1", "Its OpenAI-compatible endpoint.")
    judge_concurrency: Few = flag(16, "Requests at once.")
    question_model: str | None = flag(None, "Language model that writes its questions; the same by default.")
    questions_file: str | None = flag(None, "Questions to ask; written on the way, in output_dir by default.")
    api_key_env: str = flag("OPENAI_API_KEY", "Environment variable with the endpoint's key.")
    metric: str = flag(RULE, "Of --sweep: any metric, or rule: alignment up, matched error and quality not worse.")
    alignment_metric: str | None = flag(None, "By which the rule orders; the first score, or implicit/score_relative.")
    quality_metrics: list[str] = flag([], "Metrics that the rule does not let fall; all aesthetic scores by default.")


@dataclasses.dataclass
class RunArguments:
    """Where it goes."""

    output_dir: str = flag("evaluation", "Images, scores, results.json, report.html and plots.")
    title: str = flag("Evaluation", "Of the report.")
    cache_dir: str | None = flag(None, "Where downloads are kept.")
    hub_token: str | None = flag(None, "Unsafe on a shared machine; `hf auth login` is better. Never stored.")


GROUPS = (ModelArguments, PromptArguments, RenderArguments, PairArguments, ScoreArguments, RunArguments)


def main(
    model: ModelArguments,
    prompting: PromptArguments,
    rendering: RenderArguments,
    pairing: PairArguments,
    scoring: ScoreArguments,
    run: RunArguments,
) -> None:
    check_arguments(model, prompting, rendering, pairing, scoring)
    accelerator, output = Accelerator(), Path(run.output_dir)
    with claimed(output):
        # Who is asked, and what.
        checkpoints = find_checkpoints(model.sweep)
        sources = list_models(model, checkpoints, rendering.guide_with)
        pairs = load_pairs(pairing, rendering, run)
        prompts = choose_prompts(prompting, pairs, rendering.seed, run) if scoring.scorers else []
        suite = make_suite(output, prompts, pairs, rendering, pairing, scoring)
        suite.begin(scheduler=rendering.scheduler)

        # Scorers are loaded once to see that nothing is missing, and let go of while the models need the memory.
        kinds = {name: make_scorer(name, scoring, output, run).kinds for name in scoring.scorers}

        # Every model renders the prompts and judges the pairs.
        left_out = ask_models(suite, sources, model, rendering, run)
        labels = [label for label in sources if label not in left_out]

        # Every scorer judges the renders.
        failures = {}
        for name in scoring.scorers:
            scorer = make_scorer(name, scoring, output, run)
            suite.begin_scorer(name, identity_of(scorer, scoring))
            if isinstance(scorer, VLMJudge):
                texts = [prompt.text for prompt in prompts]
                scorer.write_questions(texts)
                suite.begin_questions(scorer.questions_about(texts))
                failures = scorer.failures
            suite.score(labels, name, scorer)

        # What comes of it.
        if accelerator.is_main_process:
            results = suite.results(labels, kinds)
            if labels[0] in results.faults:
                raise UserError(
                    f"the model {labels[0]!r}, which the others are compared with, cannot be judged: "
                    f"{results.faults[labels[0]]}; use another --dtype or model"
                )
            facts = {
                "date": datetime.date.today().isoformat(),
                "command": public_command(sys.argv, (run.hub_token,)),
                "models": ", ".join(f"{label} ({sources[label]})" for label in labels),
                "prompts": f"{len(prompts)} of {short_name(prompting.prompts or pairing.pairs)}"
                if prompts
                else "none",
                "renders": f"{rendering.images_per_prompt} per prompt, {rendering.num_inference_steps} steps, seed "
                f"{rendering.seed}",
                "versions": versions(),
            }
            warnings = [f"{label} is left out: {reason}" for label, reason in left_out.items()]
            warnings += [f"vlm: {reason} ({number} times)" for reason, number in failures.items()]
            swept = [label for label, source in sources.items() if source.is_swept]
            conclude(suite, results, swept, scoring, run, facts, warnings)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if accelerator.num_processes > 1:
        time.sleep(0.5)  # gloo's threads need Python's lock once more, or a CPU run can hang here


def check_arguments(
    model: ModelArguments,
    prompting: PromptArguments,
    rendering: RenderArguments,
    pairing: PairArguments,
    scoring: ScoreArguments,
) -> None:
    """Refuses flags that do not go together.

    Raises:
        UserError: naming them.
    """
    if not scoring.scorers and pairing.pairs is None:
        raise UserError("nothing would be measured; give --scorers, --pairs or both")
    if scoring.scorers and prompting.prompts is None and pairing.pairs is None:
        raise UserError("--scorers need something to render; give --prompts")
    for name, values in {"guidance_scales": rendering.guidance_scales, "scorers": scoring.scorers}.items():
        if len(set(values)) < len(values):
            raise UserError(f"--{name} must be distinct, got {' '.join(map(str, values))}")
    if not rendering.guidance_scales:
        raise UserError("--guidance_scales holds none; give at least one")
    if model.sweep and scoring.metric == RULE and not (model.pretrained_model_name_or_path and pairing.pairs):
        raise UserError(
            "--metric rule needs --pretrained_model_name_or_path and --pairs; give both, or another --metric"
        )
    if "vlm" in scoring.scorers and scoring.judge_model is None:
        raise UserError("the scorer vlm needs --judge_model, the name of a vision-language model at --judge_base_url")
    kind = getattr(diffusers, rendering.scheduler or "DDIMScheduler", None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise UserError(f"--scheduler must be a scheduler class of diffusers, got {rendering.scheduler!r}")


@dataclasses.dataclass(frozen=True)
class Source:
    """A model that is judged, and how it is sampled.

    Attributes:
        place: Hub id, folder or file.
        guide_with: who answers the empty prompt.
        is_swept: whether it is a checkpoint of the sweep.
    """

    place: str
    guide_with: GuideWith = "model"
    is_swept: bool = False

    def __str__(self) -> str:
        """For the report."""
        how = ", guided with its reference" if self.guide_with == "reference" else ""
        return short_name(self.place) + how


def list_models(model: ModelArguments, checkpoints: list[Path], guide_with: str) -> dict[str, Source]:
    """Sources by label, in the order of the report. The base is its own reference, and listed once.

    Raises:
        UserError: for a label that cannot be, or no model at all.
    """
    named = []
    if model.pretrained_model_name_or_path:
        named.append((BASE, model.pretrained_model_name_or_path))
    for text in model.models:
        label, _, source = ("", "", text) if Path(text).exists() else text.rpartition("=")
        named.append((label or short_name(source), source))
    named += [(path.name, str(path)) for path in checkpoints]
    swept = {str(path) for path in checkpoints}
    found: dict[str, Source] = {}
    for label, source in named:
        if label in found:
            raise UserError(f"--models has two entries called {label!r}; give one another name, as in other={source}")
        if not label or label.startswith(("/", ".")) or ".." in Path(label).parts or not label.isprintable():
            raise UserError(
                f"--models has the label {label!r}, which cannot be a folder; use letters, digits, - and /"
            )
        ways = ("model", "reference") if guide_with == "both" else (guide_with,)
        for way in ("model",) if label == BASE else ways:
            found[BY_REFERENCE * (way == "reference") + label] = Source(source, way, source in swept)
    if not found:
        raise UserError("there is no model to evaluate; give --pretrained_model_name_or_path, --models or --sweep")
    return found


def find_checkpoints(sweep: str | None) -> list[Path]:
    """The checkpoints of the sweep, oldest first; none without one.

    Raises:
        UserError: if the folder holds none.
    """
    checkpoints = [] if sweep is None else list_checkpoints(Path(sweep))
    if sweep is not None and not checkpoints:
        raise UserError(f"--sweep {sweep!r} holds no checkpoint; give the --output_dir of a training run")
    return checkpoints


def load_pairs(pairing: PairArguments, rendering: RenderArguments, run: RunArguments) -> HeldOutPairs | None:
    if pairing.pairs is None:
        return None
    if pairing.pairs == "shapes":
        rows = make_rows(make_scenes(pairing.num_pairs, rendering.seed, held_out=True), rendering.seed)
        files = EMBEDDED
    else:
        rows = load_rows(
            pairing.pairs,
            config=pairing.pairs_config,
            split=pairing.pairs_split,
            revision=pairing.pairs_revision,
            cache_dir=run.cache_dir,
            token=run.hub_token,
            argument="pairs",
        )
        files = files_of(pairing.pairs, run.hub_token)
    columns = Columns(
        image=pairing.image_column,
        prompt=pairing.caption_column,
        mismatched=pairing.negative_prompts_column,
        principles=pairing.principles_column,
    )
    resolution = pairing.pairs_resolution or rendering.resolution or 512
    return held_out_pairs(rows, columns, resolution, pairing.num_pairs, files)


def choose_prompts(
    prompting: PromptArguments, pairs: HeldOutPairs | None, seed: int, run: RunArguments
) -> list[Prompt]:
    """What is rendered."""
    if prompting.prompts is None:
        return [Prompt(caption) for caption in pairs.captions()]
    return load_prompts(
        prompting.prompts,
        prompt_column=prompting.prompt_column,
        category_column=prompting.category_column,
        config=prompting.prompts_config,
        split=prompting.prompts_split,
        revision=prompting.prompts_revision,
        num_prompts=prompting.num_prompts,
        seed=seed,
        cache_dir=run.cache_dir,
        token=run.hub_token,
    )


def make_suite(
    output: Path,
    prompts: list[Prompt],
    pairs: HeldOutPairs | None,
    rendering: RenderArguments,
    pairing: PairArguments,
    scoring: ScoreArguments,
) -> Suite:
    """All that every model is asked."""
    return Suite(
        output,
        prompts,
        tuple(rendering.guidance_scales),
        pairs,
        num_inference_steps=rendering.num_inference_steps,
        resolution=rendering.resolution,
        images_per_prompt=rendering.images_per_prompt,
        batch_size=rendering.batch_size,
        seed=rendering.seed,
        strata=pairing.strata,
        repeats=pairing.repeats,
        retrieval_size=pairing.retrieval_size,
        score_batch_size=scoring.score_batch_size,
    )


def make_scorer(name: str, scoring: ScoreArguments, output: Path, run: RunArguments) -> Scorer:
    if name != "vlm":
        return load_scorer(name, str(PartialState().device), run.cache_dir, run.hub_token)
    return VLMJudge(
        scoring.judge_model,
        Path(scoring.questions_file or output / "questions.jsonl"),
        base_urls=(scoring.judge_base_url,),
        api_key=os.environ.get(scoring.api_key_env),
        question_model=scoring.question_model,
        concurrency=scoring.judge_concurrency,
    )


def identity_of(scorer: Scorer, scoring: ScoreArguments) -> dict[str, object]:
    """All of a scorer that its answers depend on."""
    if not isinstance(scorer, VLMJudge):
        return scorer_identity(scorer)
    return {"model": scoring.judge_model, "questions": scoring.question_model, "base_url": scoring.judge_base_url}


def ask_models(
    suite: Suite,
    sources: dict[str, Source],
    model: ModelArguments,
    rendering: RenderArguments,
    run: RunArguments,
) -> dict[str, str]:
    """Lets every model answer what it has not answered yet.

    Returns:
        The checkpoints of the sweep that do not load, and why: they are left out. Any other model must load.
    """
    left_out, first = {}, next(iter(sources))
    for source in sources.values():
        if not source.is_swept:
            find_reference(source, model, run)  # what is refused is refused before anything is rendered
    for label, source in sources.items():
        try:
            reference = find_reference(source, model, run)
            suite.begin_model(label, model_identity(source, reference, model, run))
            loaded = None if suite.is_answered(label) else load(source.place, model, rendering, run)
        except UserError as error:
            if label == first or not source.is_swept or isinstance(error, OtherSettings | NoReference):
                raise
            left_out[label] = str(error)
            continue
        if loaded is not None:
            if rendering.guide_with != "model":
                loaded = load_reference(loaded, reference, source, run)
            suite.ask(label, loaded, guide_with=source.guide_with)
    return left_out


def find_reference(source: Source, model: ModelArguments, run: RunArguments) -> ModelRecipe | None:
    """What a model is guided with, if it is not itself; `None` also for a LoRA, which is switched off.

    Raises:
        NoReference: if nothing says what it was trained from.
    """
    if source.guide_with == "model":
        return None
    base = {"base": model.pretrained_model_name_or_path, "revision": model.revision, "variant": model.variant}
    return recipe_of_reference(source.place, **base, cache_dir=run.cache_dir, token=run.hub_token)


def load_reference(loaded: LoadedModel, recipe: ModelRecipe | None, source: Source, run: RunArguments) -> LoadedModel:
    """A model beside what it is guided with.

    Raises:
        NoReference: if that cannot be, such as for a model that is guided by distillation.
    """
    loaded, reason = with_reference(loaded, recipe, run.cache_dir, run.hub_token), None
    if not loaded.family.asks_empty_prompt(loaded.pipe):
        reason = why_not_guided(loaded.pipe)
    elif source.guide_with == "reference":
        reason = why_not_guided(loaded.pipe, loaded.reference)
    if reason:
        raise NoReference(
            f"--guide_with does not go with {short_name(source.place)!r}: {reason}; use --guide_with model"
        )
    return loaded


def told(source: str, model: ModelArguments, run: RunArguments) -> dict[str, object]:
    """What is said of a model besides its place: of another pipeline than the base, neither revision nor variant."""
    base, place = model.pretrained_model_name_or_path, {"cache_dir": run.cache_dir, "token": run.hub_token}
    is_other = source != base and kind_of(source, **place) == "pipeline"
    return {
        "base": base,
        "revision": None if is_other else model.revision,
        "variant": None if is_other else model.variant,
        "prediction_type": model.prediction_type,
        **place,
    }


def model_identity(
    source: Source, reference: ModelRecipe | None, model: ModelArguments, run: RunArguments
) -> dict[str, object]:
    """All of a model that its answers depend on: the content of weights, how they are loaded, and how they are sampled."""
    place = (run.cache_dir, run.hub_token)
    options = told(source.place, model, run)
    recipe = recipe_of_model(source.place, **options)
    weights = fingerprint(source.place, options["revision"], options["variant"], *place)
    identity = {**recipe.identity(*place), "weights": weights, "dtype": model.dtype}
    if source.guide_with == "model":
        return identity
    own = reference and fingerprint(reference.source, reference.revision, reference.variant, *place)
    return identity | {"guide_with": source.guide_with, "reference": own}


def load(source: str, model: ModelArguments, rendering: RenderArguments, run: RunArguments) -> LoadedModel:
    """One model as it was trained, with the sampler that is asked for."""
    loaded = load_model(source, dtype=DTYPES[model.dtype], **told(source, model, run))
    loaded.pipe.to(PartialState().device)
    if rendering.scheduler:
        loaded.pipe.scheduler = other_sampler(loaded.pipe.scheduler, rendering.scheduler)
    return loaded


def other_sampler(scheduler: diffusers.SchedulerMixin, name: str) -> diffusers.SchedulerMixin:
    """The sampler of this name with a model's noise schedule.

    Raises:
        UserError: if it would sample something else than the model predicts.
    """
    own, sampler = type(scheduler), getattr(diffusers, name)
    are_flows = own.__name__.startswith("FlowMatch") and name.startswith("FlowMatch")
    if sampler is not own and sampler not in scheduler.compatibles and not are_flows:
        fitting = ", ".join(sorted(kind.__name__ for kind in (own, *scheduler.compatibles)))
        raise UserError(f"--scheduler {name} does not go with the model's {own.__name__}; use one of {fitting}")
    return sampler.from_config(scheduler.config)


def conclude(
    suite: Suite,
    results: Results,
    swept: list[str],
    scoring: ScoreArguments,
    run: RunArguments,
    facts: dict[str, str],
    warnings: list[str],
) -> None:
    """Writes and prints the report.

    Raises:
        UserError: if the metric that chooses was not measured; the report is written all the same.
    """
    output, choice, wrong = Path(run.output_dir), None, None
    if swept:
        try:
            choice = choose(results, swept, scoring)
        except UserError as error:
            wrong = error
    about = {"about": facts, "settings": suite.settings(), "choice": choice and dataclasses.asdict(choice)}
    write_results(results, output / "results.json", about)
    report = build_report(suite, results, run.title, facts, choice, warnings)
    write_report(report, output)
    print_report(report)
    print(f"In {output}/: report.html, results.json, plots/, images/")
    if wrong is not None:
        raise wrong


def choose(results: Results, swept: list[str], scoring: ScoreArguments) -> Choice:
    """The best of the checkpoints that were judged."""
    return choose_best(
        {label: results.values(label) for label in swept if label in results.models},
        scoring.metric,
        results.values(BASE) if BASE in results.models else None,
        scoring.alignment_metric or next(iter(results.metrics("adherence")), "implicit/score_relative"),
        tuple(scoring.quality_metrics) or results.metrics("aesthetics"),
        broken=results.faults,
    )


if __name__ == "__main__":
    with exit_on_user_error():
        logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
        main(*parse_flags(*GROUPS, description=__doc__))
