"""Writes the card of a trained model from what really happened. Knows nothing of models or losses."""

import json
import math
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData

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
WINDOW = 50  # logged steps whose mean a card has
UNKNOWN_LICENCE = {"license": "other", "license_name": "see-base-model"}


@dataclass(frozen=True)
class Evaluation:
    """What a model scored beside its base.

    Attributes:
        note: what was asked, of how many, with which seeds, and what the intervals are.
        dataset: Hub id or local path of the rows that it was asked about; `split` is theirs.
        label: what the model is called in the table.
        rows: for each metric its name, the base's interval, the model's, and that of the paired difference. An interval has
            `mean`, `low` and `high`, and is shown as its own text; `None` where the base has no such figure.
    """

    note: str
    dataset: str
    split: str
    label: str
    rows: list[tuple]

    def text(self) -> str:
        cells = [[row[0], *("-" if interval is None else str(interval) for interval in row[1:])] for row in self.rows]
        return f"{self.note}\n\n{markdown_table(['metric', 'base', self.label, 'difference'], cells)}"

    def results(self) -> list[EvalResult]:
        """The figures as the Hub reads them, without those of single principles and what is not finite."""
        name = public_name(self.dataset, "data set")
        return [
            EvalResult(
                task_type="text-to-image",
                dataset_type=name if name == self.dataset else "local",
                dataset_name=name,
                dataset_split=self.split,
                metric_type=metric,
                metric_value=float(f"{figure.mean:.6g}"),
                metric_name=f"{metric} (95 % interval {figure.low:.4g} to {figure.high:.4g})",
            )
            for metric, _, figure, _ in self.rows
            if metric.count("/") < 2 and all(map(math.isfinite, (figure.mean, figure.low, figure.high)))
        ]


def usage(
    pipeline_class: str, base: Origin, repo: str, is_lora: bool, dtype: str, prompt: str, branch: str | None
) -> str:
    """Python that loads the model and renders one image."""
    is_local = public_name(base.name, "model") != base.name
    revision = f', revision="{branch}"' if branch else ""
    lines = ["import torch", f"from diffusers import {pipeline_class}", ""]
    if is_lora:
        source = '"path/to/the/base"' if is_local else f'"{base.name}"'
        source += f', revision="{base.revision}"' if base.revision else ""
        lines.append(f'pipe = {pipeline_class}.from_pretrained({source}, dtype=torch.{dtype}).to("cuda")')
        # of a branch diffusers guesses no file name
        file = ', weight_name="pytorch_lora_weights.safetensors"' if branch else ""
        lines.append(f'pipe.load_lora_weights("{repo}"{file}{revision})')
    else:
        lines.append(f'pipe = {pipeline_class}.from_pretrained("{repo}"{revision}, dtype=torch.{dtype}).to("cuda")')
    lines.append(f"image = pipe(prompt={json.dumps(prompt, ensure_ascii=False)}).images[0]")
    return "\n".join(lines)


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
    name, folder = public_name(origin.name, what), "" if what == "model" else "datasets/"
    if name != origin.name:
        return name
    parts = [f"[{name}](https://huggingface.co/{folder}{name})"]
    parts += [f"revision `{origin.revision}`"] if origin.revision and origin.revision != origin.commit else []
    parts += [f"commit `{origin.commit}`"] if origin.commit else []
    return ", ".join(parts)


def _card_data(
    repo: str, base: Origin, data: Origin, is_preference: bool, is_lora: bool, evaluation: Evaluation | None
) -> ModelCardData:
    """The front matter: what the Hub reads."""
    is_public = public_name(base.name, "model") == base.name
    licence = base.licence or UNKNOWN_LICENCE
    if is_public and licence["license"] == "other":
        licence = {"license_name": "see-base-model", "license_link": f"https://huggingface.co/{base.name}"} | licence
    results = evaluation.results() if evaluation else []
    return ModelCardData(
        base_model=base.name if is_public else None,
        base_model_relation=("adapter" if is_lora else "finetune") if is_public else None,
        datasets=[data.name] if public_name(data.name, "data set") == data.name else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=TAGS + ["text-preference-optimization"] * is_preference + ["lora"] * is_lora,
        model_name=repo.split("/")[-1] if results else None,
        eval_results=results or None,
        license=licence["license"],
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
    )


def write_model_card(
    folder: Path,
    repo: str,
    base: Origin,
    data: Origin,
    pipeline_class: str,
    training: dict[str, object],
    facts: dict[str, object],
    metrics: list[dict[str, float]],
    evaluation: Evaluation | None = None,
    pictures: list[tuple[str, str, str]] | None = None,
    guidance_scale: float | None = None,
    dtype: str = "float16",
    branch: str | None = None,
) -> Path:
    """Writes `README.md` into a model's folder.

    Args:
        folder: its `assets/` may hold `curves.png`, which the card then shows.
        repo: the Hub id that the model is or would be pushed to.
        training: hyper-parameters by name, see [`~diffusers_tpo.privacy.public_config`]; `loss_type` and `resolution` are among
            them, and `use_lora` if it is a LoRA.
        facts: of the run, by name: [`training_facts`] and others.
        metrics: one dictionary per logged step; the card has the means of the last `WINDOW`.
        pictures: prompts with the names of two files in `assets/`: rendered by the base and by the model, at `guidance_scale`.
        dtype: that the model is best loaded in.
        branch: that it is or would be pushed to, if not the main one.
    """
    is_lora, is_preference = "use_lora" in training, training["loss_type"] != "sft"
    prompt = pictures[0][0] if pictures else "a red cube on top of a blue sphere"
    card_data = _card_data(repo, base, data, is_preference, is_lora, evaluation)
    card = ModelCard.from_template(
        card_data,
        template_path=str(Path(__file__).parent / "templates" / "model_card.md"),
        title=repo.split("/")[-1],
        is_lora=is_lora,
        base_name=public_name(base.name, "model"),
        method=METHODS[training["loss_type"]],
        is_preference=is_preference,
        usage=usage(pipeline_class, base, repo, is_lora, dtype, prompt, branch),
        training={name: as_cell(value) for name, value in training.items()},
        facts={"base model": link(base, "model"), "data set": link(data, "data set")} | facts,
        has_curves=(folder / "assets" / "curves.png").is_file(),
        metrics=last_means(metrics[-WINDOW:]),
        window=min(WINDOW, len(metrics)),
        evaluation=evaluation.text() if evaluation else NOT_EVALUATED,
        guidance_scale=guidance_scale,
        pictures=[(as_text(prompt), *names) for prompt, *names in pictures or []],
        licence=card_data.to_dict(),
        versions=versions(),
    )
    card.save(folder / "README.md")
    return folder / "README.md"


def set_evaluation(folder: Path, text: str) -> None:
    """Puts the figures of an evaluation into the card of a model that had none."""
    path = Path(folder) / "README.md"
    path.write_text(path.read_text(encoding="utf-8").replace(NOT_EVALUATED, text), encoding="utf-8")
