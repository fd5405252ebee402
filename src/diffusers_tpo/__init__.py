"""Text Preference Optimization: align text-to-image diffusion models from captions alone.

The names below are imported when they are first used, so that what needs no model starts without torch and diffusers.
"""

from typing import TYPE_CHECKING, Any

from .quiet import install
from .version import __version__ as __version__


if TYPE_CHECKING:
    from .noising import Draw, Noised, add_noise, training_scheduler
    from .trainer import TPOConfig, TPOTrainer


install()
__all__ = ["Draw", "Noised", "TPOConfig", "TPOTrainer", "add_noise", "training_scheduler"]


def __getattr__(name: str) -> Any:
    if name in ("TPOConfig", "TPOTrainer"):
        from . import trainer

        return getattr(trainer, name)
    if name in __all__:
        from . import noising

        return getattr(noising, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
