"""Pushing and loading through a loopback Hub; the clients read its address when they are imported, so in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


CHECKS = Path(__file__).with_name("hub_checks.py")


@pytest.mark.slow
def test_real_clients_build_push_load_train_and_survive_faults(tmp_path):
    unwanted = ("HF_", "HUGGING_FACE", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    command = [sys.executable, str(CHECKS), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
