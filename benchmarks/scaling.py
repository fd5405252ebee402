#!/usr/bin/env python
"""Whether the data path stays as fast and as small from a thousand rows to a million, and near what the hardware allows.

python benchmarks/scaling.py [--max_rows 1000000]

Every figure is a ratio of medians that were measured in turn in one run, with the least and the largest ratio of a round.
The rows have 8x8 images, the encodings are tiny: what is measured is the cost of a row, not of its pixels.
"""

import argparse
import io
import json
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from diffusers import AutoencoderKL
from PIL import Image
from pyarrow import parquet

from diffusers_tpo.data.dataset import TextPreferenceDataset, as_torch_dataset
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns, load_rows
from diffusers_tpo.evaluation.shapes import load_model
from diffusers_tpo.families import family_of
from diffusers_tpo.training.cache import Cache
from diffusers_tpo.training.encoding import Encoder
from diffusers_tpo.training.loader import Place, PlacedLoader
from diffusers_tpo.training.trained import FrozenParts


SIZES = (1_000, 10_000, 100_000, 1_000_000)
FILES, BATCH, ROUNDS, WINDOW = 8, 4, 7, 100  # a window is so many batches
LATE_STEP = 100_000


def figure(name: str, times: dict[str, list[float]], target: str) -> dict:
    """The ratio of the medians of two lists of seconds, the second being what the first is measured against."""
    (_, own), (rival, base) = times.items()
    ratios = [a / b for a, b in zip(own, base, strict=True)]
    ratio = statistics.median(own) / statistics.median(base)
    return {"name": name, "ratio": ratio, "low": min(ratios), "high": max(ratios), "target": target, "rival": rival}


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# Tiny rows


def png(number: int) -> bytes:
    """An 8x8 image that no other number has."""
    line = struct.pack("<xQQQ", number, number * 7919, number * 104729)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(line * 8, 1)) + chunk(b"IEND", b"")


def write_rows(folder: Path, size: int) -> None:
    folder.mkdir()
    for file in range(FILES):
        numbers = range(file * size // FILES, (file + 1) * size // FILES)
        table = {
            "image": [{"bytes": png(number), "path": None} for number in numbers],
            "prompt": [f"a photo of cat number {number}" for number in numbers],
            "negative_prompts": [[f"a photo of dog number {number}"] for number in numbers],
        }
        parquet.write_table(pyarrow.table(table), folder / f"train-{file:05d}-of-{FILES:05d}.parquet")


def reader() -> RowReader:
    return RowReader(Columns(), "tdpo", False, seed=0, resolution=8, center_crop=True)


def open_rows(folder: Path) -> TextPreferenceDataset:
    rows = load_rows(str(folder), cache_dir=f"{folder}-cache")
    return as_torch_dataset(rows.cast_column("image", datasets.Image()), reader())


def fill_caches(folder: Path) -> None:
    """Kept encodings such as a model's, but tiny."""
    dataset = open_rows(folder)
    latents = {"mean": torch.randn(4, 1, 1), "std": torch.rand(4, 1, 1), "sizes": torch.tensor([8, 8, 0, 0, 8, 8])}
    images, prompts = Cache(f"{folder}-images"), Cache(f"{folder}-prompts")
    images.fill(dataset.crops(), lambda indices: [latents for _ in indices], 1000, "images")
    cond = {"prompt_embeds": torch.randn(4, 8)}
    prompts.fill(dataset.prompts(), lambda indices: [cond for _ in indices], 1000, "prompts")


def open_kept(folder: Path) -> tuple[TextPreferenceDataset, Cache]:
    dataset = open_rows(folder)
    dataset.use_encoded(Cache(f"{folder}-images"), dataset.crops())
    return dataset, Cache(f"{folder}-prompts")


def cpu() -> Accelerator:
    return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=False))


def start(dataset, accelerator, epoch: int = 0, used: int = 0):
    """Batches from a place on, as the training script reads them."""
    return PlacedLoader(dataset, BATCH, 1, accelerator).after(Place(epoch, used))


def read(batches, prompts: Cache | None, number: int = WINDOW) -> None:
    for _ in range(number):
        batch = next(batches)[0]
        if prompts is not None:
            torch.stack([prompts[prompt]["prompt_embeds"] for prompt in batch.prompts])


# Figures


def loader_figures(folders: dict[int, Path], accelerator) -> list[dict]:
    """Time of a pair at each size against that at the smallest, map-style with kept encodings and streamed."""
    kept = {size: open_kept(folder) for size, folder in folders.items()}
    streams = {size: as_torch_dataset(load_rows(str(f), streaming=True), reader()) for size, f in folders.items()}
    made = []
    for kind, opened in (("kept", kept), ("streamed", {size: (stream, None) for size, stream in streams.items()})):
        running = {size: (start(dataset, accelerator), prompts) for size, (dataset, prompts) in opened.items()}
        times = {size: [] for size in opened}
        for index in range(ROUNDS + 1):
            for size, (batches, prompts) in running.items():
                taken = seconds(lambda batches=batches, prompts=prompts: read(batches, prompts))
                if index:
                    times[size].append(taken)
        smallest = min(times)
        rate = BATCH * WINDOW / statistics.median(times[smallest])
        for size in sorted(times)[1:]:
            name = f"time of a pair, {kind}, {size:,} rows"
            rival = f"{smallest:,} rows ({rate:,.0f} pairs a second)"
            made.append(figure(name, {"own": times[size], rival: times[smallest]}, "<= 1.10"))
    return made


def resume_figures(folder: Path, size: int, accelerator) -> list[dict]:
    """Time until the first batch late in an epoch against early in it; and of a stream, against reading all before."""
    dataset, late = open_kept(folder)[0], min(LATE_STEP, size // BATCH - 1)
    times = {"own": [], "step 10": []}
    for _ in range(ROUNDS):
        times["step 10"].append(seconds(lambda: next(start(dataset, accelerator, used=10))))
        times["own"].append(seconds(lambda: next(start(dataset, accelerator, used=late))))
    made = [figure(f"start-up of a run resumed at step {late:,}, {size:,} rows", times, "<= 1.10")]
    stream, late = as_torch_dataset(load_rows(str(folder), streaming=True), reader()), min(late, 2000)
    times = {"own": [], "reading and decoding them": []}
    for _ in range(3):
        times["own"].append(seconds(lambda: next(start(stream, accelerator, used=late))))
        times["reading and decoding them"].append(seconds(lambda: read(start(stream, accelerator), None, late + 1)))
    return [*made, figure(f"start-up of a stream resumed after {late:,} batches of 8x8 images", times, "<= 0.50")]


def memory_figure(folders: dict[int, Path]) -> dict:
    """Anonymous memory of a process that reads the largest set against one that reads the smallest."""
    used = {}
    for size in (max(folders), min(folders)):
        command = [sys.executable, __file__, "--memory", str(folders[size])]
        used[f"{size:,} rows"] = [float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)]
    added = (used[f"{max(folders):,} rows"][0] - used[f"{min(folders):,} rows"][0]) / max(folders)
    return figure(f"memory of a run with {max(folders):,} rows ({added:,.0f} bytes a row more)", used, "<= 1.25")


def print_memory(folder: Path) -> None:
    """The bytes of this process that are in no file, once it reads rows and both caches."""
    dataset, prompts = open_kept(folder)
    read(start(dataset, cpu()), prompts)
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")))


def encoding_figure(folder: Path, images: int = 32) -> dict:
    """Time to keep the latents of photographs of 512x384 pixels against the autoencoder alone, on tensors in memory."""
    pipe, rng = load_model(), np.random.default_rng(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    pipe.vae = AutoencoderKL(block_out_channels=(32, 64, 64), latent_channels=4, **blocks).requires_grad_(False).eval()
    cells = []
    for _ in range(images):
        file, coarse = io.BytesIO(), rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((512, 384)).save(file, "JPEG")
        cells.append({"bytes": file.getvalue(), "path": None})
    columns = {"image": cells, "prompt": ["a cat"] * images, "negative_prompts": [["a dog"]] * images}
    rows = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    settings = {"resolution": 256, "center_crop": True}
    encoder = Encoder(pipe, family_of(pipe), FrozenParts(pipe, {"unet"}, torch.device("cpu")))
    times = {"own": [], "the autoencoder alone": []}
    for index in range(3):
        dataset = as_torch_dataset(rows, RowReader(Columns(), "tdpo", False, 0, **settings))
        with torch.no_grad():
            pixels = [torch.stack([dataset.crop(row, False).pixels for row in range(first, first + BATCH)])
                      for first in range(0, images, BATCH)]  # fmt: skip
            bare = seconds(lambda pixels=pixels: [encoder.family.encode_images(pipe, part) for part in pixels])
        kept = seconds(lambda d=dataset, i=index: encoder.keep_images(d, folder / f"encodings-{i}", BATCH))
        if index:
            times["own"].append(kept)
            times["the autoencoder alone"].append(bare)
    return figure(f"time to keep the latents of {images} images", times, "<= 1.05")


def figures(max_rows: int) -> list[dict]:
    """Rows of `name`, `ratio`, its least and largest value `low` and `high`, `target` and `rival`, the denominator."""
    datasets.disable_progress_bars()
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0  # seconds that would be added to every pass over a stream
    torch.set_num_threads(1)
    accelerator = cpu()
    with tempfile.TemporaryDirectory() as name:
        folders = {size: Path(name) / str(size) for size in SIZES if size <= max_rows}
        made = [encoding_figure(Path(name))]
        for size, folder in folders.items():
            write_rows(folder, size)
            fill_caches(folder)
        made += loader_figures(folders, accelerator)
        made += resume_figures(folders[max(folders)], max(folders), accelerator)
        return [*made, memory_figure(folders)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max_rows", type=int, default=SIZES[-1])
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.memory:
        return print_memory(args.memory)
    for row in figures(args.max_rows):
        met = row["ratio"] <= float(row["target"].split()[1])
        spread = f"{row['low']:.2f} to {row['high']:.2f}"
        word = "met" if met else "not met"
        print(json.dumps(row) if args.json else
              f"{row['name']}: {row['ratio']:.2f} ({spread}) x {row['rival']}; target {row['target']}, {word}")  # fmt: skip


if __name__ == "__main__":
    main()
