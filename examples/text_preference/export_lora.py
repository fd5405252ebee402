#!/usr/bin/env python
# /// script
# dependencies = ["diffusers_tpo"]
# ///
r"""Writes a LoRA in the format of another program, such as ComfyUI.

    python export_lora.py --lora sd15-tpo --format comfyui

The file lies beside the LoRA. README.md in examples/text_preference says which program takes which file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import exit_on_user_error
from diffusers_tpo.flags import flag
from diffusers_tpo.models.exports import find_lora, pipeline_of, write_export


@dataclass
class ExportArguments:
    """What is exported, and where to."""

    lora: str = flag(help="The folder that a training wrote, a LoRA file, or a Hub id.")
    format: Literal["kohya", "comfyui"] = flag(help="Whose names the file has.")
    pretrained_model_name_or_path: str | None = flag(None, "Its base, if nothing beside the LoRA names it.")
    output_file: str | None = flag(None, "Named after the LoRA and the format by default, and beside it.")
    cache_dir: str | None = flag(None, "Where downloads are kept.")
    hub_token: str | None = flag(None, "Unsafe on a shared machine; `hf auth login` is better. Never stored.")


def main(options: ExportArguments) -> None:
    place = {"cache_dir": options.cache_dir, "token": options.hub_token}
    source = find_lora(options.lora, **place)
    pipeline, layers_per_block = pipeline_of(options.lora, options.pretrained_model_name_or_path, **place)
    name = Path(options.lora).resolve().name.removesuffix(".safetensors")
    folder = source.parent if Path(options.lora).exists() else Path()
    target = Path(options.output_file or folder / f"{name}-{options.format}.safetensors")
    write_export(source, target, options.format, pipeline, layers_per_block)
    print(f"{target} is the LoRA for {options.format}")


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(ExportArguments, description=__doc__))
