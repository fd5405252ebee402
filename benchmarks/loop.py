"""Runs the training script itself and says where its loop spends its time, or how much memory a step takes.

    python benchmarks/loop.py time|memory|process <flags of the training script>

The last line is JSON: of `time`, for every step the seconds of each part; of `memory`, the peak of a step in bytes; of `process`,
that of the whole process, which on a CPU is all that it ever held, and on a GPU what the allocator gave out. Every part is timed
by a wrapper around the library function that the script calls for it, the loop itself is untouched.
"""

import contextlib
import functools
import gc
import itertools
import json
import os
import resource
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from timing import synchronize
from torch.profiler import ProfilerActivity, profile

from diffusers_tpo import noising, trainer
from diffusers_tpo.families import StableDiffusion
from diffusers_tpo.training import encoding, loader, reference, step
from diffusers_tpo.training.log import TrainingLog


ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "text_preference" / "train_text_to_image_tpo.py"
WARMUP = 3  # steps that are left out
PARTS = [  # owner, function, what it is called in the tables; the outermost counts
    (encoding.Encoder, "encode_images", "images"),
    (encoding.Encoder, "encode_prompts", "prompts"),
    (noising, "add_noise", "noise"),
    (trainer.TPOTrainer, "reference_error", "reference forward"),
    (reference.KnownReference, "errors", "known reference errors"),
    (StableDiffusion, "predict", "policy forward"),
    (Accelerator, "backward", "backward"),
    (step.Stepper, "step", "clip and optimizer"),
    (TrainingLog, "append", "log"),
]
DENOISER = ("reference forward", "policy forward", "backward")


class Stopwatch:
    """Seconds of each part in each step."""

    def __init__(self):
        self.steps, self.inside = [], False

    @contextlib.contextmanager
    def part(self, name: str):
        if self.inside or not self.steps:
            yield
            return
        self.inside, start = True, now()
        try:
            yield
        finally:
            self.inside = False
            step = self.steps[-1]
            step[name] = step.get(name, 0.0) + now() - start

    def wrap(self, owner, function: str, name: str) -> None:
        original = getattr(owner, function)

        @functools.wraps(original)
        def timed(*args, **kwargs):
            with self.part(name):
                return original(*args, **kwargs)

        setattr(owner, function, timed)

    def batches(self, original):
        """`PlacedLoader.after` in which every batch begins a step."""

        @functools.wraps(original)
        def timed(*args):
            batches, begun = original(*args), None
            while True:
                if begun is not None:
                    self.steps[-1]["all"] = now() - begun
                begun = now()
                self.steps.append({})
                with self.part("loader"):
                    batch = next(batches)
                yield batch

        return timed


def now() -> float:
    synchronize()
    return time.perf_counter()


def measure_time() -> list[dict[str, float]]:
    watch = Stopwatch()
    for part in PARTS:
        watch.wrap(*part)
    loader.PlacedLoader.after = watch.batches(loader.PlacedLoader.after)
    run()
    return [step for step in watch.steps[WARMUP:] if "all" in step]


def live_bytes() -> int:
    """Of all tensors that Python knows: between two steps these are weights, optimizer states and kept numbers."""
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    storages = {storage.data_ptr(): storage.nbytes() for storage in (t.untyped_storage() for t in tensors)}
    return sum(storages.values())


def allocated_peak(record: profile) -> int:
    """The most bytes that PyTorch's CPU allocator had given out since the beginning of a record."""
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes, initial=0))


def measure_memory() -> int:
    """Peak of one step of the loop in bytes: what the allocator says on a GPU; on a CPU all tensors before the step, plus the
    peak of what the allocator gave out in it, by the profiler's record."""
    peaks, original = [], loader.PlacedLoader.after

    @functools.wraps(original)
    def batches(*args):
        for number, batch in enumerate(original(*args)):
            if number != WARMUP:
                yield batch
                continue
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
                yield batch
                peaks.append(torch.cuda.max_memory_allocated())
            else:
                before = live_bytes()
                with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
                    yield batch
                peaks.append(before + allocated_peak(record))

    loader.PlacedLoader.after = batches
    run()
    return peaks[0]


def measure_process() -> int:
    run()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run() -> None:
    runpy.run_path(str(SCRIPT), run_name="__main__")


def as_flags(flags: dict) -> list[str]:
    """`rank=4` becomes `--rank 4`, `use_lora=True` becomes `--use_lora`; `False` is left out."""
    given = {name: value for name, value in flags.items() if value is not False}
    return [word for name, x in given.items() for word in ([f"--{name}"] if x is True else [f"--{name}", str(x)])]


def run_script(what: str, **flags):
    """Measures the script with these flags in a process of its own; see `as_flags`. What an earlier call left is removed."""
    words = as_flags(flags)
    shutil.rmtree(flags["output_dir"], ignore_errors=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    if not torch.cuda.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"
    command = [sys.executable, __file__, what, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    measure = {"time": measure_time, "memory": measure_memory, "process": measure_process}[sys.argv.pop(1)]
    print(json.dumps(measure()))
