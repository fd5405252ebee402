"""In which precision each part of a pipeline works, while training, judging and rendering. Knows nothing of files or losses.

Half precision is for the denoiser. An autoencoder overflows in it unless its author says otherwise, and of the text encoders
only CLIP and T5 stay within the range of float16.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


HALF = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DENOISERS = ("unet", "transformer")
SAFE_IN_FP16 = (
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "T5EncoderModel",
)  # transformers keeps T5's outliers wide
METHODS = ("forward", "encode", "decode")
HELD = "holds_its_precision"  # in the classes of modules that do


def part_dtypes(index: dict, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The precision in which the weights of each part of a pipeline are loaded.

    Args:
        index: of the pipeline, `model_index.json`: library and class of every part.
        dtype: of the denoiser.
    """
    dtypes = {"vae": torch.float32, "default": dtype}
    if dtype is torch.float16:
        for name, part in index.items():
            if name.startswith("text_encoder") and part[1] not in (None, *SAFE_IN_FP16):
                dtypes[name] = torch.float32
    return dtypes


def may_halve(vae: nn.Module) -> bool:
    """Whether the author of an autoencoder says that it works in half precision."""
    config: Any = vae.config
    return not config.get("force_upcast", True)


def hold_precision(module: nn.Module) -> None:
    """Makes a module compute in the precision of its own weights, whatever autocast or input surrounds it.

    The module becomes one of a subclass of the same name, so that copies of it do the same.
    """
    if not is_held(module):
        module.__class__ = _holding(type(module))  # type: ignore[arg-type] # a class can be hashed


def release_precision(module: nn.Module) -> None:
    """Takes [`hold_precision`] back: a part that is trained computes in mixed precision."""
    if is_held(module):
        module.__class__ = type(module).__bases__[0]


def is_held(module: nn.Module) -> bool:
    return HELD in vars(type(module))


@functools.cache
def _holding(cls: type[nn.Module]) -> type[nn.Module]:
    methods = {name: _in_own_precision(getattr(cls, name)) for name in METHODS if hasattr(cls, name)}
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, HELD: True}
    return type(cls)(cls.__name__, (cls,), methods | names)  # type: ignore[misc] # as `class` would


def _in_own_precision(method: Callable) -> Callable:
    @functools.wraps(method)
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        weight = next(self.parameters())

        def fitting(value: Any) -> Any:
            return value.to(weight.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        with torch.autocast(weight.device.type, enabled=False):
            return method(self, *map(fitting, args), **{name: fitting(value) for name, value in kwargs.items()})

    return call


@contextlib.contextmanager
def precision_of(module: nn.Module) -> Iterator[None]:
    """Computes as mixed precision does, in the half precision of a module's weights; changes nothing if they are wide.

    Latents, timesteps and sizes stay float32, so the module is told the same numbers whatever its weights are.
    """
    weight = next(module.parameters(), torch.empty(0))
    is_half = weight.dtype in (torch.float16, torch.bfloat16)
    place = torch.autocast(weight.device.type, dtype=weight.dtype) if is_half else contextlib.nullcontext()
    with place:
        yield
