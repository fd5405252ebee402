"""Hostile and dirty input ends in one sentence or in a skipped row that is counted, never in a traceback or in foreign code."""

import io
import json
import logging
import os
import pickle
import re
import shutil

import datasets
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch.utils.data import DataLoader

from diffusers_tpo.data import RowReader, as_torch_dataset, collate
from diffusers_tpo.encoding import Encoder
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.rows import Columns


def cell(content: bytes) -> dict:
    return {"bytes": content, "path": None}


def as_bytes(image: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def dirty_rows(number: int = 12, bad_images: tuple[int, ...] = (2, 5, 6), bad_texts: tuple[int, ...] = (1,)):
    """Rows of which some images are cut off in their pixels, so that their headers still tell their size."""
    columns = tiny.make_rows(number)
    contents = [as_bytes(image) for image in columns["image"]]
    images = [
        cell(content[: len(content) // 2] if row in bad_images else content) for row, content in enumerate(contents)
    ]
    prompts = ["" if row in bad_texts else prompt for row, prompt in enumerate(columns["prompt"])]
    return tiny.make_dataset(number, image=images, prompt=prompts)


def dataset_of(rows, **settings):
    settings = {"resolution": tiny.RESOLUTION, "on_bad_row": "skip"} | settings
    return as_torch_dataset(rows, RowReader(Columns(), "tdpo", False, 0, **settings))


# Skipped rows


def test_bad_text_is_left_out_and_a_bad_image_gives_its_place_to_the_next_row_of_the_order(caplog):
    dataset = dataset_of(dirty_rows())
    assert "1 of 12 rows are skipped: row 1: column 'prompt' must hold a prompt, got ''" in caplog.text
    order = dataset.order.tolist()
    assert len(dataset) == 11 and sorted(order) == [0, *range(2, 12)]
    for position, row in enumerate(dataset[i] for i in range(11)):
        expected = next(
            order[(position + step) % 11] for step in range(11) if order[(position + step) % 11] not in (2, 5, 6)
        )
        assert row.draw.row == expected
        assert list(row.skipped) == [] if order[position] not in (2, 5, 6) else row.skipped.keys() <= {2, 5, 6}
        assert (order[position] in row.skipped) == (order[position] in (2, 5, 6))


def summary(loader) -> list:
    return [([draw.row for draw in batch.draws], batch.prompts, batch.pixels, batch.skipped) for batch in loader]


def test_what_is_skipped_does_not_depend_on_the_workers():
    dataset = dataset_of(dirty_rows())
    alone, shared = (summary(DataLoader(dataset, 2, collate_fn=collate, num_workers=workers)) for workers in (0, 2))
    assert {row for *_, skipped in alone for row in skipped} == {2, 5, 6}
    for one, other in zip(alone, shared, strict=True):
        assert one[:2] == other[:2] and torch.equal(one[2], other[2]) and one[3] == other[3]


def test_clean_rows_come_in_the_same_order_whatever_is_done_to_bad_ones():
    rows = tiny.make_dataset(6)
    assert dataset_of(rows).order.tolist() == dataset_of(rows, on_bad_row="error").order.tolist()


@pytest.mark.parametrize(
    "bad", [{"bad_images": range(4), "bad_texts": ()}, {"bad_texts": range(4)}], ids=["images", "texts"]
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_of_bad_rows_alone_is_a_user_error(bad, streaming):
    rows = dirty_rows(4, **bad)
    with pytest.raises(
        UserError, match=r"^dataset_name holds no row that can be used; of 4 bad ones the first is row \d"
    ):
        list(dataset_of(rows.to_iterable_dataset() if streaming else rows))


def test_a_streamed_bad_row_is_left_out_and_counted():
    read = list(dataset_of(dirty_rows(bad_images=(2, 5), bad_texts=(1, 3)).to_iterable_dataset()))
    skipped = [problem for row in read for problem in row.skipped.values()]
    assert len(read) == len({row.draw.row for row in read}) == 8
    assert len(skipped) == 4 and sum("its image cannot be read" in problem for problem in skipped) == 2


def test_in_buckets_a_row_of_the_same_shape_takes_the_place():
    columns = tiny.make_rows(8)
    images = [as_bytes(Image.new("RGB", (32, 16) if row % 2 else (16, 32), (row, 0, 0))) for row in range(8)]
    images[2], images[5] = images[2][:45], b"no image"
    rows = tiny.make_dataset(8, image=[cell(content) for content in images], prompt=columns["prompt"])
    dataset = dataset_of(rows, buckets=[(16, 8), (8, 16)])
    batches = list(DataLoader(dataset, batch_sampler=dataset.bucket_batches(2), collate_fn=collate))
    assert list(dataset.skipped) == [5] and len(dataset) == 7  # found as its header was read
    assert len(batches) == 3 and {row for batch in batches for row in batch.skipped} == {2}
    for batch in batches:
        assert {draw.row % 2 for draw in batch.draws} == {int(batch.pixels.shape[3] > batch.pixels.shape[2])}


def test_rows_whose_latents_cannot_be_kept_are_left_out(tmp_path, caplog):
    images = [cell(as_bytes(image)) for image in tiny.make_images(8)]
    images[2], images[4] = cell(images[2]["bytes"][:60]), {"bytes": None, "path": "../../nowhere.png"}
    rows = tiny.make_dataset(8, image=images, prompt=["cat", None, *["cat"] * 6])
    trainer, pipe = tiny.make_trainer(), tiny.make_pipe()
    for _ in range(2):  # the second time from the disk
        dataset = dataset_of(rows, center_crop=True)
        Encoder(pipe, trainer.family, torch.device("cpu")).keep_images(dataset, tmp_path, 3)
        assert sorted(dataset.skipped) == [1, 2, 4] and len(dataset) == 5
        assert sorted(row.draw.row for row in dataset) == [0, 3, 5, 6, 7]
    with pytest.raises(
        UserError, match="^row 4: .*no file '../../nowhere.png'.*--on_bad_row skip leaves such rows out$"
    ):
        strict = dataset_of(rows.select([0, 3, 5, 6, 4]), center_crop=True, on_bad_row="error")
        Encoder(pipe, trainer.family, torch.device("cpu")).keep_images(strict, tmp_path, 3)


# The training script


@pytest.fixture
def dirty_dir(tmp_path) -> str:
    dirty_rows(8, bad_images=(2, 5)).save_to_disk(tmp_path / "dirty")
    return str(tmp_path / "dirty")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_ends_the_run_in_one_sentence(refused, tmp_path, workers):
    dirty_rows(4, bad_images=range(4), bad_texts=()).save_to_disk(tmp_path / "dirty")
    sentence = refused(train_data_dir=str(tmp_path / "dirty"), dataloader_num_workers=workers)
    problem = r"its image cannot be read \(OSError: image file is truncated[^)]*\)"
    assert re.fullmatch(rf"error: row \d: {problem}; --on_bad_row skip leaves such rows out", sentence)


def test_a_run_that_skips_bad_rows_counts_them_and_resumes_to_the_last_bit(run_script, dirty_dir, tmp_path, caplog):
    flags = {"use_lora": True, "train_data_dir": dirty_dir, "on_bad_row": "skip", "train_batch_size": 2}
    flags |= {"max_train_steps": 5, "checkpointing_steps": 2}
    run_script(**flags, output_dir=tmp_path / "whole")
    assert "1 of 8 rows are skipped: row 1: column 'prompt' must hold a prompt" in caplog.text
    for row in (2, 5):
        assert caplog.text.count(f"row {row}: its image cannot be read") == 1
    lines = (tmp_path / "whole" / "training_log.jsonl").read_text()
    assert sum(json.loads(line)["data/skipped"] for line in lines.splitlines()) >= 2
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    run_script(**flags, output_dir=tmp_path / "cut", resume_from_checkpoint="latest", dataloader_num_workers=1)
    assert (tmp_path / "cut" / "training_log.jsonl").read_text() == lines
