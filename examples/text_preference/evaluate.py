#!/usr/bin/env python
# /// script
# dependencies = ["diffusers_tpo[evaluate]"]
# ///
"""Says whether models follow prompts better, at every guidance scale, and which checkpoint of a run is best.

    python evaluate.py --pretrained_model_name_or_path stable-diffusion-v1-5/stable-diffusion-v1-5 --models tpo=sd15-tpo \
        --prompts parti --scorers clip pickscore --guidance_scales 1 2 4 7.5 --pairs your-name/held-out --output_dir outputs/eval

It renders the prompts with every model, lets scorers judge the images and the models judge held-out pairs, and writes
results.json, report.html and plots. A stopped run goes on with the same command. README_evaluate.md explains every group of flags.
"""

import datetime
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import diffusers
import torch
from accelerate import Accelerator, PartialState
from transformers import HfArgumentParser

from diffusers_tpo.data.rows import Columns, load_rows
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.evaluation.choose import Choice, choose_best
from diffusers_tpo.evaluation.heldout import HeldOutPairs, held_out_pairs
from diffusers_tpo.evaluation.prompts import Prompt, load_prompts
from diffusers_tpo.evaluation.report import print_report, write_report
from diffusers_tpo.evaluation.results import Results, write_results
from diffusers_tpo.evaluation.scorers import load_scorer
from diffusers_tpo.evaluation.scorers.vlm import VLMJudge
from diffusers_tpo.evaluation.suite import Suite, keep_settings
from diffusers_tpo.evaluation.summary import build_report
from diffusers_tpo.files import make_folder
from diffusers_tpo.image_files import EMBEDDED, files_of
from diffusers_tpo.models.checkpoints import list_checkpoints
from diffusers_tpo.models.fingerprints import fingerprint
from diffusers_tpo.models.loading import kind_of, load_model
from diffusers_tpo.privacy import public_command, short_name
from diffusers_tpo.shapes.world import make_rows, make_scenes
from diffusers_tpo.versions import versions


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def flag(default, help: str):
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class ModelArguments:
    """Which models; the first is what the others are compared with."""

    pretrained_model_name_or_path: str | None = flag(None, "The base pipeline; evaluated first, under the label base.")
    models: list[str] = flag([], "Pipelines, LoRAs or checkpoints, on the Hub or disk, as source or label=source.")
    sweep: str | None = flag(None, "Output folder of a training run: all its checkpoints, and which is best.")
    revision: str | None = flag(None, "Revision of the base on the Hub.")
    variant: str | None = flag(None, "Variant of its weight files, such as fp16.")
    prediction_type: Literal["epsilon", "v_prediction"] | None = flag(None, "If the scheduler's config is wrong.")
    dtype: Literal[tuple(DTYPES)] = flag("float32", "Precision of all models.")


@dataclass
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
    num_prompts: int = flag(500, "A random sample of so many.")


@dataclass
class RenderArguments:
    """How it is rendered."""

    guidance_scales: list[float] = flag([1.0, 2.0, 4.0, 7.5], "Every model is rendered at each of them.")
    num_inference_steps: int = flag(30, "Sampling steps.")
    scheduler: str | None = flag(None, "Sampler, such as DPMSolverMultistepScheduler; the model's own by default.")
    resolution: int | None = flag(None, "Side of the images in pixels; the model's own by default.")
    images_per_prompt: int = flag(1, "Each with its own seed.")
    batch_size: int = flag(32, "Images in a batch; halved until it fits into the GPU's memory.")
    seed: int = flag(0, "Seed of prompts, renders and held-out noise.")


@dataclass
class PairArguments:
    """Held-out pairs for the implicit preference: rows with mismatched prompts that no model was trained on."""

    pairs: str | None = flag(None, "Hub id or local folder of a text-preference data set, or shapes.")
    pairs_config: str | None = flag(None, "Its configuration.")
    pairs_split: str = flag("train", "Its split.")
    pairs_revision: str | None = flag(None, "Its revision.")
    num_pairs: int = flag(500, "Use the first rows.")
    pairs_resolution: int | None = flag(None, "Side of the images in pixels; resolution by default.")
    image_column: str = flag("image", "Column of the images.")
    caption_column: str = flag("prompt", "Column of the matched prompts.")
    negative_prompts_column: str = flag("negative_prompts", "Column of the lists of mismatched prompts.")
    principles_column: str = flag("principles", "Column of the lists of their principles.")
    strata: int = flag(8, "Parts of the noise schedule ...")
    repeats: int = flag(1, "... and draws in each of them, for every image.")
    retrieval_size: int = flag(0, "Also find the own caption of so many images among all of them; costs its square.")


@dataclass
class ScoreArguments:
    """Who judges the images, and by what the best checkpoint is chosen."""

    scorers: list[str] = flag(
        [], "clip, pickscore, hpsv2, hpsv3, imagereward, aesthetic, vlm, shapes, or module:function."
    )
    score_batch_size: int = flag(64, "Images that a scorer gets at once.")
    judge_model: str | None = flag(None, "Vision-language model of the scorer vlm.")
    judge_base_url: str = flag("http://localhost:8000/v1", "Its OpenAI-compatible endpoint.")
    judge_concurrency: int = flag(16, "Requests at once.")
    question_model: str | None = flag(None, "Language model that writes its questions; the same by default.")
    questions_file: str | None = flag(None, "Questions to ask; written on the way, in output_dir by default.")
    api_key_env: str = flag("OPENAI_API_KEY", "Environment variable with the endpoint's key.")
    metric: str = flag("rule", "Of --sweep: any metric, or rule: alignment up, matched error and quality not worse.")
    alignment_metric: str | None = flag(None, "By which the rule orders; the first score, or implicit/score_relative.")
    quality_metrics: list[str] = flag([], "Metrics that the rule does not let fall; all aesthetic scores by default.")


@dataclass
class RunArguments:
    """Where it goes."""

    output_dir: str = flag("evaluation", "Images, scores, results.json, report.html and plots.")
    title: str = flag("Evaluation", "Of the report.")
    cache_dir: str | None = flag(None, "Where downloads are kept.")
    hub_token: str | None = flag(None, "Unsafe on a shared machine; `hf auth login` is better. Never stored.")


def list_models(args: ModelArguments) -> dict[str, str]:
    """Sources by label, in the order of the report."""
    found = {}
    if args.pretrained_model_name_or_path:
        found["base"] = args.pretrained_model_name_or_path
    parts = [("", "", name) if Path(name).exists() else name.rpartition("=") for name in args.models]
    named = [(label or short_name(source), source) for label, _, source in parts]
    if args.sweep:
        checkpoints = list_checkpoints(Path(args.sweep))
        if not checkpoints:
            raise UserError(f"sweep {args.sweep!r} holds no checkpoint; give the output_dir of a training run")
        named += [(path.name, str(path)) for path in checkpoints]
    for label, source in named:
        if label in found:
            raise UserError(f"models has two entries called {label!r}; give one another name, as in other={source}")
        if label.startswith(("/", ".")) or ".." in Path(label).parts:
            raise UserError(f"models has the label {label!r}, which cannot be a folder; use letters, digits, - and /")
        found[label] = source
    if not found:
        raise UserError("there is no model to evaluate; give --pretrained_model_name_or_path, --models or --sweep")
    return found


def load_pairs(args: PairArguments, resolution: int | None, seed: int, run: RunArguments) -> HeldOutPairs | None:
    if args.pairs is None:
        return None
    if args.pairs == "shapes":
        rows, files = make_rows(make_scenes(args.num_pairs, seed, held_out=True), seed), EMBEDDED
    else:
        source = {"config": args.pairs_config, "split": args.pairs_split, "revision": args.pairs_revision}
        rows = load_rows(args.pairs, **source, cache_dir=run.cache_dir, token=run.hub_token, argument="pairs")
        files = files_of(args.pairs, run.hub_token)
    columns = Columns(args.image_column, args.caption_column, args.negative_prompts_column, args.principles_column)
    return held_out_pairs(rows, columns, args.pairs_resolution or resolution or 512, args.num_pairs, files)


def check_arguments(model: ModelArguments, prompts: PromptArguments, renders: RenderArguments, pairs, scores):
    counts = {"num_inference_steps": renders.num_inference_steps, "images_per_prompt": renders.images_per_prompt}
    counts |= {"batch_size": renders.batch_size, "score_batch_size": scores.score_batch_size}
    counts |= {"num_prompts": prompts.num_prompts, "num_pairs": pairs.num_pairs}
    counts |= {"strata": pairs.strata, "repeats": pairs.repeats}
    counts |= {"resolution": renders.resolution or 512, "pairs_resolution": pairs.pairs_resolution or 512}
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if not scores.scorers and pairs.pairs is None:
        raise UserError("nothing would be measured; give --scorers, --pairs or both")
    if scores.scorers and prompts.prompts is None and pairs.pairs is None:
        raise UserError("scorers need something to render; give --prompts")
    if len(set(renders.guidance_scales)) < len(renders.guidance_scales) or not all(
        scale >= 0 for scale in renders.guidance_scales
    ):
        raise UserError(f"guidance_scales must be distinct and not negative, got {renders.guidance_scales}")
    if model.sweep and scores.metric == "rule" and not (model.pretrained_model_name_or_path and pairs.pairs):
        raise UserError(
            "metric rule needs --pretrained_model_name_or_path and --pairs; give both, or another --metric"
        )
    if "vlm" in scores.scorers and scores.judge_model is None:
        raise UserError("the scorer vlm needs --judge_model, the name of a vision-language model at --judge_base_url")
    if pairs.retrieval_size < 0:
        raise UserError(f"retrieval_size must not be negative, got {pairs.retrieval_size}")
    kind = getattr(diffusers, renders.scheduler or "DDIMScheduler", None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise UserError(f"scheduler must be a scheduler class of diffusers, got {renders.scheduler!r}")


def make_scorer(name: str, scores: ScoreArguments, output: Path, run: RunArguments):
    if name != "vlm":
        return load_scorer(name, str(PartialState().device), run.cache_dir, run.hub_token)
    questions = Path(scores.questions_file or output / "questions.jsonl")
    options = {"question_model": scores.question_model, "concurrency": scores.judge_concurrency}
    options |= {"api_key": os.environ.get(scores.api_key_env)}
    return VLMJudge(scores.judge_model, questions, base_urls=(scores.judge_base_url,), **options)


def load(source: str, model: ModelArguments, renders: RenderArguments, run: RunArguments):
    """One model, ready to render and to judge, and the forward process that it was trained with."""
    base = model.pretrained_model_name_or_path
    options = {"dtype": DTYPES[model.dtype], "cache_dir": run.cache_dir, "token": run.hub_token}
    if source == base or kind_of(source, run.cache_dir, run.hub_token) != "pipeline":  # of a LoRA, the base's
        options |= {"revision": model.revision, "variant": model.variant}
    loaded = load_model(source, base, prediction_type=model.prediction_type, **options)
    pipe, forward = loaded.pipe.to(PartialState().device), loaded.scheduler
    if renders.scheduler:
        pipe.scheduler = getattr(diffusers, renders.scheduler).from_config(pipe.scheduler.config)
    return pipe, forward


def choose(results: Results, labels: list[str], base: str | None, scores: ScoreArguments) -> Choice:
    """The best of the checkpoints."""
    adherence = [metric for metric, kind in results.kinds.items() if kind == "adherence"]
    quality = [metric for metric, kind in results.kinds.items() if kind == "aesthetics"]
    alignment = scores.alignment_metric or next(iter(adherence), "implicit/score_relative")
    values = {label: results.values(label) for label in labels}
    base_values = None if base is None else results.values(base)
    return choose_best(values, scores.metric, base_values, alignment, tuple(scores.quality_metrics or quality))


def main(
    model: ModelArguments,
    prompting: PromptArguments,
    renders: RenderArguments,
    pairing: PairArguments,
    scores: ScoreArguments,
    run: RunArguments,
):
    check_arguments(model, prompting, renders, pairing, scores)
    accelerator, output = Accelerator(), Path(run.output_dir)
    make_folder(output, "output_dir")
    models = list_models(model)
    pairs = load_pairs(pairing, renders.resolution, renders.seed, run)
    if not scores.scorers:
        prompts = []
    elif prompting.prompts is None:
        prompts = [Prompt(caption) for caption in pairs.captions()]
    else:
        columns = {"prompt_column": prompting.prompt_column, "category_column": prompting.category_column}
        source = {"config": prompting.prompts_config, "split": prompting.prompts_split}
        source |= {"revision": prompting.prompts_revision, "cache_dir": run.cache_dir, "token": run.hub_token}
        sample = {"num_prompts": prompting.num_prompts, "seed": renders.seed}
        prompts = load_prompts(prompting.prompts, **columns, **source, **sample)
    suite = Suite(
        output,
        prompts,
        tuple(renders.guidance_scales),
        pairs,
        num_inference_steps=renders.num_inference_steps,
        resolution=renders.resolution,
        images_per_prompt=renders.images_per_prompt,
        batch_size=renders.batch_size,
        seed=renders.seed,
        strata=pairing.strata,
        repeats=pairing.repeats,
        retrieval_size=pairing.retrieval_size,
        score_batch_size=scores.score_batch_size,
    )
    suite.begin(scheduler=renders.scheduler, dtype=model.dtype, prediction_type=model.prediction_type)
    kinds = {name: make_scorer(name, scores, output, run).kinds for name in scores.scorers}  # what is missing, now

    for label, source in models.items():
        identity = {"source": short_name(source), "fingerprint": fingerprint(source), "revision": model.revision}
        identity |= {"variant": model.variant, "base": fingerprint(model.pretrained_model_name_or_path or source)}
        keep_settings(output / "models" / f"{label}.json", identity, f"the model {label!r}")
        if not suite.is_answered(label):
            suite.ask(label, *load(source, model, renders, run))
    failures = {}
    for name in scores.scorers:
        scorer = make_scorer(name, scores, output, run)
        judge = {"model": scores.judge_model, "questions": scores.question_model, "base_url": scores.judge_base_url}
        keep_settings(
            output / "scorers" / f"{name.replace(':', '.')}.json", judge if name == "vlm" else {}, f"scorer {name}"
        )
        if name == "vlm":
            scorer.write_questions([prompt.text for prompt in prompts])
            failures = scorer.failures
        suite.score(list(models), name, scorer)

    if accelerator.is_main_process:
        results = suite.results(list(models), kinds)
        base = "base" if "base" in models else None
        choice, wrong = None, None
        if model.sweep:
            try:
                choice = choose(results, [path.name for path in list_checkpoints(Path(model.sweep))], base, scores)
            except UserError as error:  # a metric that was not measured; the report is written all the same
                wrong = error
        facts = {
            "date": datetime.date.today().isoformat(),
            "command": public_command(sys.argv, (run.hub_token,)),
            "models": ", ".join(f"{label} ({short_name(source)})" for label, source in models.items()),
            "prompts": f"{len(prompts)} of {short_name(prompting.prompts or pairing.pairs)}" if prompts else "none",
            "renders": f"{renders.images_per_prompt} per prompt, {renders.num_inference_steps} steps, seed {renders.seed}",
            "versions": versions(),
        }
        about = {"about": facts, "settings": suite.settings(), "choice": choice and asdict(choice)}
        write_results(results, output / "results.json", about)
        report = build_report(suite, results, run.title, facts, choice)
        report.warnings.extend(f"vlm: {reason} ({number} times)" for reason, number in failures.items())
        write_report(report, output)
        print_report(report)
        print(f"In {output}/: report.html, results.json, plots/, images/")
        if wrong is not None:
            raise wrong
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if accelerator.num_processes > 1:
        time.sleep(0.5)  # gloo's threads need Python's lock once more, or a CPU run can hang here


if __name__ == "__main__":
    with exit_on_user_error():
        logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
        groups = (ModelArguments, PromptArguments, RenderArguments, PairArguments, ScoreArguments, RunArguments)
        main(*HfArgumentParser(groups, description=__doc__).parse_args_into_dataclasses())
