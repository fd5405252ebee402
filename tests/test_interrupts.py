"""Signals: a run finishes its step with its data workers, and nothing outlives it."""

import multiprocessing
import os
import signal
import time

from diffusers_tpo.training.interrupts import outlive_signals


def wait(is_leaving, ready) -> None:
    outlive_signals(is_leaving, 0)
    ready.set()
    while True:
        time.sleep(0.05)


def test_a_data_worker_outlives_signals_until_its_parent_leaves():
    context = multiprocessing.get_context("fork")
    is_leaving, ready = context.RawValue("b", 0), context.Event()
    worker = context.Process(target=wait, args=(is_leaving, ready), daemon=True)
    worker.start()
    assert ready.wait(300)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        os.kill(worker.pid, number)
    worker.join(0.3)
    assert worker.is_alive()
    is_leaving.value = 1
    worker.terminate()
    worker.join(300)
    assert worker.exitcode == 0
