"""Classifier-free guidance with the reference's answer to the empty prompt. Knows nothing of training.

A preference between prompts is guidance that is learned (https://huggingface.co/papers/2410.09347): a model that prefers its
prompt has moved along the direction that guidance takes it again at sampling time. Where the empty prompt is answered by the
frozen reference, guidance starts from where it started before training (as in https://huggingface.co/papers/2503.20240).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from .errors import UserError
from .families import family_of
from .models.adapters import adapters_off, why_no_reference
from .models.precision import precision_of


GuideWith = Literal["model", "reference"]  # who answers the empty prompt
CacheContext = Callable[[str], contextlib.AbstractContextManager[None]]  # of a denoiser: names a part of a step


def why_not_guided(pipe: DiffusionPipeline, reference: nn.Module | None = None) -> str | None:
    """Why [`guide_with_reference`] would change nothing, or cannot be; `None` if it can."""
    if not family_of(pipe).asks_empty_prompt(pipe):
        return f"this {type(pipe).__name__} is guided by distillation and never asked about the empty prompt"
    return why_no_reference(pipe, family_of(pipe), reference)


def check_guide_with(guide_with: GuideWith, pipe: DiffusionPipeline, reference: nn.Module | None = None) -> None:
    """Raises [`UserError`] if a pipeline cannot be guided in this way."""
    reason = why_not_guided(pipe, reference) if guide_with == "reference" else None
    if reason:
        raise UserError(f"--guide_with reference cannot be: {reason}; leave it out")


@contextlib.contextmanager
def guide_with_reference(pipe: DiffusionPipeline, reference: nn.Module | None = None) -> Iterator[DiffusionPipeline]:
    """While it is entered, a stock pipeline asks the reference, not the trained denoiser, about the empty prompt.

        with guide_with_reference(pipe):
            image = pipe("a red cube on a blue sphere", guidance_scale=4).images[0]

    Both halves of the guided prediction are computed one after the other, so a step costs what it cost before. A negative
    prompt takes the place of the empty one, as always. A model that is guided by distillation, such as FLUX.1 dev, is not asked
    about the empty prompt unless `true_cfg_scale` asks for it, and nothing changes.

    Args:
        pipe: with a LoRA that has been loaded and not fused, or whole trained weights.
        reference: the base's denoiser; `None` is the denoiser with its LoRA switched off. For a pipeline's own denoiser nothing
            changes.

    Raises:
        UserError: if the pipeline is of no known family, there is neither a LoRA nor a reference, or a text encoder carries
            a LoRA too.
    """
    family = family_of(pipe)
    denoiser = getattr(pipe, family.denoiser)
    if reason := why_no_reference(pipe, family, reference):
        raise UserError(
            f"guide_with_reference cannot ask the reference of this pipeline: {reason}; load a LoRA of the denoiser alone, or give "
            "the base's denoiser as `reference`"
        )
    if reference is denoiser:
        yield pipe
        return
    policy = denoiser.forward
    asked = contextlib.ExitStack()
    own_call = _OwnCall()

    def answer_empty(*args: Any, **kwargs: Any) -> Any:
        if reference is None:
            with adapters_off(denoiser):
                return policy(*args, **kwargs)
        here, there = _place(_rows(args, kwargs)), next(reference.parameters()).device
        with precision_of(reference):
            answer = reference(*_moved(args, there), **_moved(kwargs, there))
        return tuple(_moved(part, *here) for part in answer)

    def in_halves(*args: Any, **kwargs: Any) -> Any:
        rows = _rows(args, kwargs)
        if not _is_guided(pipe, rows):
            return policy(*args, **kwargs)
        number = len(rows) // 2
        parts = [slice(0, number), slice(number, None)]
        answers = [answer_empty, policy] if family.unconditional == "first half" else [policy, answer_empty]
        outputs = [
            answer(*_cut(args, part, len(rows)), **_cut(kwargs, part, len(rows)))
            for answer, part in zip(answers, parts, strict=True)
        ]
        return _join(outputs)

    def in_calls(*args: Any, **kwargs: Any) -> Any:
        return (answer_empty if own_call.is_empty else policy)(*args, **kwargs)

    with asked:
        if family.unconditional == "own call":
            asked.callback(_restore, denoiser, "cache_context", denoiser.__dict__.get("cache_context"))
            denoiser.cache_context = own_call.noting(denoiser.cache_context)
        asked.callback(_restore, denoiser, "forward", denoiser.__dict__.get("forward"))
        denoiser.forward = in_calls if family.unconditional == "own call" else in_halves
        yield pipe


def _restore(module: nn.Module, name: str, value: Any) -> None:
    """Puts an attribute of an object back, or removes it where only the class had one."""
    if value is None:
        delattr(module, name)
    else:
        setattr(module, name, value)


class _OwnCall:
    """Notes whether a pipeline that asks about the empty prompt in a call of its own is in that call."""

    def __init__(self) -> None:
        self.is_empty = False

    def noting(self, cache_context: CacheContext) -> CacheContext:
        @contextlib.contextmanager
        def noted(name: str) -> Iterator[None]:
            self.is_empty = name == "uncond"
            try:
                with cache_context(name):
                    yield
            finally:
                self.is_empty = False

        return noted


@contextlib.contextmanager
def guided(pipe: DiffusionPipeline, guide_with: GuideWith, reference: nn.Module | None = None) -> Iterator[None]:
    """While it is entered, the empty prompt is answered by the model itself or by its reference; see [`guide_with_reference`]."""
    if guide_with == "model":
        yield
        return
    with guide_with_reference(pipe, reference):
        yield


def _place(rows: Tensor | list[Tensor]) -> tuple[torch.device, torch.dtype]:
    return rows[0].device, rows[0].dtype


def _moved(value: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """Tensors, also those inside of it, on a device; the rest as it is."""
    if isinstance(value, dict):
        return {name: _moved(inner, device, dtype) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_moved(inner, device, dtype) for inner in value)
    return value.to(device=device, dtype=dtype) if isinstance(value, Tensor) else value


def _rows(args: tuple, kwargs: dict) -> Tensor | list[Tensor]:
    """The latents of a call of the denoiser, which every pipeline names first."""
    return args[0] if args else kwargs["hidden_states"]


def _is_guided(pipe: DiffusionPipeline, rows: Tensor | list[Tensor]) -> bool:
    """Whether the rows are two prompts for the same latents: some pipelines leave single steps without guidance."""
    if getattr(pipe, "do_classifier_free_guidance", None) is False or len(rows) % 2:
        return False
    half = len(rows) // 2
    return all(map(torch.equal, rows[:half], rows[half:]))


def _cut(value: Any, part: slice, number: int) -> Any:
    """The rows of one half, of everything that has `number` rows; the rest as it is."""
    if isinstance(value, dict):
        return {name: _cut(inner, part, number) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_cut(inner, part, number) for inner in value)
    has_rows = isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 0)
    return value[part] if has_rows and len(value) == number else value


def _join(outputs: list[tuple]) -> tuple:
    """The answers of both halves as one, in the form of the pipelines, `(prediction,)`."""
    (first, *_), (second, *_) = outputs
    return (first + second,) if isinstance(first, list) else (torch.cat([first, second]),)
