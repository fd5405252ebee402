"""LoRA on a denoiser: add it, switch it off for the reference, read and write its weights. Knows nothing of losses."""

import contextlib
from pathlib import Path

import torch
from accelerate.utils import extract_model_from_parallel
from diffusers import DiffusionPipeline
from diffusers.training_utils import cast_training_params
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .errors import UserError


LORA_FILE = "lora.safetensors"


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
        UserError: if no module of that name exists, or the rank is below 1.
    """
    if rank < 1:
        raise UserError(f"rank must be at least 1, got {rank}")
    denoiser.requires_grad_(False)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        init_lora_weights="gaussian",
        use_dora=use_dora,
    )
    try:
        denoiser.add_adapter(config)
    except ValueError as error:
        raise UserError(f"lora_layers {', '.join(targets)} name no layer of {type(denoiser).__name__}") from error
    cast_training_params(denoiser, dtype=torch.float32)


@contextlib.contextmanager
def adapters_off(denoiser: nn.Module):
    """Yields the bare denoiser in evaluation mode with its adapters switched off, and restores everything afterwards.

    PEFT clears `requires_grad` of adapters that it switches off, which would silently end training: it is restored too.
    Any wrapper for parallel training is left out, the autocast of mixed precision is kept.
    """
    bare = extract_model_from_parallel(denoiser)
    trainable = {parameter: parameter.requires_grad for parameter in bare.parameters()}
    training = {module: module.training for module in bare.modules()}
    bare.disable_adapters()
    bare.eval()
    try:
        yield bare
    finally:
        bare.enable_adapters()
        for parameter, flag in trainable.items():
            parameter.requires_grad_(flag)
        for module, flag in training.items():
            module.training = flag


def lora_state(denoiser: nn.Module) -> dict[str, Tensor]:
    """The LoRA weights of a denoiser under PEFT's names."""
    return get_peft_model_state_dict(extract_model_from_parallel(denoiser))


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
            f"the LoRA weights do not fit: {len(wrong)} tensors differ, first {wrong[0]}; use the same rank and lora_layers"
        )
    set_peft_model_state_dict(bare, state)


def save_lora(pipe_class: type[DiffusionPipeline], denoiser: nn.Module, name: str, folder) -> None:
    """Writes `pytorch_lora_weights.safetensors`, which `pipe.load_lora_weights(folder)` of any pipeline of the class reads.

    Args:
        name: the denoiser's name in the pipeline, "unet" or "transformer".
    """
    bare = extract_model_from_parallel(denoiser)
    weights = {f"{name}_lora_layers": lora_state(bare)}
    metadata = {f"{name}_lora_adapter_metadata": bare.peft_config["default"].to_dict()}
    pipe_class.save_lora_weights(folder, **weights, **metadata)


def register_lora_hooks(accelerator) -> None:
    """Makes `accelerator.save_state` and `load_state` handle only the LoRA weights of the prepared denoiser."""

    def save(models, weights, folder):
        if accelerator.is_main_process:
            save_file(
                {name: value.contiguous() for name, value in lora_state(models[0]).items()}, Path(folder) / LORA_FILE
            )
        weights.clear()

    def load(models, folder):
        load_lora_state(models.pop(), load_file(Path(folder) / LORA_FILE))

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)
