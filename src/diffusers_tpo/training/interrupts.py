"""Turns SIGTERM and Ctrl-C into a request that a training loop honours at the end of its step."""

import signal
import sys
import time
from types import FrameType

from .session import Ending


SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


def ignore_signals(worker: int) -> None:
    """A data worker's `worker_init_fn`: a terminal or a job queue signals it too, but its parent still finishes a step."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
