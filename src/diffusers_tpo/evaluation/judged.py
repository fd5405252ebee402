"""What a model must be to be judged: a pipeline and how it was trained. Judges nothing."""

from typing import Protocol

from diffusers import DiffusionPipeline
from torch import nn

from ..families import Family
from ..noising import Scheduler


class Judged(Protocol):
    """A model as it was trained: a [`~diffusers_tpo.models.loading.LoadedModel`], or what a training script is training.

    Attributes:
        family: told what the model was trained with.
        scheduler: the forward process that it was trained with.
        reference: the denoiser that it is compared with; `None` takes its own without adapters, if `knows_reference` at all.
    """

    @property
    def pipe(self) -> DiffusionPipeline: ...

    @property
    def family(self) -> Family: ...

    @property
    def scheduler(self) -> Scheduler: ...

    @property
    def reference(self) -> nn.Module | None: ...

    @property
    def knows_reference(self) -> bool: ...
