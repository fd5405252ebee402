"""What a run is about to do, said before it begins: rows, steps, what learns, memory and disk. Changes nothing."""

import math
import shutil
from collections.abc import Iterable
from pathlib import Path

import psutil
import torch
from accelerate.utils import convert_bytes
from torch import nn

from ..data.dataset import TextPreferenceDataset
from .loader import PlacedLoader
from .trained import TrainedModels


FULL = 4  # bytes of a number in float32: trained weights, their gradients, their average
ADAM, ADAM_8BIT = 8, 2  # bytes of AdamW's two moments of a parameter


def bytes_of(modules: Iterable[nn.Module], device: torch.device) -> int:
    """Of the weights of modules that lie on a kind of device."""
    weights = (weight for module in modules for weight in module.parameters() if weight.device.type == device.type)
    return sum(weight.numel() * weight.element_size() for weight in weights)


def memory_of(device: torch.device) -> int:
    """Bytes that a device has, of the CPU those of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def in_words(steps: int, per_epoch: int | None) -> str:
    """How much of the data so many optimizer steps are."""
    if per_epoch is None:
        return f"{steps:,}"
    return f"{steps:,}, of which {per_epoch:,} go through the data once"


class Plan:
    """A run before its first step.

    Attributes:
        trained: how many parameters are.
        state: bytes of what a checkpoint keeps of them: weights, moments of the optimizer, average. In memory a gradient takes
            the place of the weight, which the pipeline has.
    """

    def __init__(
        self, models: TrainedModels, loader: PlacedLoader, first_step: int, last_step: int, is_8bit: bool = False
    ):
        """
        Args:
            models: prepared, so that it is known what is trained.
            is_8bit: whether the optimizer keeps its moments in 8 bits.
        """
        self.models, self.loader = models, loader
        self.first_step, self.last_step = first_step, last_step
        self.device = loader.accelerator.device
        self.trained = sum(weight.numel() for weight in models.trainable)
        moments = ADAM_8BIT if is_8bit else ADAM
        self.state = self.trained * (FULL + moments + (FULL if models.average else 0))

    def data(self, prompts_per_image: int, batch_size: int) -> dict[str, str]:
        """Rows and steps.

        Args:
            batch_size: images per process and forward pass.
        """
        dataset = self.loader.dataset
        rows = f"{len(dataset):,}" if isinstance(dataset, TextPreferenceDataset) else "a stream"
        processes, passes = self.loader.accelerator.num_processes, self.loader.accumulation_steps
        parts = f"{batch_size} a pass, {passes} passes, {processes} process{'es' if processes > 1 else ''}"
        steps = in_words(self.last_step, self.loader.steps_per_epoch)
        return {
            "rows": rows,
            "images per step": f"{batch_size * passes * processes} ({parts}), with {prompts_per_image} prompts each",
            "optimizer steps": f"{steps}; {self.first_step:,} are done" if self.first_step else steps,
        }

    def learning(self, needs_reference: bool, reference_is_known: bool) -> dict[str, str]:
        """What is trained, and what it is compared with.

        Args:
            reference_is_known: whether its errors have been computed before.
        """
        whole = sum(weight.numel() for weight in self.models.denoiser.parameters())
        kind = "a LoRA" if self.models.is_lora else "all weights"
        encoders = f" and {', '.join(self.models.text_encoders)}" if self.models.text else ""
        return {
            "trained": f"{kind} of {self.models.family.denoiser}{encoders}: {self.trained:,} parameters; the denoiser has {whole:,}",
            "reference": self._reference(needs_reference, reference_is_known),
        }

    def _reference(self, is_needed: bool, is_known: bool) -> str:
        if not is_needed:
            return "none, as supervised fine-tuning compares with nothing"
        if is_known:
            return "the base, whose errors have been computed before"
        if self.models.reference is None:
            return "the base, which is the same network with the LoRA switched off"
        weight = next(self.models.reference.parameters())
        return f"a frozen copy on {weight.device}, {str(weight.dtype).removeprefix('torch.')}"

    def memory(self) -> dict[str, str]:
        """What weights, gradients and optimizer take, which is less than the run does."""
        parts = [part for part in self.models.pipe.components.values() if isinstance(part, nn.Module)]
        modules = [*parts, *([self.models.reference] if self.models.reference else [])]
        weights = bytes_of(modules, self.device)
        has = convert_bytes(memory_of(self.device))
        what = f"{convert_bytes(weights)} of weights, {convert_bytes(self.state)} of gradients and optimizer"
        return {"memory": f"{what}, and activations on top; the {self.device.type} has {has}"}

    def disk(self, folder: Path, every: int, limit: int | None = None) -> dict[str, str]:
        """What the checkpoints take.

        Args:
            every: so many steps one is written; at most `limit` are kept.
        """
        left = math.ceil(self.last_step / every) - self.first_step // every
        number = left if limit is None else min(left, limit)
        free = shutil.disk_usage(folder).free
        what = f"{number} checkpoint{'s' if number > 1 else ''} of {convert_bytes(self.state)}"
        return {"disk": f"{what}, {convert_bytes(number * self.state)} together; {convert_bytes(free)} are free"}


def as_lines(facts: dict[str, str]) -> str:
    """Facts below one another, their values aligned."""
    width = max(map(len, facts))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in facts.items())
