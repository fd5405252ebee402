"""Loads what a user calls a model: a pipeline, a LoRA on its base, a checkpoint of a training run. Trains nothing."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import torch
from accelerate import load_checkpoint_in_model
from diffusers import BitsAndBytesConfig, DiffusionPipeline, PipelineQuantizationConfig
from diffusers.training_utils import EMAModel
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file

from ..errors import UserError, reason, require
from ..families import family_of
from .adapters import LORA_FILE, add_lora, load_average, load_lora_state, load_trained
from .checkpoints import STATE, read_state
from .text_encoders import train_text_encoders


LORA_WEIGHTS = "pytorch_lora_weights.safetensors"


def speed_up(module: torch.nn.Module, channels_last: bool, backend: str | None) -> None:
    """Changes how a module is computed, in place, but not what; names of its weights stay.

    Args:
        channels_last: for the weights of convolutions, and so for what they compute.
        backend: of `torch.compile`, for the blocks that repeat; `None` compiles nothing.

    Raises:
        UserError: if there is no such backend, or no block that repeats.
    """
    if channels_last:
        module.to(memory_format=torch.channels_last)
    if backend is not None:
        if backend not in torch.compiler.list_backends(exclude_tags=()):
            usual = ", ".join(torch.compiler.list_backends())
            raise UserError(f"torch_compile_backend must be one of {usual}, got {backend!r}")
        try:
            module.compile_repeated_blocks(backend=backend)
        except ValueError as error:
            name = type(module).__name__
            raise UserError(
                f"torch_compile_backend: diffusers names no repeated blocks of {name}; leave it out"
            ) from error


def why(error: Exception) -> str:
    """Why weights cannot be loaded; PyTorch would advise to let a pickle run its code."""
    is_pickle = isinstance(error, pickle.UnpicklingError)
    return "a weight file is a pickle that could run code; convert it to safetensors" if is_pickle else reason(error)


def load_pipeline(
    source: str,
    revision: str | None = None,
    variant: str | None = None,
    vae: str | None = None,
    dtype: torch.dtype | dict[str, torch.dtype] = torch.float32,
    cache_dir: str | None = None,
    token: str | None = None,
    quantization: BitsAndBytesConfig | None = None,
) -> DiffusionPipeline:
    """A pipeline whose modules are frozen and in evaluation mode.

    Args:
        source: Hub id or folder.
        vae: Hub id or folder of another VAE.
        dtype: of all weights, or by component, with `default` for the others.
        quantization: of the denoiser, see [`bnb_config`].

    Raises:
        UserError: if it cannot be loaded, with the reason.
    """
    options = {"cache_dir": cache_dir, "token": token}
    kind = {"revision": revision, "variant": variant}
    try:
        if quantization is not None:
            parts = DiffusionPipeline.load_config(source, revision=revision, **options)
            mapping = {name: quantization for name in ("unet", "transformer") if name in parts}
            kind["quantization_config"] = PipelineQuantizationConfig(quant_mapping=mapping)
        pipe = DiffusionPipeline.from_pretrained(source, dtype=dtype, **kind, **options)
        if vae:
            pipe.vae = type(pipe.vae).from_pretrained(vae, dtype=pipe.vae.dtype, **options)
    except Exception as error:  # hostile or broken files raise many kinds; none of them is unpickled into code
        raise UserError(f"pretrained_model_name_or_path {source!r} cannot be loaded ({why(error)})") from error
    pipe.set_progress_bar_config(disable=True)
    return _frozen(pipe)


def bnb_config(
    load_in_4bit: bool, load_in_8bit: bool, config_path: str | None, compute_dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    """How bitsandbytes quantises a denoiser as it is loaded; `None` if nothing is asked for.

    Args:
        config_path: JSON file with the arguments of a `BitsAndBytesConfig`, instead of the two presets.
        compute_dtype: of the products with 4-bit weights, unless the file names one.

    Raises:
        UserError: if more than one is asked for, or the file is not such a configuration.
    """
    asked = [load_in_4bit, load_in_8bit, config_path is not None]
    if sum(asked) > 1:
        raise UserError("give at most one of load_in_4bit, load_in_8bit and bnb_quantization_config_path")
    if not any(asked):
        return None
    require("bitsandbytes", extra="bnb")
    preset = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"} if load_in_4bit else {"load_in_8bit": True}
    try:
        arguments = preset if config_path is None else json.loads(Path(config_path).read_text())
        return BitsAndBytesConfig(**({"bnb_4bit_compute_dtype": compute_dtype} | arguments))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"bnb_quantization_config_path {config_path!r} is no configuration of bitsandbytes ({error})"
        ) from error


def _frozen(pipe: DiffusionPipeline) -> DiffusionPipeline:
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False).eval()
    return pipe


def save_pipeline(pipe: DiffusionPipeline, folder: Path) -> None:
    """Writes a pipeline that `from_pretrained` reads, without the places that its parts were loaded from."""
    pipe.save_pretrained(folder)
    configs = [path for part in pipe.components for path in folder.glob(f"{part}/*config.json")]
    for path in [folder / "model_index.json", *configs]:
        config = json.loads(path.read_text(encoding="utf-8"), object_hook=_without_origin)
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_origin(config: dict) -> dict:
    return {name: value for name, value in config.items() if name not in ("_name_or_path", "name_or_path")}


def kind_of(source: str, cache_dir: str | None = None, token: str | None = None) -> str:
    """What lies at a folder, file or Hub id: "pipeline", "lora" or "checkpoint".

    Raises:
        UserError: if it is none of these.
    """
    path = Path(source)
    if os.path.isdir(source):  # False, unlike Path, for what cannot be a name
        for name, kind in (("model_index.json", "pipeline"), (STATE, "checkpoint"), (LORA_WEIGHTS, "lora")):
            if (path / name).is_file():
                return kind
        raise UserError(
            f"models names the folder {source!r}, which holds no pipeline (model_index.json), LoRA ({LORA_WEIGHTS}) or "
            f"checkpoint ({STATE}); check the path"
        )
    if os.path.isfile(source) and path.suffix == ".safetensors":
        return "lora"
    try:
        hf_hub_download(source, "model_index.json", cache_dir=cache_dir, token=token)
    except LocalEntryNotFoundError as error:  # no connection
        if isinstance(try_to_load_from_cache(source, LORA_WEIGHTS, cache_dir), str):
            return "lora"
        raise UserError(f"models names {source!r}, which is no folder, and the Hub cannot be reached") from error
    except EntryNotFoundError:
        return "lora"
    except (OSError, ValueError) as error:
        raise UserError(f"models names {source!r}, which is no folder, and on the Hub: {reason(error)}") from error
    return "pipeline"


def index_of(pipeline: Path) -> dict:
    """The parts of a saved pipeline; none if its index cannot be read, of which loading it will tell."""
    try:
        index = json.loads((pipeline / "model_index.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    return index if isinstance(index, dict) else {}


def fingerprint(source: str) -> str:
    """Changes when the files of a local model do; of a Hub id only its name."""
    path = Path(source)
    if (path / "model_index.json").is_file():
        parts = [folder for folder in sorted(path.iterdir()) if folder.name in index_of(path)]
        files = [path / "model_index.json", *(file for part in parts for file in sorted(part.glob("*")))]
    else:  # a LoRA or a checkpoint; a run may have left other things beside its LoRA
        found = [path] if path.is_file() else sorted(path.glob("*"))
        files = [file for file in found if file.suffix in (".safetensors", ".pkl")]
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stamps or source).encode()).hexdigest()[:16]


def load_model(source: str, base: str | None = None, **options) -> DiffusionPipeline:
    """A pipeline, or the pipeline `base` with a LoRA or with the weights of a checkpoint of the training script.

    A checkpoint that averages its weights (`use_ema`) is loaded with the averages, as its final model would be.

    Args:
        base: what a LoRA or checkpoint belongs to; by default a checkpoint's own `pretrained_model_name_or_path`.
        options: of [`load_pipeline`].

    Raises:
        UserError: if something is missing or does not fit.
    """
    kind = kind_of(source, options.get("cache_dir"), options.get("token"))
    if kind == "pipeline":
        return load_pipeline(source, **options)
    if kind == "lora":
        if base is None:
            raise UserError(f"models names the LoRA {source!r}; name its pipeline in --pretrained_model_name_or_path")
        pipe = load_pipeline(base, **options)
        try:
            pipe.load_lora_weights(source, cache_dir=options.get("cache_dir"), token=options.get("token"))
        except Exception as error:  # as above
            raise UserError(f"models names the LoRA {source!r}, which does not fit {base!r} ({why(error)})") from error
        if not pipe.get_list_adapters():
            raise UserError(f"models names the LoRA {source!r}, none of whose weights fits {base!r}")
        return _frozen(pipe)  # a LoRA comes in training mode, with its dropout
    return load_checkpoint(Path(source), base, **options)


def load_checkpoint(checkpoint: Path, base: str | None = None, **options) -> DiffusionPipeline:
    """The base pipeline with the weights of one checkpoint; see [`load_model`]."""
    config = read_state(checkpoint)["config"]
    base = base or config.get("pretrained_model_name_or_path")
    if not isinstance(base, str):
        raise UserError(f"{checkpoint.name} does not name its base; do so in --pretrained_model_name_or_path")
    try:
        pipe = load_pipeline(base, **options)
    except UserError as error:
        raise UserError(f"{error}; name the base of {checkpoint.name} in --pretrained_model_name_or_path") from error
    family = family_of(pipe)
    denoiser = getattr(pipe, family.denoiser)
    try:
        if config.get("use_lora"):
            layers = config["lora_layers"].replace(" ", "").split(",") if "lora_layers" in config else None
            shape = {"alpha": config.get("lora_alpha"), "use_dora": config.get("use_dora", False)}
            add_lora(denoiser, layers or family.lora_targets, config["rank"], **shape)
            load_lora_state(denoiser, load_file(checkpoint / LORA_FILE))
            trained = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
        else:
            shape = {}
            load_checkpoint_in_model(denoiser, str(checkpoint), strict=True)
            trained = list(denoiser.parameters())
        if config.get("train_text_encoder"):
            lora = {"rank": config["rank"], **shape} if shape else None
            text = train_text_encoders(pipe, family, lora, needs_reference=False)
            load_trained(text.modules(), bool(lora), checkpoint)
            trained += text.parameters()
        if config.get("use_ema"):
            averages = EMAModel(trained)
            load_average(averages, checkpoint)
            averages.copy_to(trained)
    except Exception as error:  # as above
        raise UserError(
            f"models names the checkpoint {str(checkpoint)!r}, which does not load ({why(error)})"
        ) from error
    return _frozen(pipe)
