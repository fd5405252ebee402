"""One JSON line of metrics for each optimizer step of a run. Knows nothing of what they mean."""

import json
import logging
import os
from pathlib import Path

from ..errors import UserError, reason
from ..files import sync, write_whole


logger = logging.getLogger(__name__)


class TrainingLog:
    """The log of a run, cut back to the step from which it goes on.

    Attributes:
        rows: of all steps up to now; they are in memory too, so that a log whose folder was removed is written again.
    """

    def __init__(self, path: Path, step: int, is_main: bool):
        """
        Args:
            step: from which the run goes on, 0 for a run from the start.
            is_main: whether this process writes the file.
        """
        self.path, self.is_main = Path(path), is_main
        lines = self.path.read_text(encoding="utf-8").splitlines() if step and self.path.exists() else []
        self.rows = [row for row in map(_parse, lines) if row and row["step"] <= step]
        if is_main:
            self._write_all()

    def append(self, step: int, metrics: dict[str, float]) -> None:
        """Adds the row of a step.

        Raises:
            UserError: if it cannot be written.
        """
        self.rows.append({"step": step, **metrics})
        if not self.is_main:
            return
        try:
            self._write_last()
        except OSError as error:
            raise UserError(
                f"--output_dir takes no log of step {step} ({reason(error)}); make room, and go on from the newest "
                "checkpoint with --resume_from_checkpoint latest"
            ) from error

    def sync(self) -> None:
        """Waits until all steps are on the disk, as a checkpoint's must be before it counts."""
        if self.is_main and self.path.exists():
            sync(self.path)

    def _write_last(self) -> None:
        try:
            with self.path.open("r+", encoding="utf-8") as file:
                file.seek(0, os.SEEK_END)
                file.write(json.dumps(self.rows[-1]) + "\n")
        except FileNotFoundError:
            logger.warning(f"{self.path} was removed; it is written again")
            self._write_all()

    def _write_all(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))


def _parse(line: str) -> dict | None:
    """A row of the log; `None` for what a run wrote as it died."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None
