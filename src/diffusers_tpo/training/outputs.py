"""Writes what a run leaves: the LoRA or the pipeline, its curves and its card. Knows nothing of training."""

from pathlib import Path

from accelerate import PartialState
from diffusers import DiffusionPipeline
from torch import nn

from ..families import Family
from ..models.adapters import save_lora, whole_module
from ..models.loading import save_pipeline
from ..publish.curves import draw_training
from ..publish.model_card import write_model_card


HALF = {"unet": "float16", "transformer": "bfloat16"}  # what a finished model is best loaded in


def save_model(
    output: Path,
    repo: str,
    pipe: DiffusionPipeline,
    denoiser: nn.Module,
    family: Family,
    text_encoders: dict[str, nn.Module],
    is_lora: bool,
    metrics: list[dict],
    **card,
) -> None:
    """Writes a model and its card; call it on every process.

    Args:
        repo: on the Hub, which the card names.
        denoiser: as it is trained, wrapped or not.
        text_encoders: those that carry a LoRA too, by name.
        metrics: the rows of the training log.
        card: see [`write_model_card`].
    """
    live = getattr(pipe, family.denoiser)
    if is_lora:
        save_lora(type(pipe), denoiser, family.denoiser, output, text_encoders)
    else:
        setattr(pipe, family.denoiser, whole_module(denoiser))
    if PartialState().is_main_process:
        if not is_lora:
            save_pipeline(pipe, output)
        if metrics:
            draw_training(metrics, output / "assets" / "curves.png")
        dtype, name = HALF[family.denoiser], type(pipe).__name__
        write_model_card(output, repo, pipeline_class=name, metrics=metrics, dtype=dtype, **card)
    setattr(pipe, family.denoiser, live)
