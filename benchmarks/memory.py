"""Peak memory of a training step by model and mode, each in a process of its own.

    python benchmarks/memory.py [--models sdxl flux] [--modes lora full] [--output docs/results/memory.json]

On a CPU it is the process's peak, on a GPU the allocator's. Weights are random: `tiny` models show the modes at work on every
family, `sd15` has the shapes of Stable Diffusion 1.5 at 256 pixels. The table is printed, and kept with `--output`, where docs/tables.py reads it.
"""

import argparse
import datetime
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import models
import tiny
import tiny_families
import torch
from loop import SCRIPT, run_script

from diffusers_tpo.tables import Table, write_tables


MODES = {
    "SFT, LoRA": {"loss_type": "sft", "use_lora": True},
    "TDPO, LoRA": {"use_lora": True},
    "TDPO, LoRA, checkpointing": {"use_lora": True, "gradient_checkpointing": True},
    "TDPO, LoRA, checkpointing, kept encodings": {"use_lora": True, "gradient_checkpointing": True, "kept": True},
    "SFT, full": {"loss_type": "sft"},
    "TDPO, full": {},
    "TDPO, full, checkpointing, reference in bf16": {"gradient_checkpointing": True, "reference_dtype": "bf16"},
}


def make(model: str, folder: Path) -> int:
    """Writes a pipeline and eight rows of data; returns the side of its images."""
    tiny.make_dataset(8).save_to_disk(folder / "data")
    if model == "sd15":
        models.make_sd15().save_pretrained(folder / "model")
        return 256
    pipe = tiny_families.make_pipe(model)
    pipe.save_pretrained(folder / "model")
    return tiny_families.call_flags(pipe)["height"]


def measure(folder: Path, side: int, mode: dict, output: Path) -> float:
    """Peak of two steps in MB."""
    flags = {"pretrained_model_name_or_path": folder / "model", "train_data_dir": folder / "data", "resolution": side}
    flags |= {"max_train_steps": 2, "train_batch_size": 1, "report_to": "none", "output_dir": output} | mode
    if flags.pop("kept", False):
        flags |= {"cache_latents": True, "cache_prompt_embeddings": True, "encodings_dir": folder / "encodings"}
        flags |= {"center_crop": True}
    return run_script("process", **flags) / 2**20


def imports() -> float:
    """Peak of a process that imports what the script imports, in MB; 0 on a GPU."""
    if torch.cuda.is_available():
        return 0.0
    lines = f"import resource, runpy; runpy.run_path({str(SCRIPT)!r}, run_name='none')"
    lines += "; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    families = ["sd", "sdxl", "sd3", "flux", "sana", "qwen_image", "flux2", "z_image"]
    parser.add_argument("--models", nargs="+", default=["sd15", *families], help="tiny families, or sd15")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    rows = [["none", "imports alone", f"{imports():,.0f}"]]
    for model in args.models:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            subprocess.run([sys.executable, __file__, "--make", model, name], check=True, capture_output=True)
            side = int((folder / "side").read_text())
            for number, mode in enumerate(args.modes):
                rows.append([model, mode, f"{measure(folder, side, MODES[mode], folder / str(number)):,.0f}"])
                print(*rows[-1], sep="\t", flush=True)
    peaks = Table(["model", "mode", "peak, MB"], rows)
    print(f"\n{peaks.markdown()}")
    if args.output:
        cpu = f"CPU ({os.cpu_count()} cores)"
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
        machine = f"{device}, torch {torch.__version__}, Python {platform.python_version()}"
        command = shlex.join(["python", "benchmarks/memory.py", *sys.argv[1:]])
        write_tables(args.output, {"peaks": peaks}, command=command, date=str(datetime.date.today()), machine=machine)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        (Path(sys.argv[3]) / "side").write_text(str(make(sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
