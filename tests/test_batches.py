"""Batches that fit into memory: with the errors that torch raises where memory runs out."""

import contextlib
import logging

import numpy as np
import pytest
import torch
from tiny import RESOLUTION, make_dataset, make_pipe
from torch.testing import assert_close

from diffusers_tpo.data.rows import Columns
from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation.heldout import held_out_pairs
from diffusers_tpo.evaluation.implicit import error_matrix
from diffusers_tpo.evaluation.renders import image_path, read_image, render_missing
from diffusers_tpo.families import family_of
from diffusers_tpo.memory import FittingBatches
from diffusers_tpo.noising import training_scheduler
from diffusers_tpo.training.validation import Validation


ENDLESS = 2**60  # bytes


def with_room_for(number: int, function):
    """Runs out of memory, as torch says it, with more than `number` items."""

    def run(batch: list):
        torch.empty(ENDLESS if len(batch) > number else 1, dtype=torch.uint8)
        return function(batch)

    return run


def test_a_batch_that_does_not_fit_is_halved_and_the_size_is_kept_and_told(caplog):
    """10 items in batches of 8: 8 and 4 fail, then 2 fit; the next list begins with 2."""
    fitting, tried = FittingBatches("numbers", 8), []

    def double(batch):
        tried.append(len(batch))
        return with_room_for(3, lambda part: [2 * x for x in part])(batch)

    with caplog.at_level(logging.WARNING):
        assert fitting.map(double, list(range(10))) == [2 * x for x in range(10)]
        assert tried == [8, 4, 2, 2, 2, 2, 2]
        assert fitting.map(double, [1, 2, 3]) == [2, 4, 6] and tried[7:] == [2, 1]
    assert [record.getMessage() for record in caplog.records] == ["numbers: 2 at once fit into memory"]
    assert FittingBatches("numbers", 8).map(double, []) == []


def test_only_memory_is_tried_again():
    calls = []

    def fails(batch):
        calls.append(len(batch))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        FittingBatches("numbers", 4).map(fails, [1, 2])
    with pytest.raises(RuntimeError, match="allocate memory"):
        FittingBatches("numbers", 4, may_halve=False).map(with_room_for(1, list), [1, 2])
    with pytest.raises(UserError, match="numbers: not even one fits into memory; use a smaller resolution"):
        FittingBatches("numbers", 4).map(with_room_for(0, list), [1, 2])
    assert calls == [2]


@pytest.fixture(scope="module")
def pipe():
    return make_pipe()


@contextlib.contextmanager
def small_memory(module: torch.nn.Module):
    """Room for two rows in a module."""
    no_change = with_room_for(2, lambda batch: None)
    hook = module.register_forward_pre_hook(lambda module, args: no_change(args[0]))
    yield
    hook.remove()


def pixels(images) -> np.ndarray:
    return np.stack([np.asarray(image.convert("RGB")) for image in images]).astype(int)


def test_renders_in_parts_are_those_of_whole_batches_and_nothing_is_left_to_a_second_run(pipe, tmp_path):
    def run(folder) -> np.ndarray:
        options = {"guidance_scale": 1.0, "num_inference_steps": 1}
        assert render_missing(pipe, ["cat", "dog", "red"], folder, 1, 0, 3, **options) == 3
        assert render_missing(pipe, ["cat", "dog", "red"], folder, 1, 0, 3, **options) == 0
        return pixels(read_image(image_path(folder, index, 0)) for index in range(3))

    with small_memory(pipe.unet):
        parts = run(tmp_path / "parts")
    assert np.abs(run(tmp_path / "whole") - parts).max() <= 1


def test_validation_renders_all_prompts_in_one_batch_or_in_parts(pipe):
    """Two images of each of two prompts; without guidance a row each."""
    rows, validation = [], Validation(["cat", "dog"], 2, 1.0, RESOLUTION, 0, 2)
    counter = pipe.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    whole = validation.images(pipe, batch_size=8)
    assert rows == [4, 4] and [len(images) for images in whole] == [2, 2]
    Validation(["cat"], 1, 1.0, RESOLUTION, 0).images(pipe, batch_size=8)
    assert rows[2:] == [1] * 50  # the pipeline's own number of steps
    counter.remove()
    with small_memory(pipe.unet):
        parts = validation.images(pipe, batch_size=8)
        with pytest.raises(RuntimeError, match="allocate memory"):
            validation.images(pipe, batch_size=8, may_halve=False)
    assert np.abs(pixels(sum(whole, [])) - pixels(sum(parts, []))).max() <= 1


def test_held_out_pairs_are_judged_in_parts_alike(pipe):
    pairs, family = held_out_pairs(make_dataset(4), Columns(), RESOLUTION, None), family_of(pipe)
    scheduler = training_scheduler(pipe.scheduler)

    def run():
        latents, sizes = pairs.encode(family, pipe)
        return latents, error_matrix(family, pipe, pipe.unet, scheduler, latents, sizes, pairs.prompts, 2, 1).draws

    whole = run()
    with small_memory(pipe.unet), small_memory(pipe.vae.encoder):
        parts = run()
    assert_close(parts, whole, rtol=1e-4, atol=1e-5, equal_nan=True)
