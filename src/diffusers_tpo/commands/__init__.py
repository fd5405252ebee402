"""The doors: `diffusers-tpo` on the console, and the same commands as functions for a notebook.

from diffusers_tpo.commands import train

train(pretrained_model_name_or_path="stable-diffusion-v1-5/stable-diffusion-v1-5", dataset_name="your-name/your-tpo-data",
      use_lora=True, mixed_precision="fp16", max_train_steps=500, output_dir="sd15-tpo")
"""

from typing import Any


__all__ = ["evaluate", "negatives", "train"]


def train(**flags: Any) -> None:
    """Trains as `diffusers-tpo train` does, in this process.

    Args:
        flags: those of the command, by name: `rank=16`, `use_lora=True`, `validation_prompt=["a cat"]`; `None` unsets one that may
            be unset. `config="run.yaml"` reads a file of flags, below those that are given here.

    Raises:
        UserError: where the command would say what is wrong with its input.
        RuntimeError: if training stopped before its end; what it had reached lies in `output_dir`.
    """
    from .scripts import call

    call("train", flags)


def negatives(**flags: Any) -> None:
    """Writes mismatched prompts as `diffusers-tpo negatives` does, in this process; see [`train`]."""
    from .scripts import call

    call("negatives", flags)


def evaluate(**flags: Any) -> None:
    """Judges models as `diffusers-tpo evaluate` does, in this process; see [`train`]."""
    from .scripts import call

    call("evaluate", flags)
