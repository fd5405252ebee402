"""Hostile and dirty input ends in one sentence or in a skipped row that is counted, never in a traceback or in foreign code."""

import io
import json
import pickle
import re
import shutil
from pathlib import Path

import datasets
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from diffusers_tpo.data.batch import SkippedRows, collate
from diffusers_tpo.data.dataset import as_torch_dataset
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns, check_columns, load_rows
from diffusers_tpo.decoding import upright_size
from diffusers_tpo.errors import BadRow, UserError, exit_on_user_error
from diffusers_tpo.evaluation.suite import keep_settings
from diffusers_tpo.image_files import EMBEDDED, LocalFiles
from diffusers_tpo.models.checkpoints import find_checkpoint, read_state
from diffusers_tpo.models.loading import load_model, load_pipeline
from diffusers_tpo.models.quantization import bnb_arguments
from diffusers_tpo.models.recipe import ModelRecipe
from diffusers_tpo.negatives.build import begin
from diffusers_tpo.negatives.dataset import join_images, stored_images, write_rows
from diffusers_tpo.training.encoding import Encoder
from diffusers_tpo.training.trained import FrozenParts


fuzzed = settings(max_examples=40, deadline=None, derandomize=True, database=None)


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
    settings = {"resolution": tiny.RESOLUTION, "on_bad_row": "skip", "files": LocalFiles()} | settings
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
        UserError, match=r"^--dataset_name holds no row that can be used; of 4 bad ones the first is row \d"
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
    batches = list(DataLoader(dataset, batch_sampler=dataset.batches(2), collate_fn=collate))
    assert list(dataset.skipped) == [5] and len(dataset) == 7  # found as its header was read
    assert len(batches) == 3 and {row for batch in batches for row in batch.skipped} == {2}
    for batch in batches:
        assert {draw.row % 2 for draw in batch.draws} == {int(batch.pixels.shape[3] > batch.pixels.shape[2])}


def test_rows_whose_latents_cannot_be_kept_are_left_out(tmp_path, caplog):
    images = [cell(as_bytes(image)) for image in tiny.make_images(8)]
    images[2], images[4] = cell(images[2]["bytes"][:60]), {"bytes": None, "path": "../../nowhere.png"}
    rows = tiny.make_dataset(8, image=images, prompt=["cat", None, *["cat"] * 6])
    trainer, pipe = tiny.make_trainer(), tiny.make_pipe()
    frozen = FrozenParts(pipe, {"unet"}, torch.device("cpu"))
    for _ in range(2):  # the second time from the disk
        dataset = dataset_of(rows, center_crop=True)
        Encoder(pipe, trainer.family, frozen).keep_images(dataset, tmp_path, 3)
        assert sorted(dataset.skipped) == [1, 2, 4] and len(dataset) == 5
        assert sorted(row.draw.row for row in dataset) == [0, 3, 5, 6, 7]
    with pytest.raises(
        UserError, match="^row 4: .*no file '../../nowhere.png'.*--on_bad_row skip leaves such rows out$"
    ):
        strict = dataset_of(rows.select([0, 3, 5, 6, 4]), center_crop=True, on_bad_row="error")
        Encoder(pipe, trainer.family, frozen).keep_images(strict, tmp_path, 3)


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


# Fuzz

TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "L"]), max_size=20),
    st.sampled_from(["cat", " cat ", "", "\n", "\ud83d", "a\x00b", "\x1b[31mred", "\u202ebidi", "a cat " * 17_000]),
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.binary(max_size=20))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


def is_sentence(error: UserError) -> bool:
    """One line that any terminal can show, and not a whole caption."""
    return 10 < len(str(error)) < 1000 and str(error).isprintable()


@fuzzed
@given(
    row=st.dictionaries(
        st.sampled_from(["image", "prompt", "negative_prompts", "principles", "label"]),
        VALUES | st.lists(TEXTS, max_size=3),
    ),
    loss_type=st.sampled_from(["tdpo", "tkto", "sft"]),
    has_image=st.booleans(),
)
def test_a_row_is_read_or_refused_in_one_sentence(row, loss_type, has_image):
    reader = RowReader(Columns(), loss_type, loss_type == "tkto", 0, resolution=8)
    if has_image:
        row["image"] = Image.new("RGB", (8, 8))
    try:
        reader.check(row, 3)
        read = reader.read(row, 3, 0)
    except BadRow as error:
        assert str(error).startswith("row 3: ") and is_sentence(error)
    else:
        for prompt in read.prompts:
            assert prompt.encode() and prompt in [row["prompt"], *(row.get("negative_prompts") or [])]


FILES = {
    format: as_bytes(Image.effect_noise((16, 24), 50).convert(mode), format)
    for format, mode in {
        "PNG": "LA", "JPEG": "CMYK", "GIF": "P", "WEBP": "RGBA", "TIFF": "I;16", "BMP": "1", "JPEG2000": "RGB"
    }.items()
}  # fmt: skip


@fuzzed
@given(
    format=st.sampled_from(sorted(FILES)),
    cut=st.floats(0, 1),
    changes=st.dictionaries(st.integers(0, 2000), st.integers(0, 255), max_size=5),
)
def test_a_damaged_image_is_cut_to_size_or_refused_in_one_sentence(format, cut, changes):
    content = bytearray(FILES[format])
    for place, byte in changes.items():
        content[place % len(content)] = byte
    value = cell(bytes(content[: int(len(content) * cut) if cut < 0.5 else None]))
    reader = RowReader(Columns(), "tdpo", False, 0, resolution=8)
    for use in (
        lambda: reader.read({"image": value, "prompt": "a", "negative_prompts": ["b"]}, 3, 0),
        lambda: upright_size(value, 3),
    ):
        try:
            use()
        except BadRow as error:
            assert str(error).startswith("row 3: its image ") and is_sentence(error)


@pytest.mark.slow
@fuzzed
@given(
    names=st.lists(TEXTS | st.sampled_from(["image", "prompt", "negative_prompts", "editor"]), min_size=4, max_size=4)
)
def test_any_column_names_are_taken_or_refused_in_one_sentence(names):
    rows = tiny.make_dataset(2)
    for source in (rows, rows.to_iterable_dataset()):
        try:
            assert check_columns(source, Columns(*names), "tdpo") is False
        except UserError as error:
            assert re.match("--(image|caption|negative_prompts)_column", str(error))


JSON = st.one_of(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["step", "config", "files", "load_in_4bit", "bnb_4bit_quant_type", "x"]), inner
            )
        ),
    ).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=20),
)


@fuzzed
@given(content=JSON)
def test_a_file_that_holds_anything_is_read_or_refused(content, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "anything"
    checkpoint, work = folder / "checkpoint-5", folder / "work"
    for place in (checkpoint, work):
        place.mkdir(parents=True, exist_ok=True)
    state, settings = checkpoint / "trainer_state.json", work / "config.json"
    state.write_bytes(content)
    settings.write_bytes(content)
    reads = [
        lambda: read_state(checkpoint),
        lambda: find_checkpoint(folder, "latest"),
        lambda: find_checkpoint(folder, "checkpoint-5"),
        lambda: keep_settings(settings, {"seed": 0}, "output_dir"),
        lambda: begin(folder, {"seed": 0}, bool),
        lambda: bnb_arguments(False, False, str(settings)),
    ]
    refused = 0
    for read in reads:
        try:
            read()
        except UserError:
            refused += 1
    assert refused >= 2  # neither is what a run that begins here would have left


# Code in data


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(params=["pickle", "zip"])
def trap(request, tmp_path):
    """A pickle as it is or as PyTorch saves it; afterwards it must not have gone off."""
    sprung, file = tmp_path / "sprung", io.BytesIO()
    if request.param == "pickle":
        pickle.dump(Trap(sprung), file)
    else:
        torch.save({"weight": Trap(sprung)}, file)
    yield file.getvalue()
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()


@pytest.mark.parametrize(
    "name",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "text_encoder/model.safetensors",
        "text_encoder/pytorch_model.bin",
        "vae/model.ckpt",
    ],
)
def test_a_pickle_in_a_pipeline_is_never_run(trap, name, pipe_dir, tmp_path):
    shutil.copytree(pipe_dir, tmp_path / "pipe")
    path = tmp_path / "pipe" / name
    for weights in path.parent.glob("*.safetensors"):
        weights.unlink()
    path.write_bytes(trap)
    with pytest.raises(UserError, match="^--pretrained_model_name_or_path '.*pipe' cannot be loaded"):
        load_pipeline(str(tmp_path / "pipe"))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("pytorch_lora_weights.safetensors", None),
        ("lora.safetensors", {"use_lora": True, "rank": 4}),
        ("model.safetensors", {}),
        ("pytorch_model.bin", {}),
        ("ema.safetensors", {"use_ema": True}),
    ],
)
def test_a_pickle_in_a_lora_or_checkpoint_is_never_run(trap, name, config, pipe_dir, tmp_path):
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    if config is not None:
        model = ModelRecipe.from_flags(config | {"pretrained_model_name_or_path": pipe_dir}).as_dict()
        state = {"step": 5, "identity": {}, "model": model, "files": {}}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    if config == {"use_ema": True}:
        shutil.copy(next(Path(pipe_dir, "unet").glob("*.safetensors")), folder / "model.safetensors")
    (folder / name).write_bytes(trap)
    with pytest.raises(UserError, match="^--models names the (LoRA|checkpoint)") as refused:
        load_model(str(folder), pipe_dir)
    assert "weights_only" not in str(refused.value)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.jsonl", b'{"prompt": "a"}\n{oops'),
        ("train.jsonl", b""),
        ("train.csv", b"image,prompt\na,b\nc,d,e,f\n"),
        ("train.parquet", b"PAR1 and no more"),
        ("README.md", b"---\nx: !!python/object/apply:os.abort []\n---\n"),
        ("script.py", b"import os; os.abort()"),
        ("state.json", b"[]"),
        ("train.pkl", pickle.dumps(Trap(Path("sprung")))),
    ],
)
def test_a_damaged_or_hostile_data_set_is_one_sentence(name, content, streaming, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(content)
    with pytest.raises(UserError, match="^--(dataset_name|negative_prompts_column|image_column) "):
        check_columns(
            load_rows(str(tmp_path / "data"), streaming=streaming, cache_dir=str(tmp_path / "cache")),
            Columns(),
            "tdpo",
        )


@pytest.mark.parametrize("files", [EMBEDDED, LocalFiles()])
@pytest.mark.parametrize("path", ["secret.txt", "http://localhost:1/image.png", "/dev/zero", "../secret.txt"])
def test_no_other_file_is_copied_into_a_data_set_as_an_image(path, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("key")
    rows = datasets.Dataset.from_dict({"image": [path]}).cast_column("image", datasets.Image())
    texts = {"key": ["../../up"], "prompt": ["a"], "negative_prompts": [["b"]], "principles": [["content"]]}
    with pytest.raises(UserError, match="an image of the data set is missing or none"):
        write_rows(
            tmp_path / "data.parquet",
            texts | {"num_edits": [[1]], "editor": ["me"]},
            stored_images(rows, "image"),
            files,
        )
    assert not (tmp_path / "data.parquet").exists()


def test_what_is_shown_of_a_row_cannot_steer_a_terminal(capsys, caplog):
    hostile = "\x1b]0;owned\x07\u202e\r\n<script>\ud800" * 1000
    with pytest.raises(SystemExit), exit_on_user_error():
        raise UserError(f"dataset_name {hostile} is wrong")
    shown = capsys.readouterr().err
    assert shown.startswith("\nerror: dataset_name ") and shown.endswith(" is wrong\n")
    assert shown.strip().isprintable() and len(shown) < 2100
    rows = tiny.make_dataset(
        2, image=[{"bytes": None, "path": "\x1b[31m\n.png"}, cell(as_bytes(Image.new("RGB", (9, 9))))]
    )
    for batch in DataLoader(dataset_of(rows), 1, collate_fn=collate):
        SkippedRows().metrics(batch)
    assert "there is no file" in caplog.text and all(record.getMessage().isprintable() for record in caplog.records)


@pytest.mark.parametrize("column", ["prompt", "negative_prompts", "principles", "num_edits", "editor"])
def test_a_foreign_set_of_mismatched_prompts_is_checked_before_it_is_joined(column, tmp_path):
    texts = {
        "key": ["0"],
        "prompt": ["a"],
        "negative_prompts": [["b"]],
        "principles": [["content"]],
        "num_edits": [[1]],
    }
    texts |= {"editor": ["me"]}
    images = tiny.make_dataset(1).add_column("id", ["0"])
    for wrong in ([None], [{"a": 1}], []):
        foreign = {name: values for name, values in (texts | {column: wrong}).items() if values}
        with pytest.raises(UserError, match="^--dataset_name is no set of mismatched prompts: "):
            join_images(datasets.Dataset.from_dict(foreign), images, "image", "id", tmp_path, 10)
    assert join_images(datasets.Dataset.from_dict(texts), images, "image", "id", tmp_path, 10) == (1, 0)
