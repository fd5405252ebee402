"""Step times against supervised fine-tuning, against a plain preference step, and by the number of mismatched prompts."""

import gc
import math
import tempfile
from pathlib import Path

import models
import torch
from steps import Bench, PlainStep, Step
from timing import in_turn, ratio

from diffusers_tpo.evaluation.shapes import load_model


SMALL = {"small": (models.make_small, 4, 128)}  # by name: how it is made, images per step, side
SHAPES = {"shapes": (load_model, 16, 32)}
LARGE = {"sd15": (models.make_sd15, 4, 512), "sdxl": (models.make_sdxl, 1, 1024)}
LIVE, KEPT = "live", "kept"
TARGETS = {
    (True, LIVE): "<= 3.15",
    (False, LIVE): "<= 2.8",
    (True, KEPT): "<= 2.1",
    (False, KEPT): "<= 2.1",
}  # by LoRA


def plain_tdpo(bench: Bench, kept: bool) -> Step:
    """Our step with the loss of Diffusion-DPO alone."""
    return Step(bench, kept=kept, loss_type="tdpo", anchor_weight=0.0, mismatched_clip=None)


def check_losses(bench: Bench, plain: PlainStep) -> None:
    """Raises `AssertionError` unless the plain step and ours, live and kept, have the same loss away from the reference."""
    scale = 1e-4
    while abs(plain.loss().item() - math.log(2)) < 0.02:
        bench.perturb(scale)
        scale *= 3
    losses = [plain.loss().item(), *(plain_tdpo(bench, kept).loss()[0].item() for kept in (False, True))]
    tolerance = 2e-2 if bench.accelerator.mixed_precision == "bf16" else 1e-3
    assert all(math.isclose(loss, losses[0], rel_tol=tolerance) for loss in losses), losses


def against_sft(bench: Bench, where: str, rounds: int) -> list[dict]:
    """TDPO and TKTO over supervised fine-tuning on the same images, with live and with kept encodings and reference errors."""
    steps = {
        f"{loss_type} {what}": Step(bench, kept=what == KEPT, loss_type=loss_type)
        for what in (LIVE, KEPT)
        for loss_type in ("sft", "tdpo", "tkto")
    }
    times, figures = in_turn(steps, rounds), []
    for what in (LIVE, KEPT):
        for loss_type in ("tdpo", "tkto"):
            target = TARGETS[bench.reference is None, what] if loss_type == "tdpo" else None
            rival = f"SFT step on the same images, {what}"
            name = f"step time of {loss_type.upper()}, {where}, {what}"
            figures.append(ratio(name, times[f"{loss_type} {what}"], times[f"sft {what}"], target, rival))
    return figures


def against_plain(bench: Bench, where: str, rounds: int) -> list[dict]:
    """Pairs per second over those of a plain preference step of the same loss."""
    plain = PlainStep(bench)
    check_losses(bench, plain)
    times = in_turn({"plain": plain, "ours": plain_tdpo(bench, kept=True)}, rounds)
    name, rival = f"pairs per second, {where}, kept", "plain Diffusion-DPO style step of the same loss"
    return [ratio(name, times["plain"], times["ours"], ">= 2.0", rival)]


def by_mismatched(bench: Bench, where: str, rounds: int) -> list[dict]:
    """The step with K mismatched prompts per image over that with one."""
    numbers = (1, 2, 4)
    steps = {k: Step(bench, num_mismatched=k, kept=True, loss_type="tdpo") for k in numbers}
    times = in_turn(steps, rounds)
    name, rival = f"step time with K mismatched prompts, {where}, kept", "TDPO step with one"
    return [ratio(name.replace("K", str(k)), times[k], times[1], f"<= {(1 + k) / 2}", rival) for k in numbers[1:]]


def with_empty_prompt(bench: Bench, where: str, rounds: int) -> list[dict]:
    """The step that holds the answer to the empty prompt on a share of the images over that which does not."""
    found = []
    for what in (LIVE, KEPT):
        steps = {
            name: Step(bench, kept=what == KEPT, loss_type="tdpo", **held)
            for name, held in {"free": {}, "held": {"null_anchor": 0.5, "null_keep": 1.0}}.items()
        }
        times, name = in_turn(steps, rounds), f"step time with the empty prompt held, {where}, {what}"
        found.append(ratio(name, times["held"], times["free"], "<= 1.1", "TDPO step"))
    return found


def figures(rounds: int = 5) -> list[dict]:
    on_gpu, found = torch.cuda.is_available(), []
    for model, (make, images, side) in (SHAPES | (LARGE if on_gpu else SMALL)).items():
        for use_lora in (True, False):
            if model == "sdxl" and not use_lora:  # with the plain step's optimizer it would take more than 80 GB
                continue
            with tempfile.TemporaryDirectory() as folder:
                torch.manual_seed(0)
                bench = Bench(make(), use_lora, images, side, Path(folder))
                where = f"{model}, {'LoRA' if use_lora else 'full'}"
                found += against_sft(bench, where, rounds)
                if model == "shapes":
                    found += with_empty_prompt(bench, where, rounds)
                else:
                    found += against_plain(bench, where, rounds)
                if use_lora and model != "shapes":
                    found += by_mismatched(bench, where, rounds)
                del bench
                gc.collect()
    return found
