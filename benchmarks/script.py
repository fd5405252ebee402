"""The training script's own loop: waiting for data, the denoiser's share, and peak memory against supervised fine-tuning."""

import tempfile
from pathlib import Path

import models
import numpy as np
import tiny
import torch
from loop import DENOISER, run_script
from timing import ratio


ROWS = 64
STEPS = 20  # a pass over the data has 16, so the loop begins another
KEPT = {"cache_latents": True, "cache_prompt_embeddings": True}
KNOWN = {"precompute_reference": True, "reference_draws": 2}
LOOPS = {  # by name: flags, and what may be outside of the denoiser
    "LoRA, live": ({"use_lora": True}, None),
    "LoRA, kept": ({"use_lora": True} | KEPT | KNOWN, "<= 0.1"),
    "full, live": ({}, None),
    "full, kept": (KEPT | KNOWN, "<= 0.1"),
}
SFT = {"loss_type": "sft"} | KEPT
MEMORY = {  # by name: flags of TDPO, whether it and its rival are LoRAs, target
    "LoRA": (KEPT, True, "<= 1.05"),
    "full": (KEPT, False, None),
    "full, known reference": (KEPT | KNOWN, False, "<= 1.02"),
}


def prepare(folder: Path) -> dict:
    """Writes a model and data; returns the flags that every run needs."""
    on_gpu = torch.cuda.is_available()
    make, side, batch = (models.make_sd15, 512, 4) if on_gpu else (models.make_small, 128, 4)
    torch.manual_seed(0)
    make().save_pretrained(folder / "model")
    images = [image.resize((2 * side, 2 * side)) for image in tiny.make_images(ROWS)]
    tiny.make_dataset(ROWS, image=images).save_to_disk(folder / "data")
    flags = {"pretrained_model_name_or_path": folder / "model", "train_data_dir": folder / "data", "resolution": side}
    flags |= {"train_batch_size": batch, "center_crop": True, "encodings_dir": folder / "encodings"}
    flags |= {"report_to": "none", "output_dir": folder / "out", "learning_rate": 1e-6}
    return flags | ({"mixed_precision": "bf16"} if on_gpu else {})


def time_figures(flags: dict) -> tuple[list[dict], dict[str, dict[str, float]]]:
    """Figures, and the share of each part of the loop in its time by the name of the loop."""
    figures, shares = [], {}
    for name, (own, target) in LOOPS.items():
        steps = run_script("time", **flags, **own, max_train_steps=STEPS)
        shares[name] = shares_of(steps)
        outside = [step["all"] - sum(step.get(part, 0.0) for part in DENOISER) for step in steps]
        rival = "the loop's whole time"
        figures.append(ratio(f"loop outside the denoiser, {name}", outside, whole(steps), target, rival))
        if "cache_latents" in own:
            figures.append(loader_wait(f"waiting for data, {name}, no workers", steps))
    steps = run_script("time", **flags, **LOOPS["LoRA, kept"][0], max_train_steps=STEPS, dataloader_num_workers=2)
    figures.append(loader_wait("waiting for data, LoRA, kept, 2 workers", steps))
    return figures, shares


def whole(steps: list[dict[str, float]]) -> list[float]:
    return [step["all"] for step in steps]


def loader_wait(name: str, steps: list[dict[str, float]]) -> dict:
    """A ratio of means: the beginning of a pass is rare and long."""
    return ratio(
        name, [step["loader"] for step in steps], whole(steps), "<= 0.02", "the loop's whole time", average=np.mean
    )


def shares_of(steps: list[dict[str, float]]) -> dict[str, float]:
    parts = list(dict.fromkeys(part for step in steps for part in step if part != "all"))
    total = sum(whole(steps))
    shares = {part: sum(step.get(part, 0.0) for step in steps) / total for part in parts}
    return shares | {"rest": 1 - sum(shares.values())}


def memory_figures(flags: dict) -> list[dict]:
    """Peak of a step over that of supervised fine-tuning with as many rows. Bytes are counted, so there is no spread."""
    found, flags = [], flags | {"max_train_steps": 5}
    as_many_rows = flags | {"train_batch_size": 2 * flags["train_batch_size"]} | SFT
    rivals = {use_lora: run_script("memory", **as_many_rows, use_lora=use_lora) for use_lora in (True, False)}
    for name, (tdpo, use_lora, target) in MEMORY.items():
        ours, rival = run_script("memory", **flags, **tdpo, use_lora=use_lora), rivals[use_lora]
        found.append(
            ratio(f"peak memory of a TDPO step, {name}", [ours], [rival], target, "SFT with as many rows, kept")
        )
    return found


def figures() -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        flags = prepare(Path(folder))
        found, shares = time_figures(flags)
        for figure in found:
            if (name := figure["name"].removeprefix("loop outside the denoiser, ")) in shares:
                figure["shares"] = shares[name]
        return found + memory_figures(flags)
