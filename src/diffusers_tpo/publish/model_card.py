"""Writes the card of a trained model from what really happened. Knows nothing of models or losses."""

import json
import math
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..intervals import Interval
from ..privacy import public_name
from ..show import as_text, markdown_table
from ..versions import versions
from .origins import Origin


TAGS = ["diffusers", "diffusers-training", "text-to-image"]
PAPER = "[paper](https://huggingface.co/papers/2509.25771)"
METHODS = {
    "sft": "supervised fine-tuning on images and their captions.",
    "tdpo": f"Text Preference Optimization with the TDPO loss ({PAPER}): of one image, it learned to prefer the caption that "
    "fits over prompts that do not. It saw no pairs of images.",
    "tkto": f"Text Preference Optimization with the TKTO loss ({PAPER}): it learned to tell prompts that fit their image from "
    "prompts that do not. It saw no pairs of images.",
}
NOT_EVALUATED = (
    "Not evaluated: this run only trained. Render the same prompts and seeds with and without it before you trust it."
)
PLAIN_GUIDANCE = """\
from peft.tuners.tuners_utils import BaseTunerLayer

def without_lora_for_the_empty_prompt(layer, args, kwargs):  # the first half of a guided batch
    rows = len(args[0]) // 2
    return args, kwargs | {{"adapter_names": ["__base__"] * rows + layer.active_adapters * rows}}

layers = [layer for layer in pipe.{denoiser}.modules() if isinstance(layer, BaseTunerLayer)]
hooks = [layer.register_forward_pre_hook(without_lora_for_the_empty_prompt, with_kwargs=True) for layer in layers]
{rendering}
for hook in hooks:
    hook.remove()"""
WINDOW = 50  # logged steps whose mean a card has
UNKNOWN_LICENCE = {"license": "other", "license_name": "see-base-model"}


@dataclass(frozen=True)
class Figure:
    """One metric of a model beside its base.

    Attributes:
        metric: its name.
        base, model: means with their intervals; `None` where the base has no such figure.
        difference: of the pairs, model minus base.
    """

    metric: str
    base: Interval | None
    model: Interval
    difference: Interval | None

    def cells(self) -> list[str]:
        return [self.metric, *("-" if one is None else str(one) for one in (self.base, self.model, self.difference))]

    def is_for_the_hub(self) -> bool:
        """Whether it is finite, not one of a single principle, and not of guidance, where more is not better."""
        numbers = (self.model.mean, self.model.low, self.model.high)
        is_score = self.metric.count("/") < 2 and not self.metric.startswith("guidance/")
        return is_score and all(map(math.isfinite, numbers))


@dataclass(frozen=True)
class Evaluation:
    """What a model scored beside its base.

    Attributes:
        note: what was asked, of how many, with which seeds, and what the intervals are.
        dataset: Hub id or local path of the rows that it was asked about; `split` is theirs.
        label: what the model is called in the table.
    """

    note: str
    dataset: str
    split: str
    label: str
    figures: list[Figure]

    def text(self) -> str:
        table = markdown_table(["metric", "base", self.label, "difference"], [one.cells() for one in self.figures])
        return f"{self.note}\n\n{table}"

    def results(self) -> list[EvalResult]:
        """The figures as the Hub reads them."""
        name = public_name(self.dataset, "data set")
        return [
            EvalResult(
                task_type="text-to-image",
                dataset_type=name if name == self.dataset else "local",
                dataset_name=name,
                dataset_split=self.split,
                metric_type=one.metric,
                metric_value=float(f"{one.model.mean:.6g}"),
                metric_name=f"{one.metric} (95 % interval {one.model.low:.4g} to {one.model.high:.4g})",
            )
            for one in self.figures
            if one.is_for_the_hub()
        ]


@dataclass(frozen=True)
class Picture:
    """One prompt, rendered by the base and by the model: the names of two files in `assets/`."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class Card:
    """What the card of a model tells of its training.

    Attributes:
        training: hyper-parameters by name, see [`~diffusers_tpo.privacy.public_config`]; `loss_type` and `resolution` are among
            them, and `use_lora` if it is a LoRA.
        base: where the model comes from.
        data: where the rows come from.
        told: of the run besides, by name: [`training_facts`] and others.
        evaluation: beside the base, if there was one.
        pictures: rendered at `guidance_scale`, where `guide_with` answered the empty prompt: "model" or "reference", the base.
    """

    training: dict[str, object]
    base: Origin
    data: list[Origin]
    told: dict[str, object] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    pictures: list[Picture] = field(default_factory=list)
    guidance_scale: float | None = None
    guide_with: str = "model"

    def with_told(self, told: dict[str, object]) -> "Card":
        return replace(self, told=told | self.told)

    @property
    def is_lora(self) -> bool:
        return "use_lora" in self.training

    @property
    def loss_type(self) -> str:
        return str(self.training["loss_type"])

    @property
    def is_preference(self) -> bool:
        return self.loss_type != "sft"

    @property
    def holds_empty_prompt(self) -> bool:
        """Whether the training kept the model's answer to the empty prompt where it was."""
        return any(self.training.get(name) for name in ("null_keep", "null_anchor"))

    def front(self, repo: str) -> ModelCardData:
        """The front matter: what the Hub reads."""
        base_is_public = public_name(self.base.name, "model") == self.base.name
        data = [one.name for one in self.data if public_name(one.name, "data set") == one.name]
        licence = self.base.licence or UNKNOWN_LICENCE
        if base_is_public and licence["license"] == "other":
            page = f"https://huggingface.co/{self.base.name}"
            licence = {"license_name": "see-base-model", "license_link": page} | licence
        tags = list(TAGS)
        if self.is_preference:
            tags.append("text-preference-optimization")
        if self.is_lora:
            tags.append("lora")
        results = self.evaluation.results() if self.evaluation else []
        return ModelCardData(
            base_model=([self.base.name, *self.base.others] if self.base.others else self.base.name)
            if base_is_public
            else None,
            base_model_relation=("adapter" if self.is_lora else "finetune") if base_is_public else None,
            datasets=data or None,
            library_name="diffusers",
            pipeline_tag="text-to-image",
            tags=tags,
            model_name=repo.split("/")[-1] if results else None,
            eval_results=results or None,
            license=licence["license"],
            license_name=licence.get("license_name"),
            license_link=licence.get("license_link"),
        )


@dataclass(frozen=True)
class Published:
    """A model as others load it.

    Attributes:
        repo: the Hub id that it is or would be pushed to.
        pipeline_class: the name of its pipeline's class.
        dtype: that it is best loaded in.
        branch: of the repository, if not the main one.
        denoiser: the name of what was trained in it, "unet" or "transformer".
        unconditional: where it asks about the empty prompt, see [`~diffusers_tpo.families.Family`]; `None` if it never does, or the
            base would be told something else than before.
        call: what a call needs so that it is guided, by name; nothing for most pipelines.
        exports: names of files that hold the LoRA for other programs, by program.
    """

    repo: str
    pipeline_class: str
    dtype: str = "float16"
    branch: str | None = None
    denoiser: str = "unet"
    unconditional: str | None = None
    call: dict[str, str] = field(default_factory=dict)
    exports: dict[str, str] = field(default_factory=dict)

    def usage(self, base: Origin, is_lora: bool, prompt: str) -> str:
        """Python that loads the model and renders one image."""
        branch = f', revision="{self.branch}"' if self.branch else ""
        if is_lora:
            loading = [self._load(_source(base)), f'pipe.load_lora_weights("{self.repo}"{self._file()}{branch})']
        else:
            loading = [self._load(f'"{self.repo}"{branch}')]
        head = ["import torch", f"from diffusers import {self.pipeline_class}", ""]
        return "\n".join([*head, *loading, self._render(prompt)])

    def guided_usage(self, base: Origin, is_lora: bool, prompt: str) -> str:
        """Python that goes on after [`~Published.usage`] with this package: the base answers the empty prompt."""
        given, loading = "pipe", []
        if not is_lora:
            given, loading = "pipe, base", [f"base = {self._loaded(_source(base))}.{self.denoiser}"]
        head = ["from diffusers_tpo.guidance import guide_with_reference", ""]
        block = [f"with guide_with_reference({given}):", f"    {self._render(prompt)}"]
        return "\n".join([*head, *loading, *block])

    def hooked_usage(self, is_lora: bool, prompt: str) -> str | None:
        """The same with diffusers and PEFT alone; `None` where that takes more than a few lines."""
        if not (is_lora and self.unconditional == "first half"):
            return None
        return PLAIN_GUIDANCE.format(denoiser=self.denoiser, rendering=self._render(prompt))

    def _render(self, prompt: str) -> str:
        given = {"prompt": prompt} | self.call
        words = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items()]
        return f"image = pipe({', '.join(words)}).images[0]"

    def _load(self, source: str) -> str:
        return f"pipe = {self._loaded(source)}"

    def _loaded(self, source: str) -> str:
        return f'{self.pipeline_class}.from_pretrained({source}, dtype=torch.{self.dtype}).to("cuda")'

    def _file(self) -> str:
        """Of a branch diffusers guesses no file name."""
        return ', weight_name="pytorch_lora_weights.safetensors"' if self.branch else ""


def _source(base: Origin) -> str:
    """The base of a LoRA as arguments of `from_pretrained`."""
    is_local = public_name(base.name, "model") != base.name
    name = "path/to/the/base" if is_local else base.name
    return f'"{name}", revision="{base.revision}"' if base.revision else f'"{name}"'


def training_facts(first: int, last: int, seconds: float, weights_of: int) -> dict[str, object]:
    """How long a run was.

    Args:
        first: step from which it went on, 0 unless it was resumed; `last` is its final step.
        seconds: that it took from `first` to `last`.
        weights_of: step whose weights it ends with.
    """
    time = f"{timedelta(seconds=round(seconds))} (h:mm:ss), renders and evaluations included"
    facts = {"optimizer steps": last, "time": f"{time}, for the steps after {first}" if first else time}
    return facts if weights_of == last else {"weights": f"those of step {weights_of}"} | facts


def hardware(device: torch.device, processes: int) -> str:
    """What a run was computed on."""
    return f"{processes} x {torch.cuda.get_device_name() if device.type == 'cuda' else device.type.upper()}"


def as_cell(value: object) -> str:
    return as_text(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def last_means(rows: list[dict[str, float]]) -> dict[str, str]:
    """The mean of each metric of the training over the rows that have it."""
    names = sorted({name for row in rows for name in row if name != "step" and not name.startswith("eval/")})
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: f"{sum(numbers) / len(numbers):.4g}" for name, numbers in values.items()}


def link(origin: Origin, what: str) -> str:
    """Markdown that names a model or a data set and what is known of its revision."""
    name = public_name(origin.name, what)
    folder = "" if what == "model" else "datasets/"
    if name != origin.name:
        return name
    parts = [f"[{name}](https://huggingface.co/{folder}{name})"]
    if origin.revision and origin.revision != origin.commit:
        parts.append(f"revision `{origin.revision}`")
    if origin.commit:
        parts.append(f"commit `{origin.commit}`")
    return ", ".join(parts)


def write_model_card(folder: Path, model: Published, card: Card, metrics: list[dict[str, float]]) -> Path:
    """Writes `README.md` into a model's folder.

    Args:
        folder: its `assets/` may hold `curves.png`, which the card then shows.
        metrics: one dictionary per logged step; the card has the means of the last `WINDOW`.
    """
    prompt = card.pictures[0].prompt if card.pictures else "a red cube on top of a blue sphere"
    is_doubled = card.is_preference and model.unconditional is not None and not card.holds_empty_prompt
    origins = {
        "base model": link(card.base, "model"),
        "data set": " and ".join(link(one, "data set") for one in card.data),
    }
    if card.base.others:
        origins["base model"] += ", from " + ", ".join(link(Origin(name), "model") for name in card.base.others)
    front = card.front(model.repo)
    filled = ModelCard.from_template(
        front,
        template_path=str(Path(__file__).parent / "templates" / "model_card.md"),
        title=model.repo.split("/")[-1],
        is_lora=card.is_lora,
        base_name=public_name(card.base.name, "model"),
        method=METHODS[card.loss_type],
        is_preference=card.is_preference,
        usage=model.usage(card.base, card.is_lora, prompt),
        is_guided_twice=is_doubled,
        guided_usage=model.guided_usage(card.base, card.is_lora, prompt),
        hooked_usage=model.hooked_usage(card.is_lora and not card.training.get("use_dora"), prompt),
        guide_with=card.guide_with,
        exports=model.exports,
        training={name: as_cell(value) for name, value in card.training.items()},
        facts=origins | card.told,
        has_curves=(folder / "assets" / "curves.png").is_file(),
        metrics=last_means(metrics[-WINDOW:]),
        window=min(WINDOW, len(metrics)),
        evaluation=card.evaluation.text() if card.evaluation else NOT_EVALUATED,
        guidance_scale=card.guidance_scale,
        pictures=[replace(picture, prompt=as_text(picture.prompt)) for picture in card.pictures],
        licence=front.to_dict(),
        versions=versions(),
    )
    filled.save(folder / "README.md")
    return folder / "README.md"


def set_evaluation(folder: Path, text: str) -> None:
    """Puts the figures of an evaluation into the card of a model that had none."""
    path = Path(folder) / "README.md"
    path.write_text(path.read_text(encoding="utf-8").replace(NOT_EVALUATED, text), encoding="utf-8")
