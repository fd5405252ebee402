"""Text encoders that are trained beside the denoiser, and their frozen reference. Knows nothing of losses or data."""

import contextlib
import copy
from dataclasses import dataclass, field

import torch
from accelerate.utils import reduce
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ..errors import UserError
from ..families import Conditioning, Family
from .adapters import adapters_off, add_lora
from .precision import release_precision
from .recipe import LoraShape


LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")  # the attention of CLIP


@dataclass
class TrainedTextEncoders:
    """The text encoders of a pipeline that are trained: prompts are encoded in the graph.

    They are not wrapped for parallel training: call [`~TrainedTextEncoders.average_gradients`] before each optimizer step.

    Attributes:
        names: of the encoders in the pipeline.
        copies: their frozen copies in full training; empty with LoRA, where the reference is the encoder with adapters off.
    """

    pipe: DiffusionPipeline
    family: Family
    names: list[str]
    copies: dict[str, nn.Module] = field(default_factory=dict)

    def modules(self) -> dict[str, nn.Module]:
        return {name: getattr(self.pipe, name) for name in self.names}

    def parameters(self) -> list[nn.Parameter]:
        return [p for module in self.modules().values() for p in module.parameters() if p.requires_grad]

    def encode(self, prompts: list[str]) -> Conditioning:
        """What the policy is told of `len(prompts)` rows."""
        return self.family.encode_prompts(self.pipe, prompts)

    @torch.no_grad()
    def encode_reference(self, prompts: list[str]) -> Conditioning:
        """What the reference is told of them; call it before [`~TrainedTextEncoders.encode`]."""
        with contextlib.ExitStack() as stack:
            for name, module in self.modules().items():
                if self.copies:
                    setattr(self.pipe, name, self.copies[name])
                    stack.callback(setattr, self.pipe, name, module)
                else:
                    stack.enter_context(adapters_off(module))
            return self.family.encode_prompts(self.pipe, prompts)

    def metrics(
        self, cond: Conditioning, ref_cond: Conditioning | None, images: int, prompts_per_image: int
    ) -> dict[str, Tensor]:
        """The [`distance`] that policy and reference see; nothing without mismatched prompts."""
        if ref_cond is None or prompts_per_image == 1:
            return {}
        parts = {"text/distance": cond, "text/distance_reference": ref_cond}
        return {name: distance(part, images, prompts_per_image) for name, part in parts.items()}

    def average_gradients(self) -> None:
        """Gives every process the mean of all processes' gradients."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad = reduce(parameter.grad, "mean")


def train_text_encoders(
    pipe: DiffusionPipeline, family: Family, lora: LoraShape | None, needs_reference: bool
) -> TrainedTextEncoders:
    """Makes the text encoders of a pipeline trainable.

    Args:
        lora: that is added to each, to the layers of its attention; `None` trains all their weights.
        needs_reference: full training keeps frozen copies; supervised fine-tuning needs none.

    Raises:
        UserError: if the pipeline has no text encoder that can be trained.
    """
    names = [name for name in family.text_encoders if getattr(pipe, name) is not None]
    if not names:
        raise UserError(
            f"--train_text_encoder: the text encoders of a {type(pipe).__name__} cannot be trained here; leave it out"
        )
    encoders = TrainedTextEncoders(pipe, family, names)
    for module in encoders.modules().values():
        release_precision(module)
    if lora is None and needs_reference:
        encoders.copies = {name: copy.deepcopy(module) for name, module in encoders.modules().items()}
    for module in encoders.modules().values():
        if lora is None:
            module.requires_grad_(True)
        else:
            add_lora(module, LORA_TARGETS, lora.rank, lora.alpha, lora.dropout, lora.use_dora)
        module.train()
    return encoders


def distance(cond: Conditioning, images: int, prompts_per_image: int) -> Tensor:
    """Mean cosine distance between the matched and the mismatched embeddings of an image, all values of a row as one vector.

    Args:
        cond: rows in as many blocks of `images` rows, the matched one first; others may follow.
    """
    rows = torch.cat([value.detach().float().flatten(1) for value in cond.values()], dim=1)
    matched, *mismatched = rows[: prompts_per_image * images].unflatten(0, (prompts_per_image, images))
    return torch.stack([1 - torch.cosine_similarity(matched, other) for other in mismatched]).mean()
