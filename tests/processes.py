"""Starts the training script in real processes that need not import torch and diffusers anew: a server forks them."""

import importlib
import multiprocessing
import os
import runpy
import socket
import sys
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from conftest import SCRIPT


FSDP = Path(__file__).parent / "fsdp_on_cpu.py"


def run(argv: list[str], environ: dict[str, str], output: str) -> None:
    """What a process does: `python argv...` with its output in a file."""
    multiprocessing.set_start_method("fork", force=True)  # for data workers, as in a process of its own
    os.environ |= environ
    sys.path[:0] = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    with open(output, "a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")


def server() -> BaseContext:
    """Makes processes by forking one that has imported everything once; there is one such process for all tests."""
    importlib.import_module("preloaded")  # the server passes over an import that fails, and all would be slow
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the server is not told where this process looks
        forkserver.ensure_running()
    return context


def start(processes: int, flags: list[str], output: Path, script: Path = SCRIPT, **environ: str) -> list[BaseProcess]:
    """One or several processes of a run, as a launcher starts them; each appends to `output/output-RANK.txt`.

    Args:
        script: another script, or [`FSDP`], which runs the training script.
        environ: more variables.
    """
    context = server()
    output.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(processes):
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
        place |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
        place = environ | (place if processes > 1 else {})
        argv = [str(script), *([str(SCRIPT)] if script == FSDP else []), *flags]
        process = context.Process(target=run, args=(argv, place, str(output / f"output-{rank}.txt")))
        process.start()
        started.append(process)
    return started


def said(output: Path) -> str:
    """The last words of all processes."""
    return "\n".join(path.read_text()[-3000:] for path in sorted(output.glob("output-*.txt")))


PATIENCE = 300  # seconds until a process counts as one that hangs, on a busy machine too


def finish(started: list[BaseProcess], timeout: float = PATIENCE) -> list[int | None]:
    """Waits and returns the exit codes; `None` for a process that hung and was killed."""
    for process in started:
        process.join(timeout)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
        process.join()
    return codes
