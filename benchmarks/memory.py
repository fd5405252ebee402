"""Peak memory of a training step by model and mode, each in a process of its own.

    python benchmarks/memory.py [--models sdxl flux] [--modes lora full] [--output docs/memory.md]

On a CPU it is the process's peak, on a GPU the allocator's. Weights are random: `tiny` models show the modes at work on every
family, `sd15` has the shapes of Stable Diffusion 1.5 at 256 pixels. The table is printed, and written with `--output`.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import torch


ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "text_preference" / "train_text_to_image_tpo.py"
MODES = {
    "SFT, LoRA": {"loss_type": "sft", "use_lora": True},
    "TDPO, LoRA": {"use_lora": True},
    "TDPO, LoRA, checkpointing": {"use_lora": True, "gradient_checkpointing": True},
    "TDPO, LoRA, checkpointing, kept encodings": {"use_lora": True, "gradient_checkpointing": True, "kept": True},
    "SFT, full": {"loss_type": "sft"},
    "TDPO, full": {},
    "TDPO, full, checkpointing, reference in bf16": {"gradient_checkpointing": True, "reference_dtype": "bf16"},
}


def make_sd15(folder: Path) -> None:
    """The shapes of Stable Diffusion 1.5 with random weights; the tokenizer is the tests'."""
    sys.path.insert(0, str(ROOT / "tests"))
    import tiny
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    pipe, widths = tiny.make_pipe(), (128, 256, 512, 512)
    vae = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    pipe.vae = AutoencoderKL(block_out_channels=widths, layers_per_block=2, **vae)
    pipe.unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    ids = {name: pipe.text_encoder.config.to_dict()[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    pipe.text_encoder = CLIPTextModel(CLIPTextConfig(vocab_size=49408, **text, **ids))
    pipe.tokenizer.model_max_length = 77
    pipe.save_pretrained(folder)


def make(model: str, folder: Path) -> int:
    """Writes a pipeline and eight rows of data; returns the side of its images."""
    sys.path.insert(0, str(ROOT / "tests"))
    import tiny
    import tiny_families

    tiny.make_dataset(8).save_to_disk(folder / "data")
    if model == "sd15":
        make_sd15(folder / "model")
        return 256
    pipe = tiny_families.make_pipe(model)
    pipe.save_pretrained(folder / "model")
    return tiny_families.call_flags(pipe)["height"]


def run_one(flags: list[str]) -> None:
    """Runs the script in this process and prints its peak in bytes as the last line."""
    import runpy

    sys.argv = [str(SCRIPT), *flags]
    runpy.run_path(str(SCRIPT), run_name="__main__")
    cuda = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak": peak}))


def measure(folder: Path, side: int, mode: dict, output: Path) -> float:
    """Peak of two steps in MB."""
    flags = {"pretrained_model_name_or_path": folder / "model", "train_data_dir": folder / "data", "resolution": side}
    flags |= {"max_train_steps": 2, "train_batch_size": 1, "report_to": "none", "output_dir": output} | mode
    if flags.pop("kept", False):
        flags |= {"cache_latents": True, "cache_prompt_embeddings": True, "encodings_dir": folder / "encodings"}
        flags |= {"center_crop": True}
    words = [w for name, x in flags.items() for w in ([f"--{name}"] if x is True else [f"--{name}", str(x)])]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    if not torch.cuda.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"
    done = subprocess.run([sys.executable, __file__, "--one", *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])["peak"] / 2**20


def imports() -> float:
    """Peak of a process that imports what the script imports, in MB; 0 on a GPU."""
    if torch.cuda.is_available():
        return 0.0
    lines = f"import resource, runpy; runpy.run_path({str(SCRIPT)!r}, run_name='none')"
    lines += "; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 2**10


def table(rows: list[list[str]]) -> str:
    head = ["model", "mode", "peak, MB"]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * 3, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    families = ["sd", "sdxl", "sd3", "flux", "sana", "qwen_image", "flux2", "z_image"]
    parser.add_argument("--models", nargs="+", default=["sd15", *families], help="tiny families, or sd15")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--output", type=Path, help="Markdown file to write")
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
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU ({os.cpu_count()} cores), the process's peak"
    )
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, {datetime.date.today()}"
    text = f"{table(rows)}\n\nOne image and one mismatched prompt per step, float32. {device}; {versions}.\n"
    print(text)
    if args.output:
        intro = f"# Memory of a training step\n\n`{shlex.join(['python', 'benchmarks/memory.py', *sys.argv[1:]])}`"
        args.output.write_text(f"{intro}\n\n{__doc__.split(chr(10) * 2)[2].strip()}\n\n{text}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run_one(sys.argv[2:])
    elif sys.argv[1:2] == ["--make"]:
        (Path(sys.argv[3]) / "side").write_text(str(make(sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
