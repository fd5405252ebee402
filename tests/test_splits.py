"""Splits of a built set: rows of one image stay together, wherever they stand, and training never sees what evaluation asks."""

import io

import datasets
import pytest
from build_worker import WordEditor, captions, source_of
from PIL import Image

from diffusers_tpo.negatives.build import build
from diffusers_tpo.negatives.dataset import Source, sizes_of, stream_texts
from diffusers_tpo.negatives.splits import Shares
from diffusers_tpo.negatives.work import Plan


SHARES = Shares(validation=0.2, test=0.1)


def keys_by_split(folder) -> dict[str, set[str]]:
    found = datasets.load_dataset(str(folder), cache_dir=str(folder / "cache"))
    return {split: set(rows["key"]) for split, rows in found.items()}


def test_shares_are_those_that_were_asked_for_and_depend_on_the_seed():
    """Of 4,000 contents the share of a split is within 4 standard deviations."""
    contents = [str(number).encode() for number in range(4000)]
    splits = [SHARES.split_of(content) for content in contents]
    for split, share in (("test", 0.1), ("validation", 0.2), ("train", 0.7)):
        assert abs(splits.count(split) / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    assert splits == [SHARES.split_of(content) for content in contents]
    assert splits != [Shares(0.2, 0.1, seed=1).split_of(content) for content in contents]
    assert {Shares().split_of(content) for content in contents} == {"train"}


def test_a_folder_with_splits_is_a_data_set_with_splits(tmp_path):
    plan = Plan(shares=SHARES)
    tally = build(source_of(captions(60)), WordEditor(), plan, tmp_path, {}, 20)
    found = keys_by_split(tmp_path)
    assert set(found) == {"train", "validation", "test"} and sum(map(len, found.values())) == tally.kept
    assert {split: rows for split, (rows, _) in sizes_of(tmp_path).items()} == {k: len(v) for k, v in found.items()}
    assert len(list(stream_texts(tmp_path))) == tally.kept
    again = build(source_of(captions(60)), WordEditor(), plan, tmp_path, {}, 20)
    assert again == tally and keys_by_split(tmp_path) == found


def test_rows_of_one_image_are_in_one_split_even_of_several_shards(tmp_path):
    def picture(number: int) -> dict:
        file = io.BytesIO()
        Image.new("RGB", (4, 4), (number, 0, 0)).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": f"{number}.png"}

    texts = captions(40)
    rows = datasets.Dataset.from_dict({"text": texts, "image": [picture(number % 10) for number in range(40)]})
    source = Source(rows.cast_column("image", datasets.Image()), "text", "image")
    build(source, WordEditor(), Plan(shares=Shares(0.3, 0.3)), tmp_path, {}, 7)
    split_of = {key: split for split, keys in keys_by_split(tmp_path).items() for key in keys}
    by_image: dict[int, set[str]] = {}
    for key, split in split_of.items():
        by_image.setdefault(int(key) % 10, set()).add(split)
    assert all(len(splits) == 1 for splits in by_image.values()) and len(set(split_of.values())) > 1


@pytest.mark.parametrize("text", ["a red cat on the left", "A red cat, on the left."])
def test_without_images_equal_captions_stay_together(tmp_path, text):
    texts = [*captions(20), "a red cat on the left", text]
    build(source_of(texts), WordEditor(), Plan(shares=Shares(0.5)), tmp_path, {}, 5)
    found = keys_by_split(tmp_path)
    assert sum({"20", "21"} <= keys for keys in found.values()) == 1
