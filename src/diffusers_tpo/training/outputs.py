"""What a run leaves in its folder, and on the Hub: the LoRA or the pipeline, its curves and its card. Trains nothing."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator

from ..errors import UserError
from ..families import call_arguments
from ..models.adapters import save_lora, whole_module
from ..models.exports import export_path, save_export
from ..models.loading import save_pipeline
from ..models.recipe import write_recipe
from ..publish.curves import draw_training
from ..publish.hub import ATTEMPTS, own_name, push_folder
from ..publish.model_card import Card, Published, write_model_card
from .folder import CONFIG, LOCK
from .hard_negatives import SET_ASIDE
from .trained import TrainedModels


logger = logging.getLogger(__name__)
HALF = {"unet": "float16", "transformer": "bfloat16"}  # what a finished model is best loaded in


@dataclass(frozen=True)
class Release:
    """The folder of a run's model, and the repository that it is or would be pushed to.

    Attributes:
        branch: of the repository; `None` for the main one.
        is_private: whether a repository that does not exist is made a private one.
        ignored: patterns of files that are never pushed, besides those of every model.
        formats: of other programs that a LoRA is written in too, see [`~diffusers_tpo.models.exports`].
    """

    folder: Path
    repo: str
    accelerator: Accelerator
    branch: str | None = None
    token: str | None = field(default=None, repr=False)
    is_private: bool = False
    ignored: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        folder: Path,
        accelerator: Accelerator,
        repo: str | None = None,
        branch: str | None = None,
        token: str | None = None,
        is_private: bool = False,
        *,
        will_push: bool = False,
        formats: Sequence[str] = (),
        logging_dir: str = "logs",
    ) -> "Release":
        """Of a run's folder.

        Args:
            repo: by default named like the folder.
            will_push: whether the run pushes.
            formats: of other programs, for a LoRA.
            logging_dir: in the folder, which stays here.

        Raises:
            UserError: if the run pushes and the Hub does not know the token.
        """
        repo = repo or folder.resolve().name
        if will_push and accelerator.is_main_process:
            repo = own_name(repo, token)
        ignored = (f"{logging_dir}/*", "*.before-*", CONFIG, LOCK, SET_ASIDE)
        return cls(folder, repo, accelerator, branch, token, is_private, ignored, tuple(formats))

    def save(self, models: TrainedModels, rows: list[dict], card: Card) -> None:
        """Writes a model as it is, its curves and its card; call it on every process, with the models at rest.

        Args:
            rows: of the training log.
        """
        name = models.family.denoiser
        live = getattr(models.pipe, name)
        if models.is_lora:
            save_lora(type(models.pipe), models.denoiser, name, self.folder, models.text_encoders)
            for format in self.formats:
                tensors = models.exported(format)
                if self.accelerator.is_main_process:
                    save_export(tensors, export_path(self.folder, format))
        else:
            setattr(models.pipe, name, whole_module(models.denoiser))
        if self.accelerator.is_main_process:
            if not models.is_lora:
                save_pipeline(models.pipe, self.folder)
            write_recipe(models.recipe, self.folder)
            if rows:
                draw_training(rows, self.folder / "assets" / "curves.png")
            model = self._published(models)
            write_model_card(self.folder, model, card, rows)
        setattr(models.pipe, name, live)

    def _published(self, models: TrainedModels) -> Published:
        """The model as others load and call it."""
        pipe, family = models.pipe, models.family
        is_guided = family.asks_empty_prompt(pipe) and models.text is None
        told = call_arguments(pipe, [""], guidance_scale=1.0)
        return Published(
            self.repo,
            type(pipe).__name__,
            HALF[family.denoiser],
            self.branch,
            family.denoiser,
            family.unconditional if is_guided else None,
            {"negative_prompt": told["negative_prompt"][0]} if "negative_prompt" in told else {},
            {format: export_path(self.folder, format).name for format in self.formats},
        )

    def push(self, attempts: int = ATTEMPTS) -> None:
        """Pushes what lies in the folder, from the main process.

        Raises:
            UserError: if the Hub refuses or fails in the end.
        """
        if self.accelerator.is_main_process:
            url = push_folder(
                self.folder,
                self.repo,
                self.token,
                private=self.is_private,
                revision=self.branch,
                ignored=self.ignored,
                attempts=attempts,
            )
            logger.info(f"Pushed to {url}")

    def push_so_far(self) -> None:
        """Pushes what lies in the folder while the run goes on, which it also does if that fails."""
        try:
            self.push(attempts=1)
        except UserError as error:
            logger.warning(f"training goes on, and the next checkpoint is pushed again: {error}")
