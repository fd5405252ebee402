"""How a model is loaded and what it is told: one object for training, checkpoints, judging and rendering. Loads nothing."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ..errors import UserError
from ..families import Family, family_of
from ..files import read_json, write_whole
from ..privacy import public_name
from .fingerprints import fingerprint
from .precision import HALF
from .quantization import bnb_arguments


RECIPE = "training_recipe.json"


@dataclass(frozen=True)
class LoraShape:
    """What a LoRA is made of.

    Attributes:
        alpha: scale of the update times `rank`; `None` takes `rank`, so the scale is one.
        layers: ends of the names of the denoiser's layers that carry it; `None` takes the family's.
    """

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    use_dora: bool = False
    layers: tuple[str, ...] | None = None

    @property
    def scale(self) -> float:
        """Of the update times `rank`."""
        return float(self.rank if self.alpha is None else self.alpha)


@dataclass(frozen=True)
class ModelRecipe:
    """How a model is loaded and what it is told.

    Attributes:
        source: Hub id or folder of the pipeline; `revision` and `variant` are its.
        vae: Hub id or folder of another VAE.
        prediction_type: that the scheduler is given; `None` leaves it as it is.
        quantization: arguments of the `BitsAndBytesConfig` that the denoiser is held in.
        precision: of mixed-precision training, "no", "fp16" or "bf16".
        max_sequence_length, guidance_scale: that the family is told; `None` for its own.
        lora: that is trained; `None` in full training.
        use_ema: whether the final weights are averages.
    """

    source: str
    revision: str | None = None
    variant: str | None = None
    vae: str | None = None
    prediction_type: str | None = None
    quantization: dict[str, Any] | None = None
    precision: str = "no"
    max_sequence_length: int | None = None
    guidance_scale: float | None = None
    lora: LoraShape | None = None
    train_text_encoder: bool = False
    use_ema: bool = False

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> "ModelRecipe":
        """By the flags of the training script, under their names; what else is there is left alone.

        Raises:
            UserError: for a wrong quantisation.
        """
        same = ("revision", "variant", "prediction_type", "max_sequence_length", "guidance_scale")
        lora = None
        if flags.get("use_lora"):
            layers = flags.get("lora_layers")
            lora = LoraShape(
                rank=flags.get("rank", LoraShape.rank),
                alpha=flags.get("lora_alpha"),
                dropout=flags.get("lora_dropout", LoraShape.dropout),
                use_dora=flags.get("use_dora", False),
                layers=tuple(layers.replace(" ", "").split(",")) if layers else None,
            )
        return cls(
            source=flags["pretrained_model_name_or_path"],
            vae=flags.get("pretrained_vae_model_name_or_path"),
            quantization=bnb_arguments(
                flags.get("load_in_4bit", False),
                flags.get("load_in_8bit", False),
                flags.get("bnb_quantization_config_path"),
            ),
            precision=flags.get("mixed_precision", "no"),
            lora=lora,
            train_text_encoder=flags.get("train_text_encoder", False),
            use_ema=flags.get("use_ema", False),
            **{name: flags.get(name) for name in same},
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of the denoiser's frozen weights: what is trained in full, and saved, is float32."""
        return HALF[self.precision] if self.lora else torch.float32

    def family(self, pipe: DiffusionPipeline) -> Family:
        """The family of the pipeline, told what the recipe says.

        Raises:
            UserError: if there is none, or it has no such option.
        """
        return family_of(pipe, max_sequence_length=self.max_sequence_length, guidance_scale=self.guidance_scale)

    def as_dict(self) -> dict[str, Any]:
        """For the state of a checkpoint; folders are named so that they are found from anywhere."""
        return _plain(replace(self, source=_anywhere(self.source), vae=self.vae and _anywhere(self.vae)))

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "ModelRecipe":
        """Of what [`~ModelRecipe.as_dict`] or [`~ModelRecipe.public`] gave.

        Raises:
            UserError: if it is something else.
        """
        try:
            lora = saved.get("lora")
            layers = lora and lora.get("layers")
            shape = lora and LoraShape(**dict(lora) | {"layers": layers and tuple(layers)})
            recipe = cls(**dict(saved) | {"lora": shape})
            HALF[recipe.precision]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"the recipe of a model is damaged ({error})") from error
        return recipe

    def identity(self, cache_dir: str | None = None, token: str | None = None) -> dict[str, Any]:
        """All of the model that the numbers of a run depend on, under the names of the flags.

        Weights are named by their content: a folder that was moved is the same, and changed weights are others.
        """
        lora = self.lora and _plain(self.lora) | {"alpha": self.lora.scale}
        return {
            "pretrained_model_name_or_path": fingerprint(self.source, self.revision, self.variant, cache_dir, token),
            "pretrained_vae_model_name_or_path": self.vae and fingerprint(self.vae, cache_dir=cache_dir, token=token),
            "quantization": self.quantization,
            "prediction_type": self.prediction_type,
            "mixed_precision": self.precision,
            "max_sequence_length": self.max_sequence_length,
            "guidance_scale": self.guidance_scale,
            "use_lora": self.lora is not None,
            "rank": lora and lora["rank"],
            "lora_alpha": lora and lora["alpha"],
            "lora_dropout": lora and lora["dropout"],
            "use_dora": lora and lora["use_dora"],
            "lora_layers": lora and lora["layers"],
            "train_text_encoder": self.train_text_encoder,
            "use_ema": self.use_ema,
        }

    def public(self) -> dict[str, Any]:
        """What anybody may read: a folder is not named."""
        places = {"source": self.source, "vae": self.vae}
        hub = {name: place if place and public_name(place, "") == place else None for name, place in places.items()}
        return _plain(self) | hub | {"source": hub["source"] or ""}


def _plain(values: "LoraShape | ModelRecipe") -> dict[str, Any]:
    """A dataclass as JSON has it."""
    return json.loads(json.dumps(asdict(values)))


def _anywhere(source: str) -> str:
    """A folder's full path; a Hub id as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def write_recipe(recipe: ModelRecipe, folder: Path) -> None:
    """Keeps beside a finished model how it was loaded and told things, for those who judge it."""
    write_whole(Path(folder) / RECIPE, json.dumps(recipe.public(), indent=2) + "\n")


def read_recipe(path: Path) -> ModelRecipe:
    """What [`write_recipe`] wrote.

    Raises:
        UserError: if the file is damaged.
    """
    return ModelRecipe.from_dict(read_json(path))
