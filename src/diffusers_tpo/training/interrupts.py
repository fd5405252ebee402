"""Turns SIGTERM and Ctrl-C into a request that a training loop honours at the end of its step."""

import atexit
import multiprocessing
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

from .session import Ending


SIGNALS = (signal.SIGINT, signal.SIGTERM)
IS_LEAVING = multiprocessing.RawValue("b", 0)  # whether this program exits; its data workers see it too


class StopRequest:
    """While it is entered, the first signal is only noted; another Ctrl-C a second later stops at once.

    A launcher forwards the signal that the terminal has already sent to all processes, hence the second.

    Attributes:
        number: the signal that came, `None` if none did.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def came(self) -> bool:
        return self.number is not None

    def ending(self) -> Ending:
        """Of a run whose processes agree to stop; the signal may have reached some of them only."""
        return Ending("a signal came", 128 + (self.number or signal.SIGTERM))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number, self._since = number, time.monotonic()
            name = signal.Signals(number).name
            print(f"\n{name}: saving a checkpoint after this step; Ctrl-C again stops at once", file=sys.stderr)
        elif number == signal.SIGINT and time.monotonic() - self._since > 1:
            raise KeyboardInterrupt


@atexit.register
def leave() -> None:
    """Lets data workers obey SIGTERM, with which multiprocessing ends what is still there when a program exits."""
    IS_LEAVING.value = 1


def outlive_signals(is_leaving: Any, worker: int) -> None:
    """A data worker's `worker_init_fn`, with [`IS_LEAVING`] before it: a terminal or a job queue signals the worker too, while
    its parent still finishes a step with it."""

    def obey(number: int, frame: FrameType | None) -> None:
        if is_leaving.value:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, obey)
