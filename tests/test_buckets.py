"""Buckets of one height and width, and batches of one bucket."""

import io
import json
import warnings

import datasets
import numpy as np
import pytest
import tiny
import torch
from accelerate.data_loader import prepare_data_loader
from PIL import Image
from torch.utils.data import DataLoader

from diffusers_tpo.data.batch import collate
from diffusers_tpo.data.buckets import (
    BucketBatches,
    check_sides,
    choose_bucket,
    default_buckets,
    image_sizes,
    parse_buckets,
)
from diffusers_tpo.data.dataset import as_torch_dataset
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns, load_rows
from diffusers_tpo.errors import UserError
from diffusers_tpo.image_files import LocalFiles


BUCKETS = [(16, 24), (24, 16), (16, 16)]


# Choosing


def test_buckets_are_read_from_text_in_one_order():
    assert parse_buckets("1024,1024; 768,1360") == parse_buckets("768,1360;1024,1024;1024 ,1024")
    assert parse_buckets("1024,1024;768,1360") == [(768, 1360), (1024, 1024)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_buckets("12,20") == [(12, 20)]  # whether the model can take them is another question


@pytest.mark.parametrize("text", ["", " ", ";", "1024", "1024x768", "64,64;", "0,64", "-8,64", "64,64,64", "8,8.5"])
def test_text_that_holds_no_buckets_is_a_user_error(text):
    with pytest.raises(
        UserError, match=r"^--aspect_ratio_buckets must be heights and widths such as .*got '.*[^.]\)$"
    ):
        parse_buckets(text)


def test_default_buckets_have_about_as_many_pixels_as_the_square():
    buckets = default_buckets(512, 64)
    assert (512, 512) in buckets and buckets == sorted(set(buckets))
    assert {(width, height) for height, width in buckets} == set(buckets)
    for height, width in buckets:
        assert height % 64 == width % 64 == 0
        assert 0.5 <= height / width <= 2 and 0.8 < height * width / 512**2 < 1.25
    with pytest.raises(UserError, match="resolution must be at least 64 for aspect-ratio buckets, got 48"):
        default_buckets(48, 64)


def test_sides_must_be_multiples():
    check_sides([(64, 96), (8, 8)], 8)
    with pytest.raises(UserError, match="^--resolution must be a multiple of 16 for this model, got 500; use 496$"):
        check_sides([(500, 500)], 16)
    with pytest.raises(UserError, match="got 504; use 512$"):  # half-way goes up
        check_sides([(504, 504)], 16)
    with pytest.raises(UserError, match="got 3; use 16$"):
        check_sides([(3, 3)], 16)
    wrong = "^--aspect_ratio_buckets must be a multiple of 64 for this model, got 768,1360; use 768,1344$"
    with pytest.raises(UserError, match=wrong):
        check_sides([(1024, 1024), (768, 1360)], 64, "aspect_ratio_buckets")


def test_an_image_gets_the_bucket_of_the_most_similar_shape():
    assert choose_bucket((100, 150), BUCKETS) == (16, 24)
    assert choose_bucket((300, 200), BUCKETS) == (24, 16)
    assert choose_bucket((70, 77), BUCKETS) == (16, 16)
    assert choose_bucket((1, 1000), BUCKETS) == (16, 24)


def test_the_order_of_the_buckets_does_not_matter():
    """256x256 fits 16x16 and 32x32 equally well, and a bucket may be given twice."""
    buckets = [(16, 16), (32, 32), (16, 24), (24, 16), (16, 24)]
    for size in [(256, 256), (100, 125), (9, 5), (50, 75)]:
        assert choose_bucket(size, buckets) == choose_bucket(size, buckets[::-1])


# Rows


def cell(width: int, height: int, orientation: int = 1) -> dict:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return {"bytes": file.getvalue(), "path": None}


def rows_of(sizes: list[tuple[int, int]], **columns) -> datasets.Dataset:
    """Rows with images of these widths and heights."""
    return tiny.make_dataset(len(sizes), **{"image": [cell(*size) for size in sizes]} | columns)


def dataset_of(rows, buckets=BUCKETS, seed: int = 0, **settings):
    return as_torch_dataset(
        rows, RowReader(Columns(), "tdpo", False, seed, buckets=buckets, files=LocalFiles(), **settings)
    )


MIXED = [(30, 20), (20, 30), (20, 20), (33, 22), (21, 30), (22, 22), (45, 30), (30, 45), (90, 60), (61, 90)]  # 4, 4, 2


def test_the_reader_cuts_each_image_to_its_bucket():
    rows = rows_of(MIXED)
    for row in dataset_of(rows):
        width, height = MIXED[row.draw.row]
        bucket = (16, 24) if width > height else (24, 16) if width < height else (16, 16)
        assert row.crop.pixels.shape == (3, *bucket)
        assert row.crop.sizes[:2] == (height, width) and row.crop.sizes[4:] == bucket
    assert {row.crop.pixels.shape for row in dataset_of(rows, buckets=None, resolution=8)} == {(3, 8, 8)}


def test_crop_and_flip_do_not_depend_on_the_buckets_order_or_on_the_other_rows():
    rows = rows_of(MIXED)
    first = {row.draw.row: row.crop for row in dataset_of(rows, random_flip=True)}
    others = dataset_of(rows, buckets=[(48, 8), *BUCKETS[::-1], (8, 48)], random_flip=True)
    for row in others:
        assert torch.equal(row.crop.pixels, first[row.draw.row].pixels) and row.crop.sizes == first[row.draw.row].sizes
    few = dataset_of(rows.select(range(3)), random_flip=True)
    assert all(torch.equal(row.crop.pixels, first[row.draw.row].pixels) for row in few)


def test_sizes_are_upright():
    rows = rows_of([(40, 24), (40, 24, 6), (24, 40, 8), (40, 24, 3)])
    dataset = dataset_of(rows)
    assert image_sizes(dataset.rows, "image") == [(24, 40), (40, 24), (24, 40), (24, 40)]
    assert image_sizes(dataset.rows, "image") == [
        dataset.reader.read(row, 0, 0).crop.sizes[:2] for row in dataset.rows
    ]


def test_the_image_column_can_have_any_name():
    for name in ("jpg", "height"):
        rows = rows_of([(40, 24)]).rename_column("image", name).cast_column(name, datasets.Image(decode=False))
        assert image_sizes(rows, name) == [(24, 40)]


def test_sizes_are_kept_on_disk_until_a_file_changes(tmp_path, monkeypatch):
    """The second time nobody reads the files."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [{"file_name": f"{i}.jpg", "prompt": "cat", "negative_prompts": ["dog"]} for i in range(len(MIXED))]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    for index, size in enumerate(MIXED):
        (folder / f"{index}.jpg").write_bytes(cell(*size)["bytes"])
    dataset = dataset_of(load_rows(str(folder), cache_dir=str(tmp_path / "cache")))
    sizes = image_sizes(dataset.rows, "image", LocalFiles())
    assert sorted(sizes) == sorted((height, width) for width, height in MIXED)
    again = dataset_of(load_rows(str(folder), cache_dir=str(tmp_path / "cache")))
    with monkeypatch.context() as patch:
        patch.setattr("diffusers_tpo.decoding.Image.open", None)
        assert image_sizes(again.rows, "image", LocalFiles()) == sizes
    (folder / "3.jpg").write_bytes(cell(50, 70)["bytes"])
    (folder / "4.jpg").unlink()
    changed = image_sizes(again.rows, "image", LocalFiles())
    assert changed == [*sizes[:3], (70, 50), None, *sizes[5:]]


def test_an_unreadable_image_is_a_user_error_that_names_the_row():
    cells = [cell(20, 20), {"bytes": b"no image", "path": None}]
    with pytest.raises(UserError, match="^row 1: its image cannot be read"):
        dataset_of(tiny.make_dataset(2, image=cells)).batches(1)


# Batches


def epoch_of(dataset, loader, epoch: int, *used: int) -> list[tuple[tuple[int, int], list[int]]]:
    """The height and width and the rows of each batch."""
    dataset.begin_epoch(epoch, *used)
    return [(tuple(batch.pixels.shape[2:]), [draw.row for draw in batch.draws]) for batch in loader]


def loader_of(dataset, batch_size: int = 2, workers: int = 0) -> DataLoader:
    batches = dataset.batches(batch_size)
    return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers)


def test_every_batch_has_one_shape_and_comes_when_its_bucket_is_full():
    dataset = dataset_of(rows_of([*MIXED, (20, 20)]))
    loader = loader_of(dataset)
    assert len(loader) == 5 and loader.batch_sampler.left_out == 0
    epochs = [epoch_of(dataset, loader, epoch) for epoch in range(6)]
    trained = set()
    for epoch, batches in enumerate(epochs):
        rows = [row for _, batch in batches for row in batch]
        assert len(batches) == 5 and len(rows) == len(set(rows)) == 10
        dataset.begin_epoch(epoch)
        place = {row: position for position, row in enumerate(dataset.order.tolist())}
        full = [max(place[row] for row in batch) for _, batch in batches]
        assert full == sorted(full) and all(place[a] < place[b] for _, (a, b) in batches)
        trained |= set(rows)
    assert trained == set(range(11))  # one of three squares waits in vain, but not the same one in every epoch
    assert len({str(batches) for batches in epochs}) > 3


def test_batches_depend_on_the_seed_and_the_epoch_alone():
    rows = rows_of(MIXED)
    dataset = dataset_of(rows)
    loader = loader_of(dataset)
    epochs = [epoch_of(dataset, loader, epoch) for epoch in range(3)]
    torch.manual_seed(1)
    assert epoch_of(dataset, loader, 1) == epochs[1]
    anew = dataset_of(rows, buckets=BUCKETS[::-1])
    assert epoch_of(anew, loader_of(anew, workers=1), 2) == epochs[2]
    other = dataset_of(rows, seed=1)
    assert epoch_of(other, loader_of(other), 0) != epochs[0]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_resumed_epoch_goes_on_with_the_same_batches(processes):
    """As the training script does: a new data set and loader, and the epoch begun again without its first batches."""
    rows = rows_of(MIXED * 2)

    def run(skip: int, process: int):
        dataset = dataset_of(rows)
        place = {"num_processes": processes, "process_index": process}
        loader = prepare_data_loader(loader_of(dataset), device=torch.device("cpu"), put_on_device=False, **place)
        assert len(loader) == 10 // processes
        epoch_of(dataset, loader, 0)
        return epoch_of(dataset, loader, 1, skip, 2 * processes)

    for process in range(processes):
        whole = run(0, process)
        assert len(whole) == 10 // processes
        for skip in (1, 3):
            assert run(skip, process) == whole[skip:]


def test_two_processes_share_the_batches():
    """Nine batches are four for each, and what one process does the other does not."""
    dataset = dataset_of(rows_of((MIXED * 2)[:-1]))
    loaders = [
        prepare_data_loader(loader_of(dataset), num_processes=2, process_index=process, put_on_device=False)
        for process in range(2)
    ]
    alone = loader_of(dataset)
    assert len(alone) == 9 and [len(loader) for loader in loaders] == [4, 4]
    for epoch in range(3):
        first, second = (epoch_of(dataset, loader, epoch) for loader in loaders)
        assert [batch for pair in zip(first, second, strict=True) for batch in pair] == epoch_of(
            dataset, alone, epoch
        )[:8]
        rows = [[row for _, batch in shard for row in batch] for shard in (first, second)]
        assert len(set(rows[0])) == len(set(rows[1])) == 8 and not set(rows[0]) & set(rows[1])
        for (height, width), batch in first + second:
            assert all((MIXED * 2)[row][0] > (MIXED * 2)[row][1] for row in batch) == (width > height)


def test_rows_that_no_batch_can_hold_are_counted():
    dataset = dataset_of(rows_of(MIXED))
    batches = dataset.batches(4)  # of 4, 4 and 2 rows
    assert batches.left_out == 2 and len(batches) == len(list(batches)) == 2
    assert dataset.batches(1).left_out == 0 and len(dataset.batches(1)) == 10
    with pytest.raises(UserError, match="^--train_batch_size 5 exceeds the 4 rows of the fullest bucket; lower it or"):
        dataset.batches(5)


def test_without_buckets_all_rows_are_one():
    dataset = dataset_of(rows_of(MIXED), buckets=None, resolution=16)
    dataset.begin_epoch(3)
    assert list(dataset.batches(4)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_accelerate_is_told_that_every_batch_is_full():
    batches = BucketBatches(dataset_of(rows_of(MIXED)), [(16, 16)] * 10, 3)
    assert batches.batch_size == 3 and batches.drop_last is True
    assert [len(batch) for batch in batches] == [3, 3, 3]


@pytest.mark.parametrize("writable", [True, False])
def test_sizes_are_kept_beside_the_rows_only_where_that_is_allowed(writable, tmp_path, monkeypatch):
    tiny.make_dataset(3).save_to_disk(tmp_path)
    rows = datasets.load_from_disk(tmp_path).cast_column("image", datasets.Image(decode=False))
    before = set(tmp_path.iterdir())
    monkeypatch.setattr("os.access", lambda path, mode: writable)
    assert image_sizes(rows, "image") == [(tiny.RESOLUTION, tiny.RESOLUTION)] * 3
    assert (set(tmp_path.iterdir()) > before) == writable
