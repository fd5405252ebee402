#!/usr/bin/env python
r"""Compares base, continued supervised fine-tuning, TDPO and TKTO on the embedded shapes world, over guidance scales.

    python examples/text_preference/study_shapes.py --output_dir outputs/study --arms main
    python examples/text_preference/study_shapes.py --output_dir outputs/converged --arms guidance --base converged \
        --guidance_scales 1 1.5 2.5 4 6
    python examples/text_preference/study_shapes.py --output_dir outputs/search --arms search --seeds 0 --num_prompts 512 \
        --guidance_scales 1 1.5 2 2.5 --rival "SFT, lr 5e-5"
    python examples/text_preference/study_shapes.py --output_dir outputs/draws --arms draws --num_prompts 512 --seeds 0 1 \
        --guidance_scales 1 1.5 --rival "TDPO, LoRA, live"

Every arm is one run of train_text_to_image_tpo.py, or two, one after the other. What is finished is kept, arm by arm and scale by scale, so a
stopped study goes on where it was, and seeds, arms and scales may be added. results.json holds the tables so far; docs/tables.py shows
those that are kept in docs/results/.
"""

import datetime
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.evaluation.compare import best_scale, own_best_scales
from diffusers_tpo.evaluation.shapes import implicit_preference, judge_images, load_model
from diffusers_tpo.evaluation.suite import keep_settings
from diffusers_tpo.files import make_folder, publish_file
from diffusers_tpo.flags import NotNegativeNumber, Range, flag
from diffusers_tpo.intervals import Interval, SeedSpread, crossed_interval, mean_interval, seed_spread
from diffusers_tpo.models.loading import load_model as load_any_model
from diffusers_tpo.models.loading import save_pipeline
from diffusers_tpo.shapes.scenes import PRINCIPLES, Scene
from diffusers_tpo.shapes.world import PIPELINE, make_rows, make_scenes
from diffusers_tpo.tables import Percent, Table, write_tables


FOLDER = Path(__file__).parent
SCALES = (1.0, 1.5, 2.5, 4.0)
STEPS = 200
TIME_RATIO = 2.4  # TPO step over SFT step of the same images
FROM_SHIPPED = f"--start_from {shlex.quote(str(PIPELINE))}"
BASES = {  # how pretrain_shapes.py makes them
    "converged": f"{FROM_SHIPPED} --steps 1200 --learning_rate 6e-4 --lr_scheduler cosine",
    "web": f"{FROM_SHIPPED} --steps 500 --learning_rate 3e-4 --wrong_captions 0.5",
}
SHARED = (
    "--resolution 32 --train_batch_size 16 --use_ema --ema_decay 0.98 --report_to none --checkpointing_steps 100000"
)

FULL, LORA = "--learning_rate 1e-4", "--use_lora --learning_rate 1e-3"
KINDS = {"LoRA": LORA, "full": FULL}
PREFER = "--beta 500 --anchor_weight 0.5 --principles content attribute"
TDPO, TKTO = f"--loss_type tdpo {PREFER}", f"--loss_type tkto {PREFER}"
HELD = "--null_anchor 0.5 --null_keep 1"
DROPPED = "--loss_type sft --proportion_empty_prompts 0.1"
LONGER = f"--max_train_steps {round(STEPS * TIME_RATIO)}"
HALF, HALF_LONGER = f"--max_train_steps {STEPS // 2}", f"--max_train_steps {round(STEPS * TIME_RATIO / 2)}"
FEW = "--max_train_samples 256 --center_crop --cache_latents --cache_prompt_embeddings"
DRAWS = (1, 2, 4, 8)  # of 12.5 epochs
BY_REFERENCE = ", reference's empty prompt"  # ending of the names of arms that are guided so


@dataclass(frozen=True)
class Arm:
    """One way to train, and to sample what it left.

    Attributes:
        stages: flags of the training script, of runs one after the other: each goes on from the model of the one before. None
            for the base.
        empty_prompt: who answers the empty prompt in guidance: the model, or the reference of its last stage.
    """

    stages: tuple[str, ...] = ()
    empty_prompt: Literal["own", "reference"] = "own"


def both_ways(name: str, *stages: str) -> dict[str, Arm]:
    """One model, guided as any is, and guided with the reference's answer to the empty prompt."""
    return {name: Arm(stages), name + BY_REFERENCE: Arm(stages, "reference")}


def guidance_arms(kind: str) -> dict[str, Arm]:
    """What each way of training is worth at every guidance scale."""
    rate = KINDS[kind]
    return {
        **both_ways(f"SFT, same time, {kind}", f"{DROPPED} {rate} {LONGER}"),
        **both_ways(f"TDPO, {kind}", f"{TDPO} {rate}"),
        **both_ways(f"TDPO, held, {kind}", f"{TDPO} {rate} {HELD}"),
        **both_ways(f"TKTO, {kind}", f"{TKTO} {rate}"),
        **both_ways(f"TKTO, held, {kind}", f"{TKTO} {rate} {HELD}"),
        **both_ways(f"SFT, then TDPO, {kind}", f"{DROPPED} {rate} {HALF_LONGER}", f"{TDPO} {rate} {HALF}"),
    }


ARMS = {
    "guidance": {"base": Arm(), **guidance_arms("LoRA"), **guidance_arms("full")},
    "guidance_search": {
        "base": Arm(),
        **both_ways("SFT, same time, LoRA", f"{DROPPED} {LORA} {LONGER}"),
        **both_ways("TDPO, LoRA, beta 2000", f"{TDPO} {LORA} --beta 2000"),
        **both_ways("TDPO, LoRA, 100 steps", f"{TDPO} {LORA} {HALF}"),
        **both_ways("TDPO, LoRA, anchor 0.1", f"{TDPO} {LORA} --anchor_weight 0.1"),
        **both_ways("TDPO, LoRA, anchor 2", f"{TDPO} {LORA} --anchor_weight 2"),
        **both_ways("TDPO, LoRA, four principles", f"{TDPO} {LORA} --principles {' '.join(PRINCIPLES)}"),
    },
    "main": {
        "base": Arm(),
        "SFT, same time, full": Arm((f"--loss_type sft {FULL} {LONGER}",)),
        "TDPO, full": Arm((f"{TDPO} {FULL}",)),
        "TKTO, full": Arm((f"{TKTO} {FULL}",)),
        "SFT, same time, LoRA": Arm((f"--loss_type sft {LORA} {LONGER}",)),
        "TDPO, LoRA": Arm((f"{TDPO} {LORA}",)),
        "TKTO, LoRA": Arm((f"{TKTO} {LORA}",)),
        "SFT, same rows, full": Arm((f"--loss_type sft {FULL}",)),
        "SFT, same rows, LoRA": Arm((f"--loss_type sft {LORA}",)),
    },
    "search": {
        "base": Arm(),
        "SFT, lr 5e-5": Arm((f"--loss_type sft --learning_rate 5e-5 {LONGER}",)),
        "SFT, lr 2e-4": Arm((f"--loss_type sft --learning_rate 2e-4 {LONGER}",)),
        "TKTO, lr 5e-5": Arm(("--loss_type tkto --beta 500 --learning_rate 5e-5",)),
        "TKTO, lr 2e-4": Arm(("--loss_type tkto --beta 500 --learning_rate 2e-4",)),
        "TDPO, lr 5e-5": Arm(("--loss_type tdpo --beta 500 --learning_rate 5e-5",)),
        "TDPO, lr 5e-5, beta 100": Arm(("--loss_type tdpo --beta 100 --learning_rate 5e-5",)),
        "TKTO, lr 5e-5, content and attribute": Arm(
            ("--loss_type tkto --beta 500 --learning_rate 5e-5 --principles content attribute",)
        ),
        "TDPO, lr 1e-4, content and attribute, anchor 1": Arm((f"{TDPO} {FULL} --anchor_weight 1",)),
        "TKTO, lr 1e-4, content and attribute, anchor 0.5": Arm((f"{TKTO} {FULL}",)),
        "TKTO, LoRA, batch_mean": Arm((f"{TKTO} {LORA}",)),
        "TKTO, LoRA, class_mean": Arm((f"{TKTO} {LORA} --tkto_baseline class_mean",)),
        "TKTO, LoRA, shuffled": Arm((f"{TKTO} {LORA} --tkto_baseline shuffled",)),
        "TDPO, LoRA": Arm((f"{TDPO} {LORA}",)),
        "TDPO, LoRA, 3 mismatched": Arm((f"{TDPO} {LORA} --num_mismatched 3",)),
        "TDPO, LoRA, winner-preserving 0.1": Arm((f"{TDPO} {LORA} --winner_preserving_mu 0.1",)),
        "TDPO, LoRA, timesteps 0.3 to 1": Arm((f"{TDPO} {LORA} --min_timestep 0.3",)),
        "TDPO, LoRA, unclipped": Arm((f"{TDPO} {LORA} --mismatched_clip inf",)),
    },
    "draws": {
        "base": Arm(),
        "TDPO, LoRA, live": Arm((f"{TDPO} {LORA} {FEW}",)),
        **{
            f"TDPO, LoRA, draws {d}": Arm((f"{TDPO} {LORA} {FEW} --reference_draws {d} --precompute_reference",))
            for d in DRAWS
        },
    },
}
ONLY_RENDERED = ("guidance", "guidance_search")  # without the implicit preference, which is another question


TITLES = {
    "aligned": "Wholly aligned images",
    "facts": "Each arm at its best guidance",
    "differences": "Paired differences in aligned images",
}


@dataclass
class StudyArguments:
    """Which arms, how often, and where everything goes."""

    output_dir: str = flag(help="Data, base, runs and results.json.")
    arms: Literal["main", "search", "draws", "guidance", "guidance_search"] = flag("main", "Which runs are compared.")
    only: list[str] = flag([], "Of these runs, those whose names begin so, as TDPO; and always the base.")
    base: str = flag("shipped", "What is trained: shipped, converged, web, or the folder of another shapes pipeline.")
    seeds: list[Annotated[int, Range(at_least=0, below=2**32)]] = flag([0, 1, 2], "Every arm is trained with each.")
    num_prompts: Annotated[int, Range(at_least=2, at_most=100_000)] = flag(1024, "Held-out prompts.")
    guidance_scales: list[NotNegativeNumber] = flag(list(SCALES), "Every model is judged at each of them.")
    rival: str = flag("SFT, same time", "Start of the arm that differences are taken to.")


def slug(name: str, seed: int) -> str:
    return f"{name.replace(', ', '_').replace(' ', '-').replace(chr(39), '')}-{seed}"


def run_script(script: str, words: list[str], log: Path, what: str) -> None:
    """Runs an example script.

    Raises:
        UserError: naming its log, if it fails.
    """
    with log.open("w") as file:
        code = subprocess.run([sys.executable, str(FOLDER / script), *words], stdout=file, stderr=subprocess.STDOUT)
    if code.returncode:
        raise UserError(f"the training of {what} ended with exit code {code.returncode}; {log} tells why")


@dataclass(frozen=True)
class Study:
    """The runs of one base in one folder: trains and judges what is not there yet.

    Attributes:
        arms: all of the set that was asked for, by name.
        is_whole: judges the implicit preference too.
    """

    output: Path
    base: str
    arms: dict[str, Arm]
    scenes: list[Scene]
    is_whole: bool

    def base_folder(self) -> Path:
        """The pipeline that everything is trained from. It is made once, if it is one of [`BASES`]."""
        if self.base not in BASES:
            return PIPELINE if self.base == "shipped" else Path(self.base)
        folder, partial = self.output / "base", self.output / ".partial-base"
        if not folder.exists():
            words = ["--output_dir", str(partial), *shlex.split(BASES[self.base])]
            run_script("pretrain_shapes.py", words, self.output / "base.log", f"the base {self.base}")
            partial.rename(folder)
        return folder

    def data(self) -> Path:
        """The folder of the rows that every arm learns from."""
        file = self.output / "data" / "train.parquet"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial")
            make_rows(make_scenes(8192, 0), 0).to_parquet(partial)
            publish_file(partial, file)
        return file.parent

    def folder(self, name: str, seed: int) -> Path:
        """Where an arm lies, whose settings are kept.

        Raises:
            UserError: if it was begun with other settings.
        """
        folder = self.output / slug(name, seed)
        asked = asdict(self.arms[name]) | {"base": self.base, "num_prompts": len(self.scenes)}
        keep_settings(folder / "asked.json", asked, f"the arm {name!r}")
        return folder

    def train(self, name: str, seed: int) -> tuple[Path, Path]:
        """The model of an arm, and what its last stage began from, which is its reference too."""
        stages = self.arms[name].stages
        owner = next(
            other for other, arm in self.arms.items() if arm.stages == stages
        )  # arms may differ in sampling alone
        folder = self.folder(owner, seed)
        model = start = self.base_folder()
        for number, flags in enumerate(stages, start=1):
            start = model if number == 1 else self.merged(model, start, folder / f"start-{number}")
            model = folder / f"run-{number}"
            if not (model / "README.md").exists():  # the card is written last
                words = ["--pretrained_model_name_or_path", str(start), "--dataset_name", str(self.data())]
                words += ["--output_dir", str(model), "--seed", str(seed), "--max_train_steps", str(STEPS)]
                words += f"{SHARED} {flags} --resume_from_checkpoint latest".split()
                run_script("train_text_to_image_tpo.py", words, folder / f"train-{number}.log", repr(name))
        return model, start

    def merged(self, model: Path, base: Path, folder: Path) -> Path:
        """A trained model as a pipeline of its own, from which another run can begin."""
        if not folder.exists():
            pipe = load_any_model(str(model), base=str(base)).pipe
            if pipe.get_list_adapters():
                pipe.fuse_lora()
                pipe.unload_lora_weights()
            partial = folder.with_name(f".partial-{folder.name}")
            save_pipeline(pipe, partial)
            partial.rename(folder)
        return folder

    def judge(self, name: str, seed: int, scales: list[float]) -> dict[str, np.ndarray]:
        """`"<guidance>/<fact>"` and, in a whole study, the implicit preference: `(N,)` each."""
        files = {f"{scale:g}": self.folder(self.drawn_by(name, scale), seed) / f"{scale:g}.npz" for scale in scales}
        implicit = [self.folder(name, seed) / "implicit.npz"] if self.is_whole else []
        if not all(file.exists() for file in [*files.values(), *implicit]):
            model, reference = self.train(name, seed)
            pipe = load_model(model, reference)
            asked = load_model(reference).unet if self.arms[name].empty_prompt == "reference" else None
            for scale, file in files.items():
                if not file.exists():
                    save(
                        file,
                        judge_images(
                            pipe, self.scenes, (float(scale),), seed, steps=10, progress=False, reference=asked
                        ),
                    )
            for file in implicit:
                if not file.exists():
                    save(file, implicit_preference(pipe, self.scenes[:256], seed))
        judged: dict[str, np.ndarray] = {}
        for file in [*files.values(), *implicit]:
            judged |= np.load(file)
        return judged

    def drawn_by(self, name: str, scale: float) -> str:
        """The arm that draws the same images at this scale: without guidance nobody asks about the empty prompt."""
        own = self.arms[name]
        same = [other for other, arm in self.arms.items() if arm == own or (scale <= 1 and arm.stages == own.stages)]
        return same[0]


def save(file: Path, values: dict[str, np.ndarray]) -> None:
    partial = file.with_name(f".partial-{file.name}")
    np.savez(partial, **values)
    publish_file(partial, file)


def percent(interval: Interval) -> Percent:
    return Percent(**vars(interval))


def kind_of(arm: str) -> str | None:
    """LoRA or full, where the name of an arm says so."""
    return next((kind for kind in KINDS if kind in arm.split(", ")), None)


@dataclass(frozen=True)
class Judged:
    """Every arm with every seed that it has: `found[arm][seed][name]` is `(N,)`.

    Figures of several arms share the spread between seeds, see [`~diffusers_tpo.intervals.seed_spread`].
    """

    found: dict[str, list[dict[str, np.ndarray]]]
    scales: list[float]

    def values(self, arm: str, name: str) -> np.ndarray:
        """`(S, N)`."""
        return np.stack([seed[name] for seed in self.found[arm]])

    def aligned(self, arm: str) -> np.ndarray:
        """`(scales, S, N)`."""
        return np.stack([self.values(arm, f"{scale:g}/aligned") for scale in self.scales])

    def at_best(self, arm: str) -> np.ndarray:
        """Aligned images at the guidance that suits the arm best, `(S, N)`: chosen for each tenth of the prompts on the others."""
        aligned = self.aligned(arm)
        chosen = own_best_scales(aligned.mean(axis=1))
        return aligned[chosen, :, np.arange(aligned.shape[-1])].T

    def figures(self, arm: str) -> np.ndarray:
        """`(scales + 1, S, N)`: aligned images at each scale and at the best."""
        return np.concatenate([self.aligned(arm), self.at_best(arm)[None]])

    def gains(self, arm: str, other: str) -> np.ndarray:
        """The figures of an arm minus those of another, of the seeds that both have."""
        ours, theirs = self.figures(arm), self.figures(other)
        seeds = min(ours.shape[1], theirs.shape[1])
        return ours[:, :seeds] - theirs[:, :seeds]

    def best(self, arm: str) -> float:
        return self.scales[best_scale(self.aligned(arm).mean(axis=1))]


def pooled(figures: dict[str, np.ndarray]) -> SeedSpread:
    """The spread between seeds that the figures of several arms have in common; of two arms of one model it is one."""
    models: dict[str, list[np.ndarray]] = {}
    for arm, values in figures.items():
        models.setdefault(arm.removesuffix(BY_REFERENCE), []).append(values)
    return seed_spread([np.concatenate(with_most_seeds(values)) for values in models.values()])


def with_most_seeds(figures: list[np.ndarray]) -> list[np.ndarray]:
    """Of `(G, S, N)` those with the largest `S`: the others are not judged yet."""
    most = max(values.shape[1] for values in figures)
    return [values for values in figures if values.shape[1] == most]


def report(found: dict[str, list[dict]], scales: list[float], rival: str) -> dict[str, Table]:
    """Three tables: alignment over guidance, facts at each arm's best guidance, paired differences to base and rival."""
    judged = Judged(found, list(scales))
    return {
        "aligned": aligned_table(judged),
        "facts": facts_table(judged),
        "differences": differences_table(judged, rival),
    }


def aligned_table(judged: Judged) -> Table:
    figures = {arm: judged.figures(arm) for arm in judged.found}
    spread = pooled({arm: values for arm, values in figures.items() if arm != "base"})
    rows = []
    for arm, values in figures.items():
        own = SeedSpread() if arm == "base" else spread
        *cells, at_best = [percent(crossed_interval(part, own).inside(0, 1)) for part in values]
        rows.append([arm, *cells, f"{judged.best(arm):g}", at_best])
    header = ["arm", *(f"guidance {scale:g}" for scale in judged.scales), "best at", "at its best"]
    return Table(header, rows)


def facts_table(judged: Judged) -> Table:
    """By chance of the prompts alone."""
    facts = [*PRINCIPLES, "clean"]
    implicit = {"implicit/accuracy": "implicit accuracy", "implicit/accuracy_corrected": "without noise"}
    shown = [name for name in implicit if all(name in seed for seeds in judged.found.values() for seed in seeds)]
    rows = []
    for arm in judged.found:
        names = [f"{judged.best(arm):g}/{fact}" for fact in facts] + shown
        cells = [percent(mean_interval(judged.values(arm, name)).inside(0, 1)) for name in names]
        if shown:
            cells.append(percent(mean_interval(judged.values(arm, "implicit/score_relative"))))
        rows.append([arm, *cells])
    header = ["arm", *facts, *(implicit[name] for name in shown)]
    return Table([*header, "implicit margin"] if shown else header, rows)


def others_of(arm: str, arms: list[str], rival: str) -> dict[str, str]:
    """What an arm is compared with, as a table names it, and the arm that this is."""
    rivals = [name for name in arms if name.startswith(rival) and kind_of(name) == kind_of(arm)]
    other = next(iter(rivals), rival)
    found = {"base": "base"}
    if other in arms and other != arm:
        found[other] = other
    own = arm.removesuffix(BY_REFERENCE)
    if own != arm and own in arms and own not in found:
        found["own empty prompt"] = own
    return found


def differences_table(judged: Judged, rival: str) -> Table:
    """Comparisons with one other arm, or of all arms with their own empty prompt, share the spread between seeds."""
    arms = [arm for arm in judged.found if arm != "base"]
    gains = {
        (arm, name): judged.gains(arm, other)
        for arm in arms
        for name, other in others_of(arm, arms, rival).items()
        if other in judged.found
    }
    names = {name for _, name in gains}
    spreads = {name: pooled({arm: part for (arm, other), part in gains.items() if other == name}) for name in names}
    rows = []
    for (arm, name), figures in gains.items():
        rows.append([arm, name, *(percent(crossed_interval(part, spreads[name])) for part in figures)])
    header = ["arm", "minus", *(f"guidance {scale:g}" for scale in judged.scales), "each at its best"]
    return Table(header, rows)


def asked_arms(args: StudyArguments) -> Iterator[tuple[int, str]]:
    """Seed by seed, so that a study that is stopped early has whole comparisons."""
    for seed in args.seeds:
        for arm in ARMS[args.arms]:
            if not args.only or arm == "base" or arm.startswith(tuple(args.only)):
                yield seed, arm


def main(args: StudyArguments) -> None:
    output = Path(args.output_dir)
    make_folder(output, "--output_dir")
    scenes = make_scenes(args.num_prompts, 0, held_out=True)
    study = Study(output, args.base, ARMS[args.arms], scenes, args.arms not in ONLY_RENDERED)
    judged: dict[str, list[dict[str, np.ndarray]]] = {}
    tables: dict[str, Table] = {}
    for seed, arm in asked_arms(args):
        found = study.judge(arm, seed, args.guidance_scales)
        judged.setdefault(arm, []).append(found)
        aligned = [f"{found[f'{scale:g}/aligned'].mean():.1%}" for scale in args.guidance_scales]
        print(f"{arm}, seed {seed}: aligned {' '.join(aligned)}", flush=True)
        tables = report(judged, args.guidance_scales, args.rival)
        write_tables(
            output / "results.json",
            tables,
            command=shlex.join(["python", "examples/text_preference/study_shapes.py", *sys.argv[1:]]),
            date=str(datetime.date.today()),
            machine=f"{os.cpu_count()} cores, torch {torch.__version__}",
            seeds={arm: args.seeds[: len(seeds)] for arm, seeds in judged.items()},
            prompts=len(scenes),
        )
    print(
        f"\n{len(scenes)} held-out prompts, seeds {args.seeds}; mean with 95 % interval over prompts and seeds, in percent and points."
    )
    for name, table in tables.items():
        print(f"\n{TITLES[name]}\n\n{table.markdown()}")


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(StudyArguments, description=__doc__))
