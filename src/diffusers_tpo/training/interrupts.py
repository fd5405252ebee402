"""Turns SIGTERM and Ctrl-C into a request that a training loop honours at the end of its step."""

import signal
import sys
import time


class StopRequest:
    """While it is entered, the first signal is only noted; another Ctrl-C a second later stops at once.

    A launcher forwards the signal that the terminal has already sent to all processes, hence the second.

    Attributes:
        number: the signal that came, `None` if none did.
    """

    def __init__(self):
        self.number: int | None = None

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        if self.number is None:
            self.number, self._since = number, time.monotonic()
            name = signal.Signals(number).name
            print(f"\n{name}: saving a checkpoint after this step; Ctrl-C again stops at once", file=sys.stderr)
        elif number == signal.SIGINT and time.monotonic() - self._since > 1:
            raise KeyboardInterrupt


def ignore_ctrl_c(worker: int) -> None:
    """A data worker's `worker_init_fn`: a terminal sends Ctrl-C to it too, but its parent still finishes a step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
