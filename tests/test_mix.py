"""Several data sets as one: whose rows are taken, how many of each, and which files they may name."""

from collections import Counter

import datasets
import pytest
import tiny
import torch

from diffusers_tpo.data.dataset import mixed_dataset
from diffusers_tpo.data.fingerprint import fingerprint_rows
from diffusers_tpo.data.mix import Mix
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns, load_rows
from diffusers_tpo.errors import UserError
from diffusers_tpo.image_files import HubFiles, PartFiles, files_of


def reader_of(files=(), **options) -> RowReader:
    return RowReader(
        Columns(), "tdpo", False, seed=0, resolution=tiny.RESOLUTION, files=PartFiles(tuple(files)), **options
    )


def rows_named(word: str, number: int) -> datasets.Dataset:
    texts = [f"{word} {i}" for i in range(number)]
    mismatched = [[f"no {text}"] for text in texts]
    return tiny.make_dataset(number, prompt=texts, negative_prompts=mismatched, principles=[["content"]] * number)


def words_of(dataset) -> Counter:
    return Counter(dataset.text(row_id)["prompt"].split()[0] for row_id in dataset.order.tolist())


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ((), {"cat": 6, "dog": 4}),
        ((1, 1), {"cat": 4, "dog": 4}),
        ((1, 2), {"cat": 2, "dog": 4}),
        ((3, 1), {"cat": 6, "dog": 2}),
        ((0.1, 0.1), {"cat": 4, "dog": 4}),
        ((1, 1000), {"cat": 1, "dog": 4}),
    ],
)
def test_an_epoch_takes_of_each_data_set_what_its_weight_asks_for(weights, counts):
    mixed = mixed_dataset([rows_named("cat", 6), rows_named("dog", 4)], "ab", reader_of(), weights=weights)
    for epoch in range(3):
        mixed.begin_epoch(epoch)
        assert words_of(mixed) == counts and len(mixed) == sum(counts.values())
        assert len(set(mixed.order.tolist())) == len(mixed)


def test_other_rows_come_in_other_epochs_and_the_same_ones_again_after_resuming():
    parts = [rows_named("cat", 40), rows_named("dog", 4)]
    mixed = mixed_dataset(parts, "ab", reader_of(), weights=(1, 1))
    orders = []
    for epoch in range(20):
        mixed.begin_epoch(epoch)
        orders.append(mixed.order)
    assert len({int(row) for order in orders for row in order}) > 30
    again = mixed_dataset(parts, "ab", reader_of(), weights=(1, 1))
    again.begin_epoch(7, used=1, rows_of_batch=2)
    assert torch.equal(again.order, orders[7]) and again.skip == 2


def test_without_weights_the_order_and_the_draws_are_those_of_the_joined_rows():
    parts = [rows_named("cat", 3), rows_named("dog", 2)]
    mixed = mixed_dataset(parts, "ab", reader_of())
    whole = mixed_dataset([datasets.concatenate_datasets(parts)], "a", reader_of())
    for one, other in zip(mixed, whole, strict=True):
        assert one.prompts == other.prompts and one.draw == other.draw
        assert torch.equal(one.crop.pixels, other.crop.pixels)


def test_rows_that_cannot_be_used_do_not_count():
    cats = tiny.make_dataset(4, prompt=["cat", "", "", ""])
    mixed = mixed_dataset([cats, rows_named("dog", 4)], "ab", reader_of(on_bad_row="skip"), weights=(1, 2))
    assert words_of(mixed) == {"cat": 1, "dog": 2}
    none = tiny.make_dataset(2, prompt=["", ""])
    with pytest.raises(UserError, match="no row that can be used in its data set 1"):
        mixed_dataset([none, rows_named("dog", 4)], "ab", reader_of(on_bad_row="skip"), weights=(1, 2))


def test_only_the_first_rows_of_each():
    mixed = mixed_dataset([rows_named("cat", 6), rows_named("dog", 4)], "ab", reader_of(), max_samples=3)
    assert words_of(mixed) == {"cat": 3, "dog": 3}


def test_data_sets_that_do_not_go_together_are_named():
    cats = rows_named("cat", 2)
    with pytest.raises(UserError, match="^--dataset_name 'b' has no column negative_prompts, which 'a' has"):
        mixed_dataset([cats, cats.remove_columns("negative_prompts")], "ab", reader_of())
    wrong = cats.remove_columns("negative_prompts").add_column("negative_prompts", ["x", "y"])
    with pytest.raises(UserError, match="^--dataset_name 'b' has columns of other kinds than 'a'"):
        mixed_dataset([cats, wrong], "ab", reader_of())


def test_identity_knows_all_rows_and_which_data_set_they_are_of():
    cats, dogs = rows_named("cat", 3), rows_named("dog", 2)
    first = fingerprint_rows(mixed_dataset([cats, dogs], "ab", reader_of()), "a")
    assert fingerprint_rows(mixed_dataset([cats, dogs], "xy", reader_of()), "x") == first
    assert first["rows of data sets"] == [3, 2]
    other = fingerprint_rows(mixed_dataset([cats, rows_named("cow", 2)], "ab", reader_of()), "a")
    assert other["captions"] != first["captions"]
    together = datasets.concatenate_datasets([cats, dogs])
    moved = fingerprint_rows(
        mixed_dataset([together.select(range(2)), together.select(range(2, 5))], "ab", reader_of()), "a"
    )
    assert moved["captions"] == first["captions"] and moved != first


# Files


def folder_of(path, word: str) -> str:
    path.mkdir()
    lines = ["file_name,prompt"]
    for number, image in enumerate(tiny.make_images(2)):
        image.rotate(90 * (word == "dog")).save(path / f"{number}.png")
        lines.append(f"{number}.png,{word} {number}")
    (path / "metadata.csv").write_text("\n".join(lines))
    return str(path)


def test_images_beside_the_rows_are_read_from_the_folder_of_their_own_data_set(tmp_path):
    """Both folders name the same files, `0.png` and `1.png`."""
    names = [folder_of(tmp_path / word, word) for word in ("cat", "dog")]
    parts = [load_rows(name, cache_dir=str(tmp_path / "cache")) for name in names]
    reader = RowReader(
        Columns(), "sft", False, 0, tiny.RESOLUTION, center_crop=True, files=PartFiles(tuple(map(files_of, names)))
    )
    mixed = mixed_dataset(parts, names, reader)
    pixels = {example.prompts[0]: example.crop.pixels for example in mixed}
    assert set(pixels) == {"cat 0", "cat 1", "dog 0", "dog 1"}
    assert torch.equal(pixels["dog 0"], torch.rot90(pixels["cat 0"], 1, (1, 2)))
    before = fingerprint_rows(mixed, names[0])
    tiny.make_images(4)[3].save(tmp_path / "dog" / "0.png")
    assert fingerprint_rows(mixed, names[0])["images"] != before["images"]


def test_a_data_set_of_the_hub_names_no_file_of_its_neighbour(tmp_path):
    name = folder_of(tmp_path / "mine", "cat")
    files = PartFiles((files_of(name), HubFiles("stranger/data")))
    assert files.open(PartFiles.path(0, "0.png")).read()
    for path in (f"{name}/0.png", "part://0/0.png", "0.png"):
        with pytest.raises(OSError, match="may name only its own files"):
            files.open(PartFiles.path(1, path))
    with pytest.raises(OSError, match="of no data set"):
        files.open("0.png")


# Through the script


def test_a_run_on_two_data_sets_resumes_and_refuses_other_weights(run_script, refused, tmp_path):
    names = []
    for word in ("cat", "dog"):
        rows_named(word, 6).save_to_disk(tmp_path / word)
        names.append(str(tmp_path / word))
    flags = {"train_data_dir": None, "dataset_name": names, "dataset_weights": [1, 2], "use_lora": True}
    flags |= {"train_batch_size": 1, "output_dir": tmp_path / "run"}
    run_script(**flags, max_train_steps=2)
    card = (tmp_path / "run" / "README.md").read_text()
    assert str(tmp_path) not in card and "| dataset_weights | 1.0, 2.0 |" in card
    other = flags | {"max_train_steps": 3, "resume_from_checkpoint": "latest"}
    message = refused(**other | {"dataset_weights": [2, 1]})
    assert "dataset_weights was [1.0, 2.0] and is [2.0, 1.0]" in message
    assert "rows of data sets" in refused(**other | {"dataset_name": [names[0], str(save_short(tmp_path))]})
    run_script(**other)


def save_short(folder):
    rows_named("dog", 5).save_to_disk(folder / "short")
    return folder / "short"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"dataset_weights": [1]}, "--dataset_weights needs one weight for each --dataset_name, got 1 for 2"),
        ({"dataset_name": ["a", "a"]}, "--dataset_name names a data set twice"),
        ({"streaming": True, "max_train_steps": 1}, "--streaming is for one data set, and --dataset_name names 2"),
        ({"dataset_revision": "main"}, "--dataset_revision is for one data set"),
        (
            {"dataset_weights": [1, 1], "use_aspect_ratio_buckets": True},
            "--dataset_weights takes other rows in each epoch, which --use_aspect_ratio_buckets cannot",
        ),
        ({"dataset_weights": [1, 0]}, "--dataset_weights must be greater than 0, got 0"),
    ],
)
def test_flags_that_do_not_go_with_several_data_sets(refused, flags, sentence):
    assert sentence in refused(**{"train_data_dir": None, "dataset_name": ["a", "b"]} | flags)


def test_weights_of_equal_shares_take_all_rows():
    assert Mix((2, 2), (1.0, 1.0)).take(torch.tensor([3, 1, 0, 2])).tolist() == [3, 1, 0, 2]
