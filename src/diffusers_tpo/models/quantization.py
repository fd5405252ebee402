"""How bitsandbytes holds a denoiser in fewer bits. Loads nothing."""

import json

import torch
from diffusers import BitsAndBytesConfig

from ..errors import UserError, require


LONGEST = 1_000_000  # characters of a configuration


def bnb_arguments(load_in_4bit: bool, load_in_8bit: bool, config_path: str | None) -> dict[str, object] | None:
    """The arguments of the `BitsAndBytesConfig` that is asked for; `None` if nothing is.

    Args:
        config_path: JSON file with such arguments, instead of the two presets.

    Raises:
        UserError: if more than one is asked for, or the file is not such a configuration.
    """
    asked = [load_in_4bit, load_in_8bit, config_path is not None]
    if sum(asked) > 1:
        raise UserError("give at most one of --load_in_4bit, --load_in_8bit and --bnb_quantization_config_path")
    if not any(asked):
        return None
    require("bitsandbytes", extra="bnb")
    if config_path is None:
        return {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"} if load_in_4bit else {"load_in_8bit": True}
    try:
        with open(config_path, encoding="utf-8") as file:
            arguments = json.loads(file.read(LONGEST))
        BitsAndBytesConfig(**arguments)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"--bnb_quantization_config_path {config_path!r} is no configuration of bitsandbytes ({error})"
        ) from error
    return arguments


def bnb_config(arguments: dict[str, object] | None, compute_dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """How bitsandbytes quantises a denoiser as it is loaded, see [`bnb_arguments`]; `None` for not at all.

    Args:
        compute_dtype: of the products with 4-bit weights, unless the arguments name one.

    Raises:
        UserError: if bitsandbytes is missing.
    """
    if arguments is None:
        return None
    require("bitsandbytes", extra="bnb")
    return BitsAndBytesConfig(**({"bnb_4bit_compute_dtype": compute_dtype} | arguments))
