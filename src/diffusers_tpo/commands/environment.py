"""What a bug report needs to know of the machine: versions and hardware, and no name, path or token."""

import os
import platform

import psutil
import torch

from ..errors import UserError
from ..models.adapters import check_peft
from ..versions import PACKAGES, misfits, version_of


OPTIONAL = (
    "bitsandbytes",
    "openai",
    "datatrove",
    "diffsynth",
    "sentence-transformers",
    "wandb",
    "trackio",
    "xformers",
)
GIB = 2**30


def accelerator() -> str:
    """What computes: GPUs with their memory, or the CPU."""
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        names = [f"{device.name} ({device.total_memory / GIB:.0f} GiB)" for device in devices]
        kind = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        return f"{', '.join(names)}; {kind}"
    return "MPS" if torch.backends.mps.is_available() else "none that torch sees"


def problems() -> list[str]:
    """Packages that do not work together: by what they ask for, and by what one of them says only when it is used."""
    found = misfits()
    try:
        check_peft()
    except UserError as error:
        found.append(str(error))
    return found


def describe() -> str:
    """The report, one fact a line."""
    installed = [f"{name} {version_of(name)}" for name in OPTIONAL if version_of(name)]
    facts = {
        "Python": platform.python_version(),
        "platform": platform.platform(),
        "CPUs": f"{os.cpu_count()}, memory {psutil.virtual_memory().total / GIB:.0f} GiB",
        "accelerator": accelerator(),
        **{name: version_of(name) or "missing" for name in PACKAGES},
        "optional": ", ".join(installed) or "none",
        "do not fit": "; ".join(problems()) or "none",
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())
