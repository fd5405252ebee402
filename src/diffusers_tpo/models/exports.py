"""A LoRA under the names that other programs look for. Knows nothing of training.

diffusers' own file is `pytorch_lora_weights.safetensors`: names with dots below the parts of a pipeline, alpha in the metadata.
*kohya* writes the same tensors as `lora_unet_...lora_down.weight`, with an `alpha` for each layer; its scripts, Automatic1111,
Forge and ComfyUI read that of Stable Diffusion. *comfyui* is what ComfyUI reads of each family: kohya's names for the UNets, and
diffusers' for transformers.
"""

import re
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
from diffusers import (
    DiffusionPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxPipeline,
    QwenImagePipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
)
from diffusers.utils import convert_all_state_dict_to_peft, convert_state_dict_to_kohya
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import UserError, reason
from ..files import is_missing_path, make_folder, publish_file, writing_to
from .loading import LORA_WEIGHTS, find_recipe


FORMATS = ("kohya", "comfyui")
LAYERS_PER_BLOCK = 2  # of every UNet that has been published
QKV = r"to_[qkv]|to_out\.0"
OF_BOTH = r"add_[qkv]_proj|to_add_out"
# Layers of transformers that ComfyUI finds by diffusers' names: the maps in its comfy/utils.py, and for Qwen-Image its own names.
COMFYUI_LAYERS = {
    StableDiffusion3Pipeline: rf"transformer_blocks\.\d+\.(attn\.({QKV}|{OF_BOTH})|attn2\.({QKV})|ff(_context)?\.net\.(0\.proj|2))",
    FluxPipeline: rf"transformer_blocks\.\d+\.(attn\.({QKV}|{OF_BOTH})|ff(_context)?\.net\.(0\.proj|2)|norm1(_context)?\.linear)"
    r"|single_transformer_blocks\.\d+\.(attn\.to_[qkv]|proj_mlp|proj_out|norm\.linear)",
    Flux2Pipeline: rf"transformer_blocks\.\d+\.(attn\.({QKV}|{OF_BOTH})|ff(_context)?\.linear_(in|out))"
    r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)",
    QwenImagePipeline: rf"transformer_blocks\.\d+\.(attn\.({QKV}|{OF_BOTH})|(img|txt)_mlp\.net\.(0\.proj|2)|(img|txt)_mod\.1)",
    ZImagePipeline: rf"(layers|context_refiner|noise_refiner)\.\d+\.(attention\.({QKV})|feed_forward\.w[123])",
}
COMFYUI_LAYERS[Flux2KleinPipeline] = COMFYUI_LAYERS[Flux2Pipeline]
OF_CLIP = re.compile(r"^(text_encoder(?:_2)?)\.encoder\.")  # transformers 5 has no `text_model` there; every file has
IN_CLIP = r"text_encoder(_2)?\.text_model\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"


def find_lora(source: str, cache_dir: str | None = None, token: str | None = None) -> Path:
    """The file of a LoRA: of a folder, a file, or a Hub id.

    Raises:
        UserError: if there is none.
    """
    path = Path(source)
    found = path / LORA_WEIGHTS if path.is_dir() else path
    if found.is_file():
        return found
    if path.is_dir() or is_missing_path(source):
        raise UserError(
            f"--lora {source!r} holds no {LORA_WEIGHTS}; name the folder that a training with --use_lora wrote"
        )
    try:
        return Path(hf_hub_download(source, LORA_WEIGHTS, cache_dir=cache_dir, token=token))
    except (OSError, ValueError) as error:  # no such repository or file, or no connection
        raise UserError(f"--lora {source!r} is no folder, and the Hub has none ({reason(error)})") from error


def pipeline_of(
    source: str, base: str | None = None, cache_dir: str | None = None, token: str | None = None
) -> tuple[type[DiffusionPipeline], int]:
    """The class of the pipeline that a LoRA belongs to, and the layers per block of its UNet, from the configuration of its base.

    Args:
        base: Hub id or folder; what the recipe beside the LoRA names by default.

    Raises:
        UserError: if neither tells the base, or it cannot be read.
    """
    recipe = find_recipe(source, cache_dir, token)
    base = base or (recipe and recipe.source) or None
    if base is None:
        raise UserError(f"--lora {source!r} does not tell its base; name it in --pretrained_model_name_or_path")
    place = {"cache_dir": cache_dir, "token": token}
    try:
        pipeline = getattr(diffusers, DiffusionPipeline.load_config(base, **place)["_class_name"])
        if issubclass(pipeline, StableDiffusionXLPipeline):
            return pipeline, UNet2DConditionModel.load_config(base, subfolder="unet", **place)["layers_per_block"]
    except (AttributeError, KeyError, OSError, ValueError) as error:
        raise UserError(f"--pretrained_model_name_or_path {base!r} is no pipeline ({reason(error)})") from error
    return pipeline, LAYERS_PER_BLOCK


def export_path(folder: Path, format: str) -> Path:
    """Where the file of a format lies beside a LoRA; named after its folder, as such files are put together in one."""
    return Path(folder) / f"{Path(folder).resolve().name}-{format}.safetensors"


def write_export(
    source: Path,
    target: Path,
    format: str,
    pipeline: type[DiffusionPipeline],
    layers_per_block: int = LAYERS_PER_BLOCK,
) -> None:
    """Writes a saved LoRA in another format.

    Args:
        source: a LoRA file as diffusers writes it.
        pipeline, layers_per_block: see [`export`].

    Raises:
        UserError: if the source is no LoRA or cannot be read, the format cannot hold it, or the target cannot be written.
    """
    if target.exists() and target.samefile(source):
        raise UserError(f"--output_file {str(target)!r} is the LoRA itself, which would be lost; name another file")
    try:
        state = load_file(source)
    except (OSError, SafetensorError) as error:
        raise UserError(f"--lora {str(source)!r} is no safetensors file that can be read ({reason(error)})") from error
    if faulty := next((name for name, value in state.items() if not value.isfinite().all()), None):
        raise UserError(
            f"--lora {str(source)!r} holds numbers that are not finite, in {faulty}; export another checkpoint"
        )
    tensors = export(state, format, pipeline, layers_per_block)
    make_folder(target.parent, "--output_file")
    with writing_to(target.parent, "output_file"):
        save_export(tensors, target)


def save_export(tensors: dict[str, Tensor], target: Path) -> None:
    """Writes what [`export`] gave, whole or not at all."""
    partial = target.with_name(f".partial-{target.name}")
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial, {"format": "pt"})
    publish_file(partial, target)


def export(
    state: dict[str, Tensor],
    format: str,
    pipeline: type[DiffusionPipeline],
    layers_per_block: int = LAYERS_PER_BLOCK,
) -> dict[str, Tensor]:
    """The tensors of a LoRA under the names of another format; a layer's update is the same.

    Args:
        state: as diffusers names it, `unet.` or another part before each name, with the scale in the weights.
        format: "kohya" or "comfyui".
        pipeline: the class whose LoRA it is.
        layers_per_block: of the UNet, for XL, whose blocks kohya numbers one after the other.

    Raises:
        UserError: naming what the format has no name for.
    """
    state = {OF_CLIP.sub(r"\1.text_model.encoder.", key): value for key, value in as_peft(state).items()}
    if any("lora_magnitude_vector" in key for key in state):
        raise UserError(
            f"--export {format} of a DoRA is not known here; train without --use_dora, or use it in diffusers"
        )
    for base in pipeline.__mro__:
        if base in (StableDiffusionPipeline, StableDiffusionXLPipeline):
            number = (lambda layer: sgm_name(layer, layers_per_block)) if base is StableDiffusionXLPipeline else str
            return kohya(state, number)
        if base in COMFYUI_LAYERS and format == "comfyui":
            return comfyui(state, COMFYUI_LAYERS[base])
    others = [pipeline.__name__ for pipeline in (StableDiffusionPipeline, StableDiffusionXLPipeline)]
    if format == "comfyui":
        others += [pipeline.__name__ for pipeline in COMFYUI_LAYERS]
    raise UserError(
        f"--export {format} of a LoRA of {pipeline.__name__} is not known here, only of {', '.join(others)}; leave it out, and "
        "load pytorch_lora_weights.safetensors in diffusers"
    )


def as_peft(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A LoRA under PEFT's names, of those or of diffusers' older ones.

    Raises:
        UserError: if it has neither.
    """
    if any(".lora_A." in key for key in state):
        return state
    try:
        return convert_all_state_dict_to_peft(dict(state))
    except ValueError as error:
        named = f"its first tensor is called {next(iter(state))!r}" if state else "it is empty"
        raise UserError(f"--lora holds no LoRA as diffusers writes it: {named}") from error


def with_alpha(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with an alpha for each layer: the rank, so that its scale is one."""
    ranks = {key.removesuffix(".lora_A.weight"): len(value) for key, value in state.items() if ".lora_A." in key}
    return state | {f"{layer}.alpha": torch.tensor(float(rank)) for layer, rank in ranks.items()}


def comfyui(state: dict[str, Tensor], layers: str) -> dict[str, Tensor]:
    """A LoRA of a transformer under diffusers' names, which ComfyUI maps to its own.

    Args:
        layers: a pattern of the layers that it maps.

    Raises:
        UserError: naming a layer that it does not.
    """
    known = re.compile(rf"(transformer\.({layers})|{IN_CLIP})\.lora_[AB]\.weight")
    if unknown := next((key for key in state if not known.fullmatch(key)), None):
        raise UserError(
            f"--export comfyui knows no name for {unknown.split('.lora_')[0]}; train other --lora_layers, or leave it out"
        )
    return with_alpha(state)


def kohya(state: dict[str, Tensor], number: Callable[[str], str]) -> dict[str, Tensor]:
    """A LoRA of a UNet, and of CLIP's text encoders, under kohya's names.

    Args:
        number: the name of a layer of the UNet in kohya's numbering of its blocks.
    """
    parts = {key: key.partition(".")[::2] for key in state}
    numbered = {f"{part}.{number(name)}" if part == "unet" else key: state[key] for key, (part, name) in parts.items()}
    converted = convert_state_dict_to_kohya(numbered)
    has_two = any(part == "text_encoder_2" for part, _ in parts.values()) or number is not str
    renamed = {key if has_two else key.replace("lora_te1_", "lora_te_", 1): value for key, value in converted.items()}
    return {key: value.float() if key.endswith(".alpha") else value for key, value in renamed.items()}


RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
INNER = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def sgm_name(name: str, per_block: int) -> str:
    """The name of a UNet's layer, or of a tensor in it, as Stability's code has it: blocks in one row, not nested.

    Args:
        per_block: layers per block of the encoder; the decoder has one more.
    """
    layer, dot, tensor = name.partition(".lora_")
    if found := INNER.fullmatch(layer):
        way, block, kind, place, rest = found.groups()
        first = int(block) * (per_block + 1)
        if kind == "downsamplers":
            layer = f"input_blocks.{first + per_block + 1}.0.op"
        elif kind == "upsamplers":
            layer = f"output_blocks.{first + per_block}.2.{rest}"
        else:
            row, index = (
                ("input_blocks", first + int(place) + 1) if way == "down" else ("output_blocks", first + int(place))
            )
            layer = f"{row}.{index}.{int(kind == 'attentions')}.{_inside(kind, rest)}"
    elif found := MIDDLE.fullmatch(layer):
        kind, place, rest = found.groups()
        layer = f"middle_block.{1 if kind == 'attentions' else 2 * int(place)}.{_inside(kind, rest)}"
    else:
        layer = OUTSIDE.get(layer, layer)
    return f"{layer}{dot}{tensor}"


def _inside(kind: str, rest: str) -> str:
    return RESNET.get(rest, rest) if kind == "resnets" else rest
