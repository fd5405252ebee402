"""Loads what a user calls a model: a pipeline, a LoRA on its base, a checkpoint of a training run. Trains nothing."""

import contextlib
import hashlib
import json
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import load_checkpoint_in_model
from diffusers import BitsAndBytesConfig, DiffusionPipeline, PipelineQuantizationConfig
from diffusers.training_utils import EMAModel
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from safetensors.torch import load_file
from torch import Tensor

from ..errors import UserError, reason
from ..families import Family
from ..files import is_missing_path
from ..noising import Scheduler, training_scheduler
from .adapters import LORA_FILE, load_average, load_lora_state, load_trained, train_denoiser, why_no_reference
from .checkpoints import STATE, read_state
from .precision import DENOISERS, HALF, hold_precision, may_halve, part_dtypes
from .quantization import bnb_config
from .recipe import RECIPE, ModelRecipe, read_recipe
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
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # which torch's stubs lack
    if backend is not None:
        if backend not in torch.compiler.list_backends(exclude_tags=()):
            usual = ", ".join(torch.compiler.list_backends())
            raise UserError(f"--torch_compile_backend must be one of {usual}, got {backend!r}")
        try:
            compiled: Any = module
            compiled.compile_repeated_blocks(backend=backend)
        except ValueError as error:
            name = type(module).__name__
            raise UserError(
                f"--torch_compile_backend: a {name} has no blocks that can be compiled ({reason(error)}); leave it out"
            ) from error


def why(error: Exception) -> str:
    """Why weights cannot be loaded; PyTorch would advise to let a pickle run its code."""
    is_pickle = isinstance(error, pickle.UnpicklingError)
    return "a weight file is a pickle that could run code; convert it to safetensors" if is_pickle else reason(error)


def load_base(
    recipe: ModelRecipe, cache_dir: str | None = None, token: str | None = None, dtype: torch.dtype | None = None
) -> DiffusionPipeline:
    """The pipeline of a recipe, before anything is added to it; see [`load_pipeline`].

    Args:
        dtype: of the denoiser; by default what the recipe trains with.
    """
    dtype = recipe.dtype if dtype is None else dtype
    return load_pipeline(
        recipe.source,
        recipe.revision,
        recipe.variant,
        recipe.vae,
        dtype,
        cache_dir,
        token,
        bnb_config(recipe.quantization, HALF[recipe.precision]),
        recipe.prediction_type,
    )


def load_pipeline(
    source: str,
    revision: str | None = None,
    variant: str | None = None,
    vae: str | None = None,
    dtype: torch.dtype = torch.float32,
    cache_dir: str | None = None,
    token: str | None = None,
    quantization: BitsAndBytesConfig | None = None,
    prediction_type: str | None = None,
) -> DiffusionPipeline:
    """A pipeline whose modules are frozen and in evaluation mode, and whose every part but the denoiser holds its precision.

    A safety checker is set aside: its black images would be shown and judged as the model's. [`save_pipeline`] puts it back.

    Args:
        source: Hub id or folder.
        vae: Hub id or folder of another VAE.
        dtype: of the denoiser; the other parts follow it as far as they can, see [`~diffusers_tpo.models.precision`].
        quantization: of the denoiser, see [`~diffusers_tpo.models.quantization.bnb_config`].
        prediction_type: of the scheduler, if its configuration is wrong.

    Raises:
        UserError: if it cannot be loaded, with the reason.
    """
    for flag, name in {"pretrained_model_name_or_path": source, "pretrained_vae_model_name_or_path": vae}.items():
        if name and is_missing_path(name):
            raise UserError(
                f"--{flag} {name!r} cannot be loaded (there is no such folder on this machine); check the path"
            )
    options = {"cache_dir": cache_dir, "token": token}
    kind = {"revision": revision, "variant": variant}
    try:
        index = DiffusionPipeline.load_config(source, revision=revision, **options)
        if quantization is not None:
            mapping = {name: quantization for name in DENOISERS if name in index}
            kind["quantization_config"] = PipelineQuantizationConfig(quant_mapping=mapping)
        pipe = DiffusionPipeline.from_pretrained(source, dtype=part_dtypes(index, dtype), **kind, **options)
    except Exception as error:  # hostile or broken files raise many kinds; none of them is unpickled into code
        raise UserError(f"--pretrained_model_name_or_path {source!r} cannot be loaded ({why(error)})") from error
    if vae:
        try:
            pipe.vae = type(pipe.vae).from_pretrained(vae, dtype=torch.float32, **options)
        except Exception as error:  # as above
            raise UserError(f"--pretrained_vae_model_name_or_path {vae!r} cannot be loaded ({why(error)})") from error
    if (autoencoder := pipe.components.get("vae")) is not None and may_halve(autoencoder):
        autoencoder.to(dtype)
    set_checker_aside(pipe)
    set_prediction_type(pipe, prediction_type)
    pipe.set_progress_bar_config(disable=True)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and name not in DENOISERS:
            hold_precision(part)
    return _frozen(pipe)


def set_prediction_type(pipe: DiffusionPipeline, prediction_type: str | None) -> None:
    """Tells a pipeline what its denoiser predicts, for training, sampling and the saved scheduler; `None` changes nothing.

    Raises:
        UserError: if the pipeline's scheduler cannot be told.
    """
    if prediction_type is None:
        return
    training_scheduler(pipe.scheduler, prediction_type)  # which refuses flow models
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=prediction_type)


def set_checker_aside(pipe: DiffusionPipeline) -> None:
    """Takes the safety checker of a Stable Diffusion 1 pipeline out of its way."""
    if pipe.components.get("safety_checker") is not None:
        pipe.checker_aside = pipe.safety_checker
        pipe.register_modules(safety_checker=None)


@contextlib.contextmanager
def _with_checker(pipe: DiffusionPipeline) -> Iterator[DiffusionPipeline]:
    """The pipeline with the safety checker that it was loaded with."""
    checker = getattr(pipe, "checker_aside", None)
    if checker is not None:
        pipe.register_modules(safety_checker=checker)
    try:
        yield
    finally:
        if checker is not None:
            pipe.register_modules(safety_checker=None)


def _frozen(pipe: DiffusionPipeline) -> DiffusionPipeline:
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False).eval()
    return pipe


def save_pipeline(pipe: DiffusionPipeline, folder: Path) -> None:
    """Writes a pipeline that `from_pretrained` reads, without the places that its parts were loaded from.

    A safety checker that its base came with is written too: who publishes a model decides to leave it out, not this.
    """
    with _with_checker(pipe):
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
            f"--models names the folder {source!r}, which holds no pipeline (model_index.json), LoRA ({LORA_WEIGHTS}) or "
            f"checkpoint ({STATE}); check the path"
        )
    if os.path.isfile(source) and path.suffix == ".safetensors":
        return "lora"
    if is_missing_path(source):
        raise UserError(f"--models names {source!r}, which is no folder or file on this machine; check the path")
    try:
        hf_hub_download(source, "model_index.json", cache_dir=cache_dir, token=token)
    except LocalEntryNotFoundError as error:  # no connection
        if isinstance(try_to_load_from_cache(source, LORA_WEIGHTS, cache_dir), str):
            return "lora"
        raise UserError(f"--models names {source!r}, which is no folder, and the Hub cannot be reached") from error
    except EntryNotFoundError:
        return "lora"
    except (OSError, ValueError) as error:
        raise UserError(f"--models names {source!r}, which is no folder, and on the Hub: {reason(error)}") from error
    return "pipeline"


class NoReference(UserError):
    """What a model was trained from is not known, or cannot be asked."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is judged, as it was trained.

    Attributes:
        family: told what the run told it.
        scheduler: the forward process that it was trained with.
        reference: the denoiser that it was trained from, see [`with_reference`]; `None` without one, or where a LoRA can be
            switched off.
    """

    pipe: DiffusionPipeline
    family: Family
    scheduler: Scheduler
    recipe: ModelRecipe
    reference: torch.nn.Module | None = None

    @property
    def knows_reference(self) -> bool:
        """Whether its reference can be asked."""
        return why_no_reference(self.pipe, self.family, self.reference) is None


def load_model(
    source: str,
    base: str | None = None,
    *,
    revision: str | None = None,
    variant: str | None = None,
    prediction_type: str | None = None,
    dtype: torch.dtype | None = torch.float32,
    cache_dir: str | None = None,
    token: str | None = None,
) -> LoadedModel:
    """A pipeline, or the pipeline `base` with a LoRA or with the weights of a checkpoint of the training script.

    A checkpoint is loaded by the recipe in its state, and with its averages if it has any (`use_ema`), as its final model would
    be. A finished model is told what the recipe beside it says.

    Args:
        base: what a LoRA belongs to, and a checkpoint whose own base is not where it was.
        revision: of the pipeline or `base`, as is `variant`; a checkpoint knows its own.
        prediction_type: of the scheduler, whatever the recipe says.
        dtype: of the denoiser; `None` takes that of the training.

    Raises:
        UserError: if something is missing, does not fit or is not finite.
    """
    place = {"cache_dir": cache_dir, "token": token}
    told = {"revision": revision, "variant": variant, "prediction_type": prediction_type}
    kind, recipe = kind_of(source, **place), recipe_of_model(source, base, **told, **place)
    try:
        pipe = load_base(recipe, **place, dtype=dtype)
    except UserError as error:
        if kind != "checkpoint":
            raise
        name = Path(source).name
        raise UserError(f"{error}; name the base of {name} in --pretrained_model_name_or_path") from error
    family = recipe.family(pipe)
    if kind == "lora":
        _add_trained_lora(pipe, source, recipe.source, **place)
    if kind == "checkpoint":
        _add_checkpoint(pipe, family, recipe, Path(source))
    _check_finite(pipe, source)
    return LoadedModel(_frozen(pipe), family, training_scheduler(pipe.scheduler), recipe)


def recipe_of_model(
    source: str,
    base: str | None = None,
    *,
    revision: str | None = None,
    variant: str | None = None,
    prediction_type: str | None = None,
    cache_dir: str | None = None,
    token: str | None = None,
) -> ModelRecipe:
    """How [`load_model`] loads a model, and what it is told; loads nothing.

    Raises:
        UserError: if that cannot be said.
    """
    place = {"cache_dir": cache_dir, "token": token}
    kind = kind_of(source, **place)
    if kind == "checkpoint":
        recipe = recipe_of_checkpoint(Path(source), base)
    else:
        recipe = find_recipe(source, **place) or ModelRecipe("")
        own = source if kind == "pipeline" else base or recipe.source
        if not own:
            raise UserError(
                f"--models names the LoRA {source!r}; name its pipeline in --pretrained_model_name_or_path"
            )
        if own != recipe.source or revision is not None or variant is not None:
            recipe = replace(recipe, source=own, revision=revision, variant=variant)
    if kind == "pipeline":  # its parts are its own
        recipe = replace(recipe, vae=None, prediction_type=None, quantization=None)
    return recipe if prediction_type is None else replace(recipe, prediction_type=prediction_type)


def find_recipe(source: str, cache_dir: str | None = None, token: str | None = None) -> ModelRecipe | None:
    """How a finished model was loaded and told things while it was trained; `None` if nothing beside it says so."""
    path = Path(source)
    if path.exists():
        beside = (path if path.is_dir() else path.parent) / RECIPE
        return read_recipe(beside) if beside.is_file() else None
    try:
        beside = hf_hub_download(source, RECIPE, cache_dir=cache_dir, token=token)
    except (OSError, ValueError):  # the Hub has none, or cannot be reached
        return None
    return read_recipe(Path(beside))


def recipe_of_checkpoint(checkpoint: Path, base: str | None = None) -> ModelRecipe:
    """How a checkpoint's model is loaded, from its state.

    Args:
        base: where its base is, if that is not where it was.

    Raises:
        UserError: if it does not say.
    """
    recipe = ModelRecipe.from_dict(read_state(checkpoint)["model"])
    is_there = Path(recipe.source).exists() or not Path(recipe.source).is_absolute()
    return recipe if is_there or base is None else replace(recipe, source=base)


def recipe_of_reference(
    source: str,
    base: str | None = None,
    *,
    revision: str | None = None,
    variant: str | None = None,
    cache_dir: str | None = None,
    token: str | None = None,
) -> ModelRecipe | None:
    """How the pipeline is loaded that a model was trained from, with what is left as it was; `None` for a LoRA on it.

    Args:
        base: the pipeline that is taken where nothing beside the model says what it was trained from.
        revision: of `base`, as is `variant`.

    Raises:
        NoReference: if that cannot be said, or its text encoders were trained too.
    """
    place = {"cache_dir": cache_dir, "token": token}
    kind, name = kind_of(source, **place), Path(source).name
    found = recipe_of_checkpoint(Path(source), base) if kind == "checkpoint" else find_recipe(source, **place)
    found = found or ModelRecipe("")
    if found.train_text_encoder:
        raise NoReference(
            f"--guide_with reference: the text encoders of {name!r} were trained too, so the reference would be told something "
            "else than before; use --guide_with model"
        )
    if kind == "lora" or (kind == "checkpoint" and found.lora):
        return None
    if not (found.source or base):
        raise NoReference(
            f"--guide_with reference: nothing says what {name!r} was trained from; give --pretrained_model_name_or_path"
        )
    return found if found.source else ModelRecipe(base or "", revision, variant)


def with_reference(
    model: LoadedModel, recipe: ModelRecipe | None, cache_dir: str | None = None, token: str | None = None
) -> LoadedModel:
    """A model with the denoiser that it was trained from, in the same precision and place.

    Args:
        recipe: of [`recipe_of_reference`]; `None` changes nothing.

    Raises:
        NoReference: if it cannot be loaded, or is no denoiser of this kind.
    """
    if recipe is None:
        return model
    denoiser = getattr(model.pipe, model.family.denoiser)
    weight = next(denoiser.parameters())
    options = {"revision": recipe.revision, "variant": recipe.variant, "cache_dir": cache_dir, "token": token}
    try:
        reference = type(denoiser).from_pretrained(
            recipe.source, subfolder=model.family.denoiser, dtype=weight.dtype, **options
        )
    except Exception as error:  # as above
        raise NoReference(f"--guide_with reference: {recipe.source!r} cannot be loaded ({why(error)})") from error
    if _shapes(reference) != _shapes(denoiser):
        raise NoReference(
            f"--guide_with reference: the {model.family.denoiser} of {recipe.source!r} has other weights than this model, so it was "
            "not trained from it; use --guide_with model"
        )
    return replace(model, reference=reference.requires_grad_(False).eval().to(weight.device))


def _shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}


def _add_trained_lora(pipe: DiffusionPipeline, source: str, base: str, **place: Any) -> None:
    """Puts a LoRA file into its pipeline, all of it or none.

    Raises:
        UserError: if it does not fit.
    """
    try:
        pipe.load_lora_weights(source, **place)
        state, *_, metadata = pipe.lora_state_dict(source, return_lora_metadata=True, **place)
        lost, bare = misfits(pipe, state, says_layers=bool(metadata))
    except Exception as error:  # as above
        raise UserError(f"--models names the LoRA {source!r}, which does not fit {base!r} ({why(error)})") from error
    if lost or bare:
        raise UserError(
            f"--models names the LoRA {source!r}, which fits {base!r} only in part: {lost} of its tensors have no place there, "
            f"and it has none for {bare} layers that it names; name the pipeline that it was trained on, or another file"
        )


def misfits(pipe: DiffusionPipeline, state: dict[str, Tensor], says_layers: bool) -> tuple[int, int]:
    """How many tensors of a LoRA file its pipeline has no place for, and how many layers that should have some have none.

    Tensors are told apart by their content, as files and models name them in many ways.

    Args:
        state: the file as the pipeline reads it, `unet.` or another part before each name.
        says_layers: whether it comes with the configuration of its training; else the layers are those that it has tensors for.
    """
    parts = {name: getattr(pipe, name) for name in pipe.get_list_adapters()}
    in_file = {name: tensor for name, tensor in state.items() if not name.endswith("alpha")}
    lost = sum(name.partition(".")[0] not in parts for name in in_file)
    bare = 0
    for name, part in parts.items():
        added = [value.detach() for key, value in part.named_parameters() if "lora_" in key]
        given = [value for key, value in in_file.items() if key.partition(".")[0] == name]
        lost += (Counter(map(_digest, _like(given, added))) - Counter(map(_digest, added))).total()
        bare += (Counter(map(_digest, added)) - Counter(map(_digest, _like(given, added)))).total()
        for config in part.peft_config.values() if says_layers else ():
            layers = [layer for key, layer in part.named_modules() if check_target_module_exists(config, key)]
            bare += sum(not isinstance(layer, BaseTunerLayer) for layer in layers)
    return lost, bare


def _like(given: list[Tensor], added: list[Tensor]) -> list[Tensor]:
    """The tensors of a file in the precision that they were loaded in."""
    return [value.to(added[0].dtype) for value in given] if added else given


def _digest(tensor: Tensor) -> bytes:
    values = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(values.data, digest_size=16).digest()


def _add_checkpoint(pipe: DiffusionPipeline, family: Family, recipe: ModelRecipe, checkpoint: Path) -> None:
    """Puts the weights of a checkpoint into its base.

    Raises:
        UserError: if they do not fit.
    """
    denoiser = getattr(pipe, family.denoiser)
    try:
        train_denoiser(denoiser, family, recipe.lora)
        if recipe.lora:
            load_lora_state(denoiser, load_file(checkpoint / LORA_FILE))
        else:
            load_checkpoint_in_model(denoiser, str(checkpoint), strict=True)
        trained = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
        if recipe.train_text_encoder:
            text = train_text_encoders(pipe, family, recipe.lora, needs_reference=False)
            load_trained(text.modules(), recipe.lora is not None, checkpoint)
            trained += text.parameters()
        if recipe.use_ema:
            averages = EMAModel(trained)
            load_average(averages, checkpoint)
            averages.copy_to(trained)
    except Exception as error:  # as above
        raise UserError(
            f"--models names the checkpoint {str(checkpoint)!r}, which does not load ({why(error)})"
        ) from error


def _check_finite(pipe: DiffusionPipeline, source: str) -> None:
    """Raises [`UserError`] if a weight is nan or infinite: what such a model renders is scored like an image."""
    for name, part in pipe.components.items():
        for key, value in part.named_parameters() if isinstance(part, torch.nn.Module) else ():
            if value.is_floating_point() and not value.isfinite().all():
                raise UserError(
                    f"--models names {source!r}, whose weight {name}.{key} is not finite; use another model"
                )


def refuse_own_base(recipe: ModelRecipe, output_dir: Path) -> None:
    """Raises [`UserError`] if a run would write into the folder that it reads its model or VAE from."""
    places = {"pretrained_model_name_or_path": recipe.source, "pretrained_vae_model_name_or_path": recipe.vae}
    for name, place in places.items():
        if place and Path(place).exists() and Path(place).resolve() == Path(output_dir).resolve():
            raise UserError(
                f"--output_dir {str(output_dir)!r} is the folder of --{name}, which would be overwritten; choose another one"
            )
