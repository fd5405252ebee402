"""What a run is, privately and by content, and what a card may say of it. Knows nothing of checkpoints or folders."""

import json
from dataclasses import Field, asdict, dataclass, fields
from typing import Any

from ..errors import UserError
from ..files import differences
from ..flags import default_of
from ..privacy import public_config
from ..trainer import TPOConfig
from ..versions import PACKAGES, version_of
from .arguments import DataArguments, ModelArguments, TrainingArguments


PLACES = {  # where something is read from: its content counts, under its own names
    "pretrained_model_name_or_path",
    "revision",
    "variant",
    "pretrained_vae_model_name_or_path",
    "bnb_quantization_config_path",
    "load_in_4bit",
    "load_in_8bit",
    "dataset_name",
    "train_data_dir",
    "dataset_config_name",
    "dataset_split",
    "dataset_revision",
    "image_column",
    "caption_column",
    "negative_prompts_column",
    "principles_column",
    "label_column",
    "reference_device",
}
SAID = {"loss_type", "beta", "resolution", "learning_rate", "train_batch_size", "seed"}  # on every card
CONTENT = {  # parts that are digests, and how a message names them
    "pretrained_model_name_or_path": "the weights of --pretrained_model_name_or_path",
    "pretrained_vae_model_name_or_path": "the weights of --pretrained_vae_model_name_or_path",
    "captions": "the captions of the data set",
    "mismatched prompts": "the mismatched prompts of the data set",
    "principles of rows": "the principles of the data set's rows",
    "labels": "the labels of the data set",
    "images": "the images of the data set",
    "data files": "the files of the data set",
}


@dataclass(frozen=True)
class Identity:
    """All that the numbers of a run depend on.

    Two runs with the same parts are the same run, whatever their folders are called. The parts may hold what is nobody's
    business: they are kept in checkpoints, which stay here, and never shown. [`~Identity.public`] is what may be shown.

    Attributes:
        parts: values and digests by name; JSON.
        versions: of what computes. Another one changes the last digits of a number, and is said where a run goes on.
        shown: hyper-parameters by name, without places.
    """

    parts: dict[str, Any]
    versions: dict[str, str | None]
    shown: dict[str, Any]

    @classmethod
    def of(
        cls,
        model: ModelArguments,
        data: DataArguments,
        tpo: TPOConfig,
        training: TrainingArguments,
        content: dict[str, Any],
        processes: int,
    ) -> "Identity":
        """
        Args:
            content: of the model, see [`~diffusers_tpo.models.recipe.ModelRecipe.identity`], and of the data set, see
                [`~diffusers_tpo.data.fingerprint.fingerprint_rows`].
            processes: that share the rows.
        """
        groups = (model, data, tpo, training)
        flags = {name: value for group in groups for name, value in asdict(group).items() if name not in PLACES}
        parts = flags | content | {"num_processes": processes}
        versions = {name: version_of(name) for name in PACKAGES}
        return cls(json.loads(json.dumps(parts)), versions, shown_of(groups, processes))

    def public(self) -> dict[str, Any]:
        """What cards and trackers show: no path, no token, and of the flags only what differs from the defaults."""
        return self.shown

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; JSON."""
        return {"parts": self.parts, "versions": self.versions}

    def refuse_other(self, state: dict[str, Any], what: str) -> None:
        """Checks that it is this run that wrote something.

        Args:
            state: the [`~Identity.state`] that was written.
            what: it was, for the message.

        Raises:
            UserError: naming every difference.
        """
        try:
            changed = self.differences(state["parts"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{what} does not say which run wrote it; use another --output_dir") from error
        if changed:
            raise UserError(
                f"{what} was written by another run: {changed}; use what it was written with, or another --output_dir"
            )

    def differences(self, parts: dict[str, Any]) -> str:
        """What differs from the parts of another run, one clause for each; empty if nothing does."""
        contents = [f"{what} changed" for name, what in CONTENT.items() if parts.get(name) != self.parts.get(name)]
        values = differences(
            *({name: value for name, value in side.items() if name not in CONTENT} for side in (parts, self.parts))
        )
        return "; ".join([*contents, *([values] if values else [])])

    def other_versions(self, state: dict[str, Any]) -> str:
        """Of what computed then and computes now; empty if they are the same."""
        return differences(state.get("versions", {}), self.versions)


def shown_of(groups: tuple, processes: int) -> dict[str, Any]:
    """The flags of dataclass objects that differ from their defaults, and some that are always of interest."""
    flags: list[tuple[Field, Any]] = [(one, getattr(group, one.name)) for group in groups for one in fields(group)]
    told = {one.name: value for one, value in flags if one.name in SAID or value != default_of(one)}
    told = {name: "none" if value is None else value for name, value in told.items()}
    return public_config(told, {"num_processes": processes})
