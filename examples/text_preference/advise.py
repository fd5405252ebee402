#!/usr/bin/env python
# /// script
# dependencies = ["diffusers_tpo[evaluate]"]
# ///
r"""Says what to expect of text preferences on a model before they are trained, and which flags to begin with.

    python advise.py --pretrained_model_name_or_path stable-diffusion-v1-5/stable-diffusion-v1-5 --pairs your-name/held-out \
        --dataset_name your-name/your-tpo-data --scorer pickscore --prompts parti --output_dir outputs/advice

It asks three things. Which kinds of edits does the model confuse? That needs held-out pairs alone. Does supervised training still help it?
That is tried for some steps, if there is a --dataset_name. At which guidance is it best? That is rendered, if there is a --scorer. A stopped run
goes on with the same command. docs/when_it_helps.md tells what the answers rest on.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from diffusers_tpo.commands import evaluate, train
from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.evaluation.advice import Signs, advise, first_flags, signs_of
from diffusers_tpo.evaluation.results import as_plain, read_results
from diffusers_tpo.files import make_folder, write_whole
from diffusers_tpo.flags import AtLeastOne, NotNegativeNumber, PositiveNumber, Range, flag


DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
CAUTION = (
    "These rules come from three bases of the embedded shapes world. On real models they have not been tested: take them for where to "
    "look, not for what will be."
)


@dataclass
class AdviseArguments:
    """What is asked, of which model, and how thoroughly."""

    pretrained_model_name_or_path: str = flag(help="Hub id or folder of a diffusers pipeline.")
    pairs: str = flag(help="Held-out pairs: Hub id or local folder of a text-preference data set, or shapes.")
    pairs_split: str = flag("train", "Their split.")
    num_pairs: Annotated[int, Range(at_least=2, at_most=1_000_000)] = flag(128, "Use the first rows.")
    strata: Annotated[int, Range(at_least=1, at_most=1000)] = flag(8, "Parts of the noise schedule ...")
    repeats: Annotated[int, Range(at_least=1, at_most=1000)] = flag(2, "... and draws in each, for every image.")
    resolution: Annotated[int, Range(at_least=1, at_most=16_384)] = flag(512, "Side of the square images in pixels.")
    dataset_name: str | None = flag(None, "Rows that a short supervised training learns from; without, none is made.")
    sft_steps: AtLeastOne = flag(100, "Its steps.")
    learning_rate: PositiveNumber = flag(1e-4, "Of its LoRA.")
    train_batch_size: AtLeastOne = flag(4, "Images in one of its steps.")
    scorer: str | None = flag(None, "Who judges renders, as in evaluate; without, nothing is rendered.")
    prompts: str | None = flag(None, "What is rendered, as in evaluate.")
    num_prompts: Annotated[int, Range(at_least=2, at_most=1_000_000)] = flag(64, "A random sample of so many.")
    guidance_scales: list[NotNegativeNumber] = flag([1.0, 2.0, 4.0, 7.5], "The prompts are rendered at each of them.")
    mixed_precision: Literal["no", "fp16", "bf16"] = flag("no", "Of everything.")
    batch_size: AtLeastOne = flag(8, "Images in a batch of renders; four times as many rows of pairs.")
    evaluate_config: str | None = flag(None, "YAML file with more flags of evaluate, such as names of columns.")
    train_config: str | None = flag(None, "YAML file with more flags of train.")
    seed: Annotated[int, Range(at_least=0, below=2**32)] = flag(0, "Of everything.")
    output_dir: str = flag("advice", "What was measured, and advice.json.")


def main(args: AdviseArguments) -> None:
    if args.scorer is not None and args.prompts is None:
        raise UserError("--scorer needs something to render; give --prompts")
    if args.scorer is not None and len(set(args.guidance_scales)) < 2:
        raise UserError("--guidance_scales must hold at least two different ones, of which one may be the best")
    output = Path(args.output_dir)
    make_folder(output, "--output_dir")

    # What a short supervised training makes of it.
    supervised = output / "supervised"
    if args.dataset_name is not None and not (supervised / "README.md").exists():  # the card is written last
        train(**supervised_flags(args, supervised))

    # What both say of the held-out pairs, and what the base draws.
    models = [] if args.dataset_name is None else [f"supervised={supervised}"]
    evaluate(**evaluation_flags(args, output / "pairs", models=models, **pair_flags(args)))
    pairs, renders = read_results(output / "pairs" / "results.json"), None
    if args.scorer is not None:
        evaluate(**evaluation_flags(args, output / "renders", **render_flags(args)))
        renders = read_results(output / "renders" / "results.json")

    # What comes of it.
    signs = signs_of(pairs, renders)
    advices = advise(signs)
    print("\n" + "\n".join([*seen(signs), "", *(f"- {one.says}" for one in advices), "", CAUTION]))
    print(f"\nTo begin with: diffusers-tpo train {first_flags(advices)}")
    found = {"signs": asdict(signs), "advice": [asdict(one) for one in advices], "flags": first_flags(advices)}
    write_whole(output / "advice.json", json.dumps(as_plain(found), indent=1) + "\n")


def supervised_flags(args: AdviseArguments, output: Path) -> dict[str, object]:
    return {
        "config": args.train_config,
        "pretrained_model_name_or_path": args.pretrained_model_name_or_path,
        "dataset_name": args.dataset_name,
        "loss_type": "sft",
        "use_lora": True,
        "proportion_empty_prompts": 0.1,
        "max_train_steps": args.sft_steps,
        "learning_rate": args.learning_rate,
        "train_batch_size": args.train_batch_size,
        "resolution": args.resolution,
        "mixed_precision": args.mixed_precision,
        "report_to": "none",
        "seed": args.seed,
        "output_dir": str(output),
        "resume_from_checkpoint": "latest",
    }


def evaluation_flags(args: AdviseArguments, output: Path, **flags: object) -> dict[str, object]:
    return {
        "config": args.evaluate_config,
        "pretrained_model_name_or_path": args.pretrained_model_name_or_path,
        "dtype": DTYPES[args.mixed_precision],
        "resolution": args.resolution,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "output_dir": str(output),
        **flags,
    }


def pair_flags(args: AdviseArguments) -> dict[str, object]:
    names = ("pairs", "pairs_split", "num_pairs", "strata", "repeats")
    return {name: getattr(args, name) for name in names}


def render_flags(args: AdviseArguments) -> dict[str, object]:
    names = ("prompts", "num_prompts", "guidance_scales")
    return {"scorers": [args.scorer]} | {name: getattr(args, name) for name in names}


def seen(signs: Signs) -> list[str]:
    """What was measured, a line each."""
    lines = [f"Pairs told apart, {name}: {share.percent()} %" for name, share in signs.accuracies.items()]
    if signs.supervised_gain is not None:
        gain = signs.supervised_gain.percent()
        lines.append(f"Error at held-out captions, after supervised training: {gain} % lower")
    if signs.best is not None and signs.guided_gain is not None:
        lines.append(f"Best guidance: {signs.best:g} of {', '.join(f'{scale:g}' for scale in signs.scales)}")
    return lines


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(AdviseArguments, description=__doc__))
