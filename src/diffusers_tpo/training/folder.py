"""The folder that a run writes to: its own alone, and nothing in it is lost to another run. Knows nothing of models."""

import logging
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from ..errors import UserError, reason
from ..files import fault_of, make_folder
from ..models.checkpoints import find_checkpoint, list_checkpoints
from ..models.loading import LORA_WEIGHTS


logger = logging.getLogger(__name__)
LOCK = ".run.lock"
LOG = "training_log.jsonl"
CARD = "README.md"
CONFIG = "config.yaml"  # the flags of the run, with paths: it is never pushed
MODELS = ("model_index.json", LORA_WEIGHTS)


class RunFolder:
    """The folder of a run; while it is entered, no other run can enter it.

    Attributes:
        path: of the folder.
        is_main: whether this is the process that writes to it; the others ask it nothing.
    """

    def __init__(self, path: Path, is_main: bool = True, patience: float = 10):
        """
        Args:
            patience: seconds to wait for a run that is just ending: data workers outlive one that was killed.
        """
        self.path, self.is_main = Path(path), is_main
        self.lock = FileLock(self.path / LOCK, timeout=patience)

    def __enter__(self) -> "RunFolder":
        """Raises [`UserError`] if the folder cannot be written to, or another run writes to it."""
        if not self.is_main:
            return self
        make_folder(self.path, "--output_dir")
        try:
            self.lock.acquire()
        except Timeout as error:
            raise UserError(
                f"--output_dir {str(self.path)!r} is what another run writes to at this moment; choose another folder"
            ) from error
        except NotImplementedError:
            logger.warning(f"{self.path} takes no locks: start no second run with it while this one goes on")
        except OSError as error:
            raise UserError(
                f"--output_dir {str(self.path)!r} cannot be written to ({reason(error)}); choose another folder"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises [`UserError`] in the place of an error that says that the folder cannot be written to any more."""
        if self.is_main:
            self.lock.release()
        if isinstance(error, OSError | RuntimeError | SafetensorError) and (what := fault_of(self.path, error)):
            raise UserError(
                f"--output_dir {str(self.path)!r} {what}; mend that, and go on from the newest checkpoint with "
                "--resume_from_checkpoint latest"
            ) from error

    def find_start(self, resume_from: str | None = None) -> Path | None:
        """Where a run begins that loses nothing of what the folder holds: its own checkpoint, or the start in a folder without
        a run and without a model. Call it on every process; nothing is changed yet.

        Args:
            resume_from: name or path of a checkpoint in the folder, or "latest".

        Returns:
            The checkpoint to go on from, `None` to begin at the start.

        Raises:
            UserError: if there is no such checkpoint, or a run from the start would overwrite something.
        """
        checkpoint = None if resume_from is None else find_checkpoint(self.path, resume_from)
        if self.is_main and resume_from is None:
            self._refuse_run()
        if self.is_main and checkpoint is None:
            self._refuse_model()
        return checkpoint

    def make_room(self) -> None:
        """Sets aside what a run from the start would overwrite: foreign files, and the log of a run that left no checkpoint."""
        is_new = not (self.path / LOG).exists()
        for name in (CARD, CONFIG) if is_new else (LOG,):
            self._set_aside(self.path / name)

    def _refuse_run(self) -> None:
        advice = "go on with --resume_from_checkpoint latest, or choose another folder"
        if checkpoints := list_checkpoints(self.path):
            raise UserError(f"--output_dir {str(self.path)!r} holds {checkpoints[-1].name} of a run; {advice}")
        if steps := steps_in(self.path / LOG):
            raise UserError(f"--output_dir {str(self.path)!r} holds the log of a run of {steps} steps; {advice}")

    def _refuse_model(self) -> None:
        for name in MODELS:
            if (self.path / name).exists():
                raise UserError(
                    f"--output_dir {str(self.path)!r} holds a model ({name}), which would be overwritten; choose another folder"
                )

    def _set_aside(self, path: Path) -> None:
        """Renames a file that is about to be written to, unless it is empty."""
        if not path.is_file() or not path.stat().st_size:
            return
        number = 1
        while (other := path.with_name(f"{path.stem}.before-{number}{path.suffix}")).exists():
            number += 1
        path.rename(other)
        logger.warning(f"{path.name} in {self.path} is kept as {other.name}")


def steps_in(log: Path) -> int:
    """How many steps a log holds; 0 if there is none."""
    if not log.is_file():
        return 0
    with log.open("rb") as file:
        return sum(1 for line in file if line.strip())
