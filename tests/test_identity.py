"""What a run is: its content and settings, not the names of its folders; and what may be said of it."""

import shutil
from dataclasses import replace

import datasets
import pytest
import tiny

from diffusers_tpo import TPOConfig
from diffusers_tpo.data.dataset import as_torch_dataset
from diffusers_tpo.data.fingerprint import fingerprint_files, fingerprint_rows
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns, load_rows
from diffusers_tpo.errors import UserError
from diffusers_tpo.image_files import LocalFiles
from diffusers_tpo.training.arguments import DataArguments, ModelArguments, TrainingArguments
from diffusers_tpo.training.identity import Identity


def fingerprint(rows, source: str = "", loss_type: str = "tdpo", **columns) -> dict:
    reader = RowReader(
        Columns(**columns), loss_type, unpaired=False, seed=0, resolution=tiny.RESOLUTION, files=LocalFiles()
    )
    return fingerprint_rows(as_torch_dataset(rows, reader), source)


def test_a_data_set_is_its_content_however_it_is_stored(tmp_path):
    rows = tiny.make_dataset(4)
    whole = fingerprint(rows)
    rows.save_to_disk(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    rows.to_parquet(tmp_path / "c" / "train.parquet")
    for name in ("b", "c"):
        assert fingerprint(load_rows(str(tmp_path / name), cache_dir=str(tmp_path / "cache"))) == whole
    renamed = rows.rename_column("prompt", "text")
    assert fingerprint(renamed, prompt="text") == whole


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"prompt": ["cat 0", "cat 1", "cat 2", "Cat 3"]}, {"captions"}),
        ({"negative_prompts": [["dog 0", "0 red cats"]] * 4}, {"mismatched prompts"}),
        ({"principles": [["attribute", "content"]] * 4}, {"principles of rows"}),
        ({"image": tiny.make_images(4, seed=1)}, {"images"}),
        ({"image": tiny.make_images(4)[::-1]}, {"images"}),
        ({"editor": ["another"] * 4}, set()),
    ],
)
def test_what_changes_is_told_apart(change, changed):
    before, after = fingerprint(tiny.make_dataset(4)), fingerprint(tiny.make_dataset(4, **change))
    assert {name for name in before if before[name] != after[name]} == changed


def test_fewer_rows_are_others():
    before, after = fingerprint(tiny.make_dataset(4)), fingerprint(tiny.make_dataset(3))
    assert before["rows"] == 4 and after["rows"] == 3 and before["captions"] != after["captions"]


def test_the_files_of_a_folder_of_images_are_read_in_parts(tmp_path):
    """A change in the first, the middle and the last bytes counts, and that a file has another size."""
    content = bytearray(100_000)
    paths = [tmp_path / "image.bmp"]
    rows = datasets.Dataset.from_dict(
        {"image": [{"path": str(paths[0]), "bytes": None}], "prompt": ["cat"], "negative_prompts": [["dog"]]}
    )
    paths[0].write_bytes(content)
    found = {fingerprint(rows)["images"], fingerprint_files(tmp_path)}
    for place in (0, 50_000, 99_999):
        content[place] = 1
        paths[0].write_bytes(content)
        found |= {fingerprint(rows)["images"], fingerprint_files(tmp_path)}
    paths[0].write_bytes(content + b"\0")
    found |= {fingerprint(rows)["images"], fingerprint_files(tmp_path)}
    assert len(found) == 10


def test_a_pipe_and_a_missing_file_are_no_images_and_do_not_wait(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    cells = [{"path": str(tmp_path / name), "bytes": None} for name in ("pipe", "nothing")]
    rows = datasets.Dataset.from_dict({"image": cells, "prompt": ["a", "b"], "negative_prompts": [["c"], ["d"]]})
    assert fingerprint(rows)["rows"] == 2 and fingerprint_files(tmp_path)


def test_a_stream_is_its_files(tmp_path):
    tiny.make_dataset(4).to_parquet(tmp_path / "a" / "train.parquet")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    tiny.make_dataset(3).to_parquet(tmp_path / "c" / "train.parquet")
    found = [
        fingerprint(
            load_rows(str(tmp_path / name), streaming=True, cache_dir=str(tmp_path / "cache")), str(tmp_path / name)
        )
        for name in "abc"
    ]
    assert found[0] == found[1] != found[2] and found[0].keys() == {"data files"}


def identity(content: dict | None = None, processes: int = 1, **changes) -> Identity:
    groups = [
        ModelArguments("some/model", use_lora=True),
        DataArguments(train_data_dir="/home/me/data"),
        TPOConfig(),
        TrainingArguments(),
    ]
    for number, group in enumerate(groups):
        own = {name: value for name, value in changes.items() if hasattr(group, name)}
        groups[number] = replace(group, **own)
    content = {"captions": "1", "images": "2", "pretrained_model_name_or_path": "3"} | (content or {})
    return Identity.of(*groups, content, processes)


def test_names_of_places_do_not_count_and_content_does():
    run = identity()
    moved = identity(train_data_dir=None, dataset_name="me/data", pretrained_model_name_or_path="/copy", revision="v2")
    moved.refuse_other(run.state(), "checkpoint-1")
    with pytest.raises(
        UserError, match="^checkpoint-1 was written by another run: the captions of the data set changed"
    ):
        identity({"captions": "9"}).refuse_other(run.state(), "checkpoint-1")
    with pytest.raises(
        UserError, match="the weights of --pretrained_model_name_or_path changed; beta was 5000.0 and is 1.0"
    ):
        identity({"pretrained_model_name_or_path": "9"}, beta=1.0).refuse_other(run.state(), "checkpoint-1")
    with pytest.raises(UserError, match="num_processes was 1 and is 2"):
        identity(processes=2).refuse_other(run.state(), "checkpoint-1")
    with pytest.raises(UserError, match="does not say which run wrote it"):
        run.refuse_other({}, "checkpoint-1")


def test_the_public_view_has_no_path_and_only_what_differs_from_the_defaults():
    shown = identity(rank=8, seed=0).public()
    assert shown == {
        "pretrained_model_name_or_path": "some/model",
        "use_lora": True,
        "rank": 8,
        "train_data_dir": "a local data set",
        "resolution": 512,
        "loss_type": "tdpo",
        "beta": 5000.0,
        "seed": 0,
        "train_batch_size": 4,
        "learning_rate": 1e-5,
        "num_processes": 1,
    }


def test_other_versions_are_said_and_refuse_nothing():
    run, state = identity(), identity().state()
    state["versions"] = state["versions"] | {"torch": "0.1"}
    run.refuse_other(state, "checkpoint-1")
    assert run.other_versions(state).startswith("torch was '0.1' and is ") and not run.other_versions(run.state())
