"""LoRA on a denoiser: add it, switch it off for the reference, read and write its weights. Knows nothing of losses."""

import contextlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import extract_model_from_parallel
from diffusers import DiffusionPipeline
from diffusers.loaders import PeftAdapterMixin
from diffusers.training_utils import EMAModel, cast_training_params
from packaging.version import Version
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.integrations import PeftAdapterMixin as TransformersAdapterMixin
from transformers.integrations.peft import MIN_PEFT_VERSION

from ..errors import UserError, reason
from ..families import Family
from .precision import precision_of
from .recipe import LoraShape


LORA_FILE = "lora.safetensors"
EMA_FILE = "ema.safetensors"


def train_denoiser(denoiser: nn.Module, family: Family, lora: LoraShape | None) -> None:
    """Makes a denoiser trainable, but for layers whose output it does not use: they would get no gradient.

    Args:
        lora: what is added and trained; `None` trains all weights.

    Raises:
        UserError: if the denoiser takes no such LoRA.
    """
    if lora is None:
        denoiser.requires_grad_(True)
    else:
        add_lora(denoiser, lora.layers or family.lora_targets, lora.rank, lora.alpha, lora.dropout, lora.use_dora)
    for layer in family.idle_layers(denoiser):
        layer.requires_grad_(False)


def add_lora(
    denoiser: nn.Module,
    targets: tuple[str, ...],
    rank: int = 16,
    alpha: float | None = None,
    dropout: float = 0.0,
    use_dora: bool = False,
) -> None:
    """Freezes the denoiser and adds trainable float32 LoRA weights to the modules whose names end in one of `targets`.

    Args:
        alpha: scale of the update times `rank`; `None` takes `rank`, so the scale is one.

    Raises:
        UserError: if no module of that name exists, the rank is below 1, the denoiser takes no adapters, or PEFT is too old.
    """
    if not isinstance(denoiser, (PeftAdapterMixin, TransformersAdapterMixin)):
        raise UserError(
            f"--use_lora adds adapters, and diffusers loads none into a {type(denoiser).__name__}; leave it out and train in full"
        )
    if rank < 1:
        raise UserError(f"--rank must be at least 1, got {rank}")
    check_peft()
    names = [f".{name}" for name, _ in denoiser.named_modules()]
    if not any(name.endswith(f".{target}") for name in names for target in targets):
        raise UserError(f"--lora_layers {', '.join(targets)} name no layer of {type(denoiser).__name__}")
    denoiser.requires_grad_(False)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,  # type: ignore[arg-type] # PEFT takes any number
        lora_dropout=dropout,
        target_modules=list(targets),
        init_lora_weights="gaussian",
        use_dora=use_dora,
    )
    try:
        denoiser.add_adapter(config)
    except (TypeError, ValueError) as error:  # a layer that PEFT cannot adapt, such as a norm
        layers = ", ".join(targets)
        raise UserError(
            f"--lora_layers {layers} of a {type(denoiser).__name__} take no LoRA ({reason(error)})"
        ) from error
    cast_training_params(denoiser, dtype=torch.float32)


def check_peft(installed: str | None = None) -> None:
    """Checks that the PEFT that is installed is one that diffusers and transformers work with.

    Raises:
        UserError: if it is older than they ask for.
    """
    installed = installed or importlib.metadata.version("peft")
    wanted = {"diffusers": diffusers.utils.constants.MIN_PEFT_VERSION, "transformers": MIN_PEFT_VERSION}
    for library, version in wanted.items():
        if Version(installed) < Version(version):
            have = f"{library} {importlib.metadata.version(library)}"
            raise UserError(
                f"--use_lora needs peft {version} or newer with {have}, and {installed} is installed; update peft, or use an "
                f"older {library}"
            )


@contextlib.contextmanager
def adapters_off(denoiser: nn.Module) -> Iterator[nn.Module]:
    """Yields the bare denoiser in evaluation mode with its adapters switched off, and restores everything afterwards.

    PEFT clears `requires_grad` of adapters that it switches off, which would silently end training: it is restored too.
    Any wrapper for parallel training is left out, the autocast of mixed precision is kept.

    Raises:
        UserError: if it carries none.
    """
    bare = extract_model_from_parallel(denoiser)
    layers = [module for module in bare.modules() if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper)]
    if not layers:
        raise UserError(
            f"there is no reference: the {type(bare).__name__} carries no adapters; add a LoRA with "
            "diffusers_tpo.models.adapters.add_lora, or give a frozen copy as TPOTrainer(reference=...)"
        )
    trainable = {parameter: parameter.requires_grad for parameter in bare.parameters()}
    training = {module: module.training for module in bare.modules()}
    for layer in layers:
        layer.enable_adapters(False)
    bare.eval()
    try:
        yield bare
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, flag in trainable.items():
            parameter.requires_grad_(flag)
        for module, flag in training.items():
            module.training = flag


def has_lora(module: nn.Module) -> bool:
    return bool(getattr(module, "peft_config", None))


def why_no_reference(pipe: DiffusionPipeline, family: Family, reference: nn.Module | None = None) -> str | None:
    """Why nobody can say what the reference of a pipeline would predict; `None` if somebody can.

    Args:
        reference: the base's denoiser, if it is at hand.
    """
    if reference is None and not has_lora(getattr(pipe, family.denoiser)):
        return "it has no LoRA that can be switched off, and the base's denoiser is not at hand"
    for name, part in pipe.components.items():
        if name.startswith("text_encoder") and isinstance(part, nn.Module) and has_lora(part):
            return f"its {name} carries a LoRA too, so the reference would be told something else than before"
    return None


@torch.no_grad()
def predict_by_reference(
    family: Family,
    denoiser: nn.Module,
    reference: nn.Module | None,
    latents: Tensor,
    timesteps: Tensor,
    cond: dict[str, Tensor],
) -> Tensor:
    """What the reference predicts, on the device of `latents`: a module of its own in its own place and precision, or without
    one the denoiser with its adapters off."""
    if reference is None:
        with adapters_off(denoiser) as bare:
            return family.predict(bare, latents, timesteps, cond)
    device = next(reference.parameters()).device
    there = {name: value.to(device) for name, value in cond.items()}
    with precision_of(reference):
        return family.predict(reference, latents.to(device), timesteps.to(device), there).to(latents.device)


def whole(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors, whole where FSDP has split them over the processes; call it on every process."""
    return [value.full_tensor() if isinstance(value, DTensor) else value for value in tensors]


def whole_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same of named weights."""
    return dict(zip(state, whole(list(state.values())), strict=True))


def whole_module(module: nn.Module) -> nn.Module:
    """The module without its wrapper, as a copy on the CPU if FSDP has split its weights; call it on every process."""
    bare = extract_model_from_parallel(module)
    if not isinstance(bare, FSDPModule):
        return bare
    split: Any = bare
    own: Any = next(kind for kind in type(bare).__mro__ if not issubclass(kind, FSDPModule))
    whole = own.from_config(split.config)
    whole.load_state_dict({name: value.cpu() for name, value in whole_tensors(split.state_dict()).items()})
    return whole


def lora_state(denoiser: nn.Module) -> dict[str, Tensor]:
    """The LoRA weights of a denoiser under PEFT's names; call it on every process."""
    return whole_tensors(get_peft_model_state_dict(extract_model_from_parallel(denoiser)))


def load_lora_state(denoiser: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts weights of [`lora_state`] into a denoiser that already has the same LoRA.

    Raises:
        UserError: if the weights are those of another LoRA.
    """
    bare = extract_model_from_parallel(denoiser)
    own = lora_state(bare)
    wrong = sorted(set(own) ^ set(state)) or [name for name in own if own[name].shape != state[name].shape]
    if wrong:
        raise UserError(
            f"the LoRA weights do not fit: {len(wrong)} tensors differ, first {wrong[0]}; use the same --rank and --lora_layers"
        )
    set_peft_model_state_dict(bare, state)


def save_lora(
    pipe_class: type[DiffusionPipeline],
    denoiser: nn.Module,
    name: str,
    folder: str | Path,
    text_encoders: dict[str, nn.Module] | None = None,
) -> None:
    """Writes `pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(folder)` of any pipeline of the class reads.

    Call it on every process.

    Args:
        name: the denoiser's name in the pipeline, "unet" or "transformer".
        text_encoders: those that carry a LoRA too, by their names in the pipeline.
    """
    weights, metadata = {}, {}
    for part, module in {name: denoiser, **(text_encoders or {})}.items():
        bare = extract_model_from_parallel(module)
        weights[f"{part}_lora_layers"] = published_lora(bare, lora_state(module))
        metadata[f"{part}_lora_adapter_metadata"] = published_config(bare)
    if PartialState().is_main_process:
        pipe_class.save_lora_weights(folder, **weights, **metadata)


def lora_config(module: nn.Module) -> LoraConfig:
    """Of the one LoRA that a module carries."""
    configs: Any = module.peft_config
    return configs["default"]


def published_lora(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """LoRA weights as every reader takes them: with the scale in them, so that alpha is the rank.

    Readers find alpha in different places, and take the rank where they find none.

    Args:
        state: of [`lora_state`].
    """
    config = lora_config(module)
    scale = config.lora_alpha / config.r
    scaled = {key: value * scale if "lora_B" in key else value for key, value in state.items()}
    if isinstance(module, TransformersAdapterMixin):  # it reads the vectors of DoRA under the names of its modules
        return {f"{key}.weight" if key.endswith("lora_magnitude_vector") else key: x for key, x in scaled.items()}
    return scaled


def published_config(module: nn.Module) -> dict[str, object]:
    """The PEFT configuration that goes with [`published_lora`]: for use, so without the dropout of training."""
    config = lora_config(module)
    return config.to_dict() | {"base_model_name_or_path": None, "lora_alpha": config.r, "lora_dropout": 0.0}


def load_trained(modules: dict[str, nn.Module], use_lora: bool, folder: str | Path) -> None:
    """Reads the file that [`register_hooks`] wrote for each module, by name."""
    for name, module in modules.items():
        state = load_file(Path(folder) / f"{name}.safetensors")
        load_lora_state(module, state) if use_lora else module.load_state_dict(state)


def register_hooks(accelerator: Accelerator, use_lora: bool, text_encoders: dict[str, nn.Module]) -> None:
    """Makes `accelerator.save_state` and `load_state` handle what is trained and nothing else.

    Args:
        use_lora: of the prepared denoiser only the LoRA is written, to `lora.safetensors`; else accelerate writes it.
        text_encoders: those that are trained, by name; each, or its LoRA, has a file of that name.
    """

    def state_of(module: nn.Module) -> dict[str, Tensor]:
        return lora_state(module) if use_lora else module.state_dict()

    def save(models: list[nn.Module], weights: list[dict], folder: str) -> None:
        trained = {LORA_FILE: models[0]} if use_lora else {}
        trained |= {f"{name}.safetensors": module for name, module in text_encoders.items()}
        for file, module in trained.items():
            state = {key: value.contiguous() for key, value in state_of(module).items()}
            if accelerator.is_main_process:
                save_file(state, Path(folder) / file)
        if use_lora:
            weights.clear()

    def load(models: list[nn.Module], folder: str) -> None:
        if use_lora and models:  # what FSDP has split is not among them: accelerate has read it back with its base
            load_lora_state(models.pop(), load_file(Path(folder) / LORA_FILE))
        load_trained(text_encoders, use_lora, folder)

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def register_average(accelerator: Accelerator, average: EMAModel) -> None:
    """Makes `accelerator.save_state` and `load_state` handle averaged weights too, in `ema.safetensors`."""

    def save(models: list[nn.Module], weights: list[dict], folder: str) -> None:
        state = {str(number): value.contiguous() for number, value in enumerate(whole(average.shadow_params))}
        state["optimization_step"] = torch.tensor(average.optimization_step)
        if accelerator.is_main_process:
            save_file(state, Path(folder) / EMA_FILE)

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(lambda models, folder: load_average(average, Path(folder)))


def load_average(average: EMAModel, folder: Path) -> None:
    """Puts the averaged weights of a checkpoint into `average`, split as its weights are."""
    state = load_file(folder / EMA_FILE)
    average.optimization_step = state.pop("optimization_step").item()
    if len(state) != len(average.shadow_params):
        raise ValueError(f"{EMA_FILE} holds {len(state)} weights, not {len(average.shadow_params)}")
    for number, old in enumerate(average.shadow_params):
        new = state[str(number)].to(old.device)
        if isinstance(old, DTensor):
            new = distribute_tensor(new, old.device_mesh, old.placements)
        old.copy_(new)
