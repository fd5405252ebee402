"""Text Preference Optimization: align text-to-image diffusion models from captions alone.

The names below are imported when they are first used, so that what needs no model starts without torch and diffusers.
"""

import importlib


__version__ = "0.1.0"
_MODULES = {
    "noising": ("Draw", "Noised", "add_noise", "training_scheduler"),
    "trainer": ("TPOConfig", "TPOTrainer"),
}
__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str):
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
