"""What a run is, and what a card may say of it."""

from dataclasses import asdict, dataclass

from ..privacy import public_config
from ..trainer import TPOConfig
from .arguments import DataArguments, ModelArguments, TrainingArguments


@dataclass(frozen=True)
class Identity:
    """What changes the numbers of a run.

    Attributes:
        config: hyper-parameters by name.
    """

    config: dict[str, object]

    @classmethod
    def of(
        cls,
        model: ModelArguments,
        data: DataArguments,
        tpo: TPOConfig,
        training: TrainingArguments,
        processes: int,
    ) -> "Identity":
        groups = (asdict(group) for group in (model, data, tpo, training))
        return cls(public_config(*groups, {"num_processes": processes}))

    @property
    def method(self) -> str:
        return str(self.config["loss_type"])

    def public(self) -> dict[str, object]:
        """What cards and trackers show."""
        return self.config
