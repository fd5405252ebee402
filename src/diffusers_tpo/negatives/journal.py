"""Keeps the answers of an editor, one line each, so that a killed run asks for none of them again."""

import json
import os
import time
from pathlib import Path

from ..chat import LONGEST_READ
from ..errors import UserError, reason
from .editors import Answer, EditRequest


SYNC_SECONDS = 1.0  # what a power cut may cost; a killed process loses nothing


class Journal:
    """The answers of one shard, a JSON line for each."""

    def __init__(self, path: Path):
        """Opens a journal to read and go on; a last line that a killed run left unfinished is cut off.

        Raises:
            UserError: if another line is damaged.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = self.path.read_bytes() if self.path.exists() else b""
        kept = kept[: kept.rfind(b"\n") + 1]
        self.file = self.path.open("ab")
        self.file.truncate(len(kept))
        try:
            self.records = [json.loads(line) for line in kept.splitlines()]
        except ValueError as error:
            raise UserError(f"{str(path)!r} is damaged ({reason(error)}); use another output_dir") from error
        self.synced = time.monotonic()

    def append(self, request: EditRequest, answer: Answer) -> dict:
        """Keeps an answer, as much of it as is ever read."""
        record = {
            "row": request.row,
            "attempt": request.attempt,
            "answer": answer.text[:LONGEST_READ],
            "tokens": [answer.prompt_tokens, answer.completion_tokens],
        }
        self.file.write(json.dumps(record).encode() + b"\n")
        self.file.flush()
        if time.monotonic() - self.synced > SYNC_SECONDS:
            os.fsync(self.file.fileno())
            self.synced = time.monotonic()
        return record

    def close(self) -> None:
        os.fsync(self.file.fileno())
        self.file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error) -> None:
        self.close()
