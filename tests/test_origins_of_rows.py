"""Where rows come from: folders of any layout, archives, captions beside images, and which files a cell may name."""

import io
import json
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import tiny
from PIL import Image

from diffusers_tpo.data.dataset import as_torch_dataset
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns, check_columns, load_rows
from diffusers_tpo.decoding import decode_image, read_bytes
from diffusers_tpo.errors import BadRow, UserError
from diffusers_tpo.evaluation.heldout import held_out_pairs
from diffusers_tpo.image_files import EMBEDDED, HubFiles, LocalFiles, files_of
from diffusers_tpo.negatives.dataset import Source, stored_images, write_rows


def png(number: int = 0, side: int = tiny.RESOLUTION) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (number * 20, 0, 0)).save(file, "PNG")
    return file.getvalue()


def metadata(number: int, names: list[str] | None = None) -> str:
    names = names or [f"{i}.png" for i in range(number)]
    lines = [
        {"file_name": name, "prompt": f"cat {i}", "negative_prompts": [f"dog {i}"]} for i, name in enumerate(names)
    ]
    return "\n".join(map(json.dumps, lines))


def image_folder(folder: Path, number: int = 3, names: list[str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names or [f"{i}.png" for i in range(number)]):
        (folder / name).write_bytes(png(index))
    (folder / "metadata.jsonl").write_text(metadata(number, names))
    return folder


def loaded(folder: Path, tmp_path: Path, **options):
    return load_rows(str(folder), cache_dir=str(tmp_path / "cache"), **options)


def dataset_of(folder: Path, tmp_path: Path, **options):
    rows = loaded(folder, tmp_path, **options)
    reader = RowReader(
        Columns(), "tdpo", check_columns(rows, Columns(), "tdpo"), 0, tiny.RESOLUTION, files=files_of(str(folder))
    )
    return as_torch_dataset(rows, reader)


# Layouts


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_in_a_zip_are_read(tmp_path, streaming, workers):
    folder = tmp_path / "data"
    folder.mkdir()
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for index in range(3):
            archive.writestr(f"{index}.png", png(index))
        archive.writestr("metadata.jsonl", metadata(3))
    dataset = dataset_of(folder, tmp_path, streaming=streaming)
    import torch

    examples = list(torch.utils.data.DataLoader(dataset, None, num_workers=workers))
    reds = {example.prompts[0]: round((float(example.crop.pixels[0].mean()) + 1) * 127.5) for example in examples}
    assert reds == {"cat 0": 0, "cat 1": 20, "cat 2": 40}
    if not streaming:
        pairs = held_out_pairs(loaded(folder, tmp_path), Columns(), 16, None, files_of(str(folder)))
        assert pairs.content() and len(pairs) == 3
        source = Source(loaded(folder, tmp_path), "prompt", "image", files=files_of(str(folder)))
        texts = {"key": ["0"], "prompt": ["a"], "negative_prompts": [["b"]], "principles": [["content"]]}
        write_rows(
            tmp_path / "o.parquet", texts | {"num_edits": [[1]], "editor": ["me"]}, source.images([1]), source.files
        )
        kept = datasets.Dataset.from_parquet(str(tmp_path / "o.parquet"), cache_dir=str(tmp_path / "c"))
        assert kept.cast_column("image", datasets.Image(decode=False))[0]["image"] == {
            "bytes": png(1),
            "path": "1.png",
        }


@pytest.mark.parametrize(
    "names",
    [["0.png", "train-station.png", "2.png"], ["0.png", "1.png", "test_dog.png"], ["a val.png", "test.png", "x.png"]],
)
def test_split_words_in_names_of_images_make_no_split(tmp_path, names):
    assert len(loaded(image_folder(tmp_path / "f", 3, names), tmp_path)) == 3


def test_a_class_of_pictures_called_train_makes_no_split(tmp_path, caplog):
    for name in ("cats", "train", "dogs"):
        image_folder(tmp_path / "f" / name, 2)
    assert len(loaded(tmp_path / "f", tmp_path)) == 6 and not caplog.text


def test_folders_of_splits_are_splits_and_what_lies_beside_them_is_said(tmp_path, caplog):
    for name, number in (("train", 2), ("validation", 3), ("more", 1)):
        image_folder(tmp_path / "f" / name, number)
    assert len(loaded(tmp_path / "f", tmp_path)) == 2
    assert len(loaded(tmp_path / "f", tmp_path, split="validation")) == 3
    assert "1 file of the data set left out, no folder around them names a split: more/0.png" in caplog.text
    with pytest.raises(UserError, match=r"with split 'test' cannot be loaded \(it has the splits train, validation\)"):
        loaded(tmp_path / "f", tmp_path, split="test")


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        ({"train.jsonl": 2, "test.jsonl": 3}, 2),
        ({"train.jsonl": 2, "extra.jsonl": 3}, 2),
        ({"my-train-set.jsonl": 2, "extra.jsonl": 3}, 5),
        ({"a.jsonl": 2, "b.jsonl": 3}, 5),
        ({"data/train-00000-of-00002.parquet": 2, "data/train-00001-of-00002.parquet": 1, "failed.jsonl": 9}, 3),
        ({"train/a.jsonl": 2, "test/a.jsonl": 3}, 2),
        ({"cats/train/a.jsonl": 2, "dogs/b.jsonl": 3}, 5),
        ({"old [1]/a.jsonl": 2, "b.jsonl": 3}, 5),
    ],
)
def test_tables_are_divided_by_whole_names_alone(tmp_path, names, rows):
    for name, number in names.items():
        path = tmp_path / "f [2]" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_dict({"prompt": [f"{name} {i}" for i in range(number)]})
        table.to_json(path) if name.endswith("jsonl") else table.to_parquet(path)
    assert len(loaded(tmp_path / "f [2]", tmp_path)) == rows
    assert len(loaded(tmp_path / "f [2]", tmp_path, split="train[:1]")) == 1


def test_brackets_in_the_name_of_a_folder(tmp_path):
    dataset = dataset_of(image_folder(tmp_path / "d [1]*", 3), tmp_path)
    assert sorted(example.prompts[0] for example in dataset) == ["cat 0", "cat 1", "cat 2"]


@pytest.mark.parametrize("name", ["ünïcode ☃.png", "with space.png", "a#b?c%20.png"])
def test_any_name_of_a_file(tmp_path, name):
    assert len(list(dataset_of(image_folder(tmp_path / "f", 1, [name]), tmp_path))) == 1


def test_links_to_images_are_followed(tmp_path):
    folder = image_folder(tmp_path / "f", 2)
    (folder / "1.png").rename(tmp_path / "elsewhere.png")
    (folder / "1.png").symlink_to(tmp_path / "elsewhere.png")
    assert len(list(dataset_of(folder, tmp_path))) == 2


@pytest.mark.parametrize("what", ["empty", "gone", "unreadable"])
def test_a_folder_without_rows_is_one_sentence(tmp_path, what, monkeypatch):
    folder = tmp_path / "f"
    if what != "gone":
        folder.mkdir()
    if what == "unreadable":
        image_folder(folder, 1)

        def refuse(*_, onerror, **__):
            onerror(PermissionError(13, "Permission denied", str(folder)))
            yield

        monkeypatch.setattr("os.walk", refuse)
    with pytest.raises(UserError, match="^--dataset_name '.*f' (with split 'train' )?cannot be loaded .+"):
        loaded(folder, tmp_path)


# Captions


def test_images_with_captions_in_text_files_are_rows(tmp_path, caplog):
    folder = tmp_path / "f"
    (folder / "more").mkdir(parents=True)
    for name in ("a", "b", "more/c", "d"):
        (folder / f"{name}.png").write_bytes(png())
    (folder / "a.txt").write_bytes("\ufeffa red car\n beside a dog\n".encode())
    (folder / "b.txt").write_text("None")
    (folder / "more" / "c.txt").write_text("NA")
    (folder / "README.txt").write_text("about these images")
    for streaming in (False, True):
        rows = loaded(folder, tmp_path, streaming=streaming).cast_column("image", datasets.Image(decode=False))
        assert [row["prompt"] for row in rows] == ["a red car beside a dog", "None", "NA"]
        assert [Path(row["image"]["path"]).name for row in rows] == ["a.png", "b.png", "c.png"]
    assert "1 file of the data set left out, they have no captions in text files of their names: d.png" in caplog.text
    assert len(loaded(folder, tmp_path, split="train[:2]")) == 2
    assert Source(loaded(folder, tmp_path), "prompt", "image", files=files_of(str(folder))).captions(0, 1)


def test_a_caption_that_is_no_text_names_its_file(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.png").write_bytes(png())
    (tmp_path / "f" / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="^the caption '.*a.txt' is not encoded in UTF-8"):
        loaded(tmp_path / "f", tmp_path)


@pytest.mark.parametrize("name", ["train.csv", "metadata.csv"])
def test_none_null_and_na_are_captions_in_csv_and_a_byte_order_mark_is_none(tmp_path, name):
    folder = tmp_path / "f"
    folder.mkdir()
    captions = ["None", "NA", "null", "nan"]
    for index in range(4):
        (folder / f"{index}.png").write_bytes(png(index))
    column = "file_name" if name == "metadata.csv" else "image"
    lines = [f"{index}.png,{caption}" for index, caption in enumerate(captions)]
    (folder / name).write_bytes(("\ufeff" + "\n".join([f"{column},prompt", *lines])).encode())
    rows = loaded(folder, tmp_path)
    assert rows["prompt"][:] == captions
    cell = rows.cast_column("image", datasets.Image(decode=False))[2]["image"]
    assert read_bytes(cell, 2, files_of(str(folder))) == png(2)  # relative paths begin in the folder


# Origins


@pytest.fixture
def secret(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.png").write_bytes(png())
    with zipfile.ZipFile(tmp_path / "secret.zip", "w") as archive:
        archive.writestr("secret.png", png())
    return tmp_path / "secret.png"


@pytest.mark.parametrize("files", [EMBEDDED, HubFiles("someone/something"), HubFiles("someone/something", "hf_token")])
def test_what_comes_from_the_hub_never_names_a_file_of_this_machine(secret, files, monkeypatch):
    asked = []
    monkeypatch.setattr("diffusers_tpo.image_files.HfFileSystem.open", lambda *args, **kw: asked.append(args))
    cache = Path(datasets.config.HF_CACHE_HOME) / "hub" / "datasets--someone--something"
    for path in (
        str(secret),
        "secret.png",
        f"file://{secret}",
        f"local://{secret}",
        f"zip://secret.png::{secret.with_suffix('.zip')}",
        f"zip://secret.png::file://{secret.with_suffix('.zip')}",
        f"{cache}/../../../../../../../../../..{secret}",
        "hf://datasets/someone/private@main/secret.png",
        "hf://datasets/someone/something@main/../../../private/secret.png",
        "hf://datasets/someone/something-else/secret.png",
        "zip://secret.png::hf://datasets/someone/private@main/secret.zip",
        "https://127.0.0.1/secret.png",
        "/dev/zero",
    ):
        cell = {"bytes": None, "path": path}
        for read in (decode_image, read_bytes):
            with pytest.raises(BadRow, match="^row 3: its image cannot be read"):
                read(cell, 3, files)
        rows = datasets.Dataset.from_dict({"image": [cell], "prompt": ["cat"], "negative_prompts": [["dog"]]})
        rows = rows.cast_column("image", datasets.Image(decode=False))
        refused = "image cannot be read|addresses of images, which are not downloaded"
        with pytest.raises(UserError, match=refused):
            held_out_pairs(rows, Columns(), 16, None, files).content()
        with pytest.raises(UserError, match=refused):
            Source(rows, "prompt", "image", files=files)
        texts = {"key": ["0"], "prompt": ["a"], "negative_prompts": [["b"]], "principles": [["content"]]}
        with pytest.raises(UserError, match="an image of the data set is missing or none"):
            images = stored_images(rows, "image")
            write_rows(secret.parent / "o.parquet", texts | {"num_edits": [[1]], "editor": ["me"]}, images, files)
        assert not (secret.parent / "o.parquet").exists()
    assert not asked


def test_a_link_in_the_cache_leads_nowhere_else(secret, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers_tpo.image_files.HF_HUB_CACHE", str(tmp_path / "hub"))
    own = tmp_path / "hub" / "datasets--a--b"
    for place in ("blobs", "snapshots/1"):
        (own / place).mkdir(parents=True)
    (own / "blobs" / "x").write_bytes(png(5))
    (own / "snapshots" / "1" / "in.png").symlink_to("../../blobs/x")
    (own / "snapshots" / "1" / "out.png").symlink_to(secret)
    files = HubFiles("a/b")
    assert read_bytes({"bytes": None, "path": str(own / "snapshots/1/in.png")}, 0, files) == png(5)
    with pytest.raises(BadRow, match="leads out of the cache"):
        read_bytes({"bytes": None, "path": str(own / "snapshots/1/out.png")}, 0, files)


def test_a_name_says_whose_files_are_read(tmp_path):
    assert files_of(str(tmp_path)) == LocalFiles(tmp_path)
    assert files_of("someone/something", "token") == HubFiles("someone/something", "token")
    (tmp_path / "captions.csv").write_text("a")
    assert files_of(str(tmp_path / "captions.csv")) == LocalFiles(tmp_path)


def test_bytes_are_kept_under_a_bare_name(tmp_path):
    cell = {"bytes": png(), "path": "/home/somebody/private/cat.png"}
    rows = datasets.Dataset.from_dict({"image": [cell]}).cast_column("image", datasets.Image(decode=False))
    texts = {"key": ["0"], "prompt": ["a"], "negative_prompts": [["b"]], "principles": [["content"]]}
    write_rows(tmp_path / "o.parquet", texts | {"num_edits": [[1]], "editor": ["me"]}, stored_images(rows, "image"))
    assert b"somebody" not in (tmp_path / "o.parquet").read_bytes()


@pytest.mark.parametrize(
    ("dtype", "top"), [("u1", 255), ("u2", 255), ("u2", 4080), ("u2", 65535), ("i4", 255), ("f4", 1)]
)
def test_grey_of_any_depth_is_as_bright_as_it_is_meant(dtype, top):
    values = np.tile(np.linspace(0, top, 64), (64, 1)).astype(dtype)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    grey = np.asarray(decode_image({"bytes": file.getvalue(), "path": None}, 0))
    assert grey.min() == 0 and grey.max() == 255 and abs(grey.mean() - 127.3) < 0.6


@pytest.mark.parametrize("values", [[np.nan, 0], [0, np.inf], [-1, 1], [0, 1e6]])
def test_numbers_that_are_no_picture_are_refused(values):
    file = io.BytesIO()
    Image.fromarray(np.array([values], dtype="f4")).save(file, "TIFF")
    with pytest.raises(BadRow, match="its grey values reach from"):
        decode_image({"bytes": file.getvalue(), "path": None}, 0)
