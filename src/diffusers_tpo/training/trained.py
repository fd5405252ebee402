"""The models of a run: what of a pipeline is trained, what it is compared with, and what stays frozen. Knows no data."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import extract_model_from_parallel
from diffusers import DiffusionPipeline
from diffusers.training_utils import EMAModel, offload_models
from torch import Tensor, nn

from ..errors import UserError, reason
from ..families import Conditioning, Family, side_multiple
from ..models.adapters import lora_state, published_lora, register_average, register_hooks, train_denoiser
from ..models.exports import LAYERS_PER_BLOCK, export
from ..models.loading import load_base, speed_up
from ..models.recipe import ModelRecipe
from ..models.text_encoders import TrainedTextEncoders, train_text_encoders
from ..noising import Scheduler, training_scheduler


class FrozenParts:
    """The parts of a pipeline that only encode and decode, on the device all the time or only while they work.

    Attributes:
        autoencoder, text_encoders: lists of modules; trained text encoders are not among them.
    """

    def __init__(self, pipe: DiffusionPipeline, trained: set[str], device: torch.device, offload: bool = False):
        """
        Args:
            trained: names of the parts that are trained and stay where they are.
            offload: keep what is frozen on the CPU while it is not needed.
        """
        self.device = device
        modules = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
        frozen = {name: module for name, module in modules.items() if name not in trained}
        self.autoencoder = [frozen.pop("vae")]
        self.text_encoders = [frozen.pop(name) for name in list(frozen) if name.startswith("text_encoder")]
        for other in frozen.values():
            other.to(device)
        for part in (*self.autoencoder, *self.text_encoders):
            part.to("cpu" if offload else device)

    def working(self, parts: list[nn.Module]) -> contextlib.AbstractContextManager[None]:
        """The context in which parts are on the device; afterwards they are where they were."""
        return offload_models(*parts, device=self.device, offload=bool(parts))

    def retire(self, parts: list[nn.Module]) -> None:
        """Takes parts off the device, whose work is done."""
        for part in parts:
            part.to("cpu")


@dataclass
class TrainedModels:
    """A pipeline, its trainable denoiser and text encoders, and the reference that they are compared with.

    Attributes:
        recipe: how they are loaded and what they are told.
        scheduler: the forward process.
        denoiser: as it is called while training; wrapped once [`~TrainedModels.prepare`] was called.
        text: the text encoders that are trained; `None` if none is.
        reference: the frozen copy of full training; `None` takes the policy with its adapters off.
        trainable: every parameter that is trained, wrapped or split as the launcher asks.
        average: of these, `None` without one.
    """

    recipe: ModelRecipe
    pipe: DiffusionPipeline
    family: Family
    scheduler: Scheduler
    denoiser: nn.Module
    frozen: FrozenParts
    text: TrainedTextEncoders | None = None
    reference: nn.Module | None = None
    trainable: list[nn.Parameter] = field(default_factory=list)
    average: EMAModel | None = None

    @classmethod
    def load(
        cls,
        recipe: ModelRecipe,
        accelerator: Accelerator,
        needs_reference: bool = True,
        reference_is_known: bool = False,
        reference_dtype: torch.dtype = torch.float32,
        reference_device: str | None = None,
        offload: bool = False,
        cache_dir: str | None = None,
        token: str | None = None,
    ) -> "TrainedModels":
        """Loads a pipeline and makes what the recipe says of it trainable, in float32.

        Args:
            needs_reference: supervised fine-tuning needs none; full training keeps frozen copies for it ...
            reference_is_known: ... but of the denoiser, if all its errors are computed before.
            reference_dtype, reference_device: of the frozen copy of the denoiser; by default where the policy is.
            offload: keep what is frozen on the CPU while it is not needed.

        Raises:
            UserError: if it cannot be loaded, has no family, or the recipe does not suit it.
        """
        pipe = load_base(recipe, cache_dir, token)
        family, device = recipe.family(pipe), accelerator.device
        denoiser, reference = getattr(pipe, family.denoiser), None
        if needs_reference and not recipe.lora and not reference_is_known:
            reference = _placed(copy.deepcopy(denoiser), reference_device or device, reference_dtype)
        train_denoiser(denoiser, family, recipe.lora)
        denoiser.train()
        text = None
        if recipe.train_text_encoder:
            text = train_text_encoders(pipe, family, recipe.lora, needs_reference)
            for part in (*text.modules().values(), *text.copies.values()):
                part.to(device)
        trained = {family.denoiser, *(text.names if text else ())}
        return cls(
            recipe,
            pipe,
            family,
            training_scheduler(pipe.scheduler),
            denoiser,
            FrozenParts(pipe, trained, device, offload),
            text,
            reference,
        )

    def speed_up(self, gradient_checkpointing: bool, channels_last: bool, compile_backend: str | None) -> None:
        """Changes how denoiser and reference are computed, but not what; see [`~diffusers_tpo.models.loading.speed_up`].

        Args:
            gradient_checkpointing: less memory, more time.
        """
        if gradient_checkpointing:
            denoiser: Any = self.denoiser
            denoiser.enable_gradient_checkpointing()
        for module in filter(None, (self.denoiser, self.reference)):
            speed_up(module, channels_last, compile_backend)

    @property
    def is_lora(self) -> bool:
        """Whether adapters are trained, and not the weights themselves."""
        return self.recipe.lora is not None

    @property
    def knows_reference(self) -> bool:
        """Whether its reference can be asked about a prompt as the denoiser is told it."""
        return self.text is None and (self.is_lora or self.reference is not None)

    @property
    def side_multiple(self) -> int:
        """Of how many pixels the sides of an image must be multiples."""
        return side_multiple(self.pipe, self.family)

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """Those that are trained, by name."""
        return self.text.modules() if self.text else {}

    def check_empty_prompt(self) -> None:
        """Raises [`UserError`] if the model is never asked about the empty prompt."""
        if not self.family.asks_empty_prompt(self.pipe):
            raise UserError(
                "--null_anchor and --null_keep hold the answer to the empty prompt, and this model is guided by distillation and "
                "never asked about it; leave them out"
            )

    def exported(self, format: str) -> dict[str, Tensor]:
        """The LoRA as it is, in another program's format; call it on every process.

        Raises:
            UserError: where the format cannot hold it.
        """
        per_block = self.pipe.unet.config.layers_per_block if self.family.denoiser == "unet" else LAYERS_PER_BLOCK
        parts = {self.family.denoiser: self.denoiser} | self.text_encoders
        state: dict[str, Tensor] = {}
        for part, module in parts.items():
            bare = extract_model_from_parallel(module)
            state |= {f"{part}.{name}": value for name, value in published_lora(bare, lora_state(module)).items()}
        return export(state, format, type(self.pipe), per_block)

    def text_metrics(
        self, cond: Conditioning, ref_cond: Conditioning | None, images: int, prompts_per_image: int
    ) -> dict[str, Tensor]:
        """How far apart matched and mismatched prompts are, see [`TrainedTextEncoders.metrics`]; nothing if none is trained."""
        return self.text.metrics(cond, ref_cond, images, prompts_per_image) if self.text else {}

    def parameter_groups(self, learning_rate: float, text_encoder_lr: float | None = None) -> list[dict]:
        """What an optimizer is given: the trainable weights of the denoiser, and those of the text encoders."""
        own = [parameter for parameter in self.denoiser.parameters() if parameter.requires_grad]
        groups = [{"params": own, "lr": learning_rate}]
        if self.text:
            groups.append({"params": self.text.parameters(), "lr": text_encoder_lr or learning_rate})
        return groups

    def prepare(
        self, optimizer: torch.optim.Optimizer, accelerator: Accelerator, ema_decay: float | None = None
    ) -> AcceleratedOptimizer:
        """Wraps the denoiser for the launcher's processes, and lets checkpoints hold what is trained and nothing else.

        Args:
            ema_decay: upper bound of the decay of averaged weights; `None` keeps none.

        Returns:
            The prepared optimizer.
        """
        register_hooks(accelerator, self.is_lora, self.text_encoders)
        self.denoiser, optimizer = accelerator.prepare(self.denoiser, optimizer)
        self.trainable = [
            parameter for module in self._trained() for parameter in module.parameters() if parameter.requires_grad
        ]
        if ema_decay is not None:
            self.average = EMAModel(self.trainable, decay=ema_decay)
            register_average(accelerator, self.average)
        return optimizer

    def _trained(self) -> list[nn.Module]:
        return [self.denoiser, *self.text_encoders.values()]

    def as_reference(self) -> nn.Module | None:
        """What stands for the reference before the first step, see [`TPOTrainer`]: the policy is still the same."""
        return None if self.is_lora else extract_model_from_parallel(self.denoiser)

    @contextlib.contextmanager
    def at_rest(self, whole: bool = True) -> Iterator[DiffusionPipeline]:
        """The pipeline to judge, render or save: averaged weights, evaluation mode, everything on the device.

        Args:
            whole: `False` leaves frozen parts where they are, for what asks the denoiser alone.
        """
        parts = [*self.frozen.autoencoder, *self.frozen.text_encoders] if whole else []
        with averaged_weights(self.average, self.trainable, *self._trained()), self.frozen.working(parts):
            yield self.pipe


def _placed(module: nn.Module, device: torch.device | str, dtype: torch.dtype) -> nn.Module:
    """A module on a device; raises [`UserError`] if there is none of this name, or no room on it."""
    try:
        return module.to(device=device, dtype=dtype)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without the device
        raise UserError(f"--reference_device {str(device)!r} cannot hold the reference ({reason(error)})") from error


@contextlib.contextmanager
def averaged_weights(average: EMAModel | None, parameters: list[nn.Parameter], *modules: nn.Module) -> Iterator[None]:
    """What is trained in evaluation mode with averages in place of `parameters`; restores both."""
    was_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    if average is not None:
        average.store(parameters)
        average.copy_to(parameters)
    try:
        yield
    finally:
        if average is not None:
            average.restore(parameters)
        for module, mode in zip(modules, was_training, strict=True):
            module.train(mode)
