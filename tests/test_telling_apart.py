"""Mismatched prompts that a model cannot tell from the prompt, and labels and texts in all their spellings."""

import json
import unicodedata
import zipfile

import datasets
import pytest
import tiny
import tiny_families

from diffusers_tpo.data.dataset import as_torch_dataset
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns, check_columns
from diffusers_tpo.errors import BadRow, UserError
from diffusers_tpo.families import FAMILIES, family_of
from diffusers_tpo.families.tokens import TokenReader


def dataset_of(rows, loss_type: str = "tdpo", **settings):
    reader = RowReader(Columns(), loss_type, check_columns(rows, Columns(), loss_type), 0, tiny.RESOLUTION, **settings)
    return as_torch_dataset(rows, reader)


@pytest.fixture(scope="module")
def sees():
    pipe = tiny.make_pipe()
    return TokenReader(pipe, family_of(pipe))


ALIKE = {
    "case": ("A Red Circle", "a red circle"),
    "window": ("a long prompt of more than twenty tokens ", "a long prompt of more than twenty tokens, a dog"),
}
EQUAL = {
    "spaces": ("a red  circle", " a red circle\n"),
    "composition": ("a café", unicodedata.normalize("NFD", "a café")),
}


def one_alike(prompt: str, mismatched: str, number: int = 4):
    prompts = ["cat 0", prompt, *[f"cat {i}" for i in range(2, number)]]
    return tiny.make_dataset(
        number, prompt=prompts, negative_prompts=[["x"], [mismatched]] + [["x"]] * (number - 2), principles=None
    )


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("case", ALIKE)
def test_the_same_tokens_are_a_bad_row(case, streaming, sees):
    rows = one_alike(*ALIKE[case])
    rows = rows.to_iterable_dataset() if streaming else rows
    for on_bad_row in ("error", "skip"):
        dataset = dataset_of(rows, on_bad_row=on_bad_row)
        if on_bad_row == "error":
            with pytest.raises(
                UserError, match=r"^row \d: the model is given the same tokens for the mismatched prompt"
            ):
                dataset.tell_apart(sees)
                list(dataset)
            continue
        dataset.tell_apart(sees)
        examples = list(dataset)
        assert len(examples) == 3 and ALIKE[case][0] not in {example.prompts[0] for example in examples}


@pytest.mark.parametrize("case", EQUAL)
def test_the_same_text_is_a_bad_row_whatever_the_model(case):
    with pytest.raises(UserError, match="^row 1: a mismatched prompt equals its prompt"):
        dataset_of(one_alike(*EQUAL[case]))


def test_tokens_are_asked_for_once_and_only_of_prompts_that_are_used():
    asked = []

    def sees(prompts):
        asked.extend(prompts)
        return prompts

    dataset = dataset_of(tiny.make_dataset(4), principles=("content",))
    dataset.tell_apart(sees)
    for epoch in range(2):
        dataset.begin_epoch(epoch)
        list(dataset)
    assert sorted(asked) == sorted([f"cat {i}" for i in range(4)] + [f"dog {i}" for i in range(4)])


@pytest.mark.parametrize("name", sorted(tiny_families.MAKERS))
def test_every_family_tells_different_prompts_apart(name):
    pipe = tiny_families.make_pipe(name)
    assert type(pipe) in FAMILIES
    cat, again, dog = TokenReader(pipe, family_of(pipe))(["a cat", "a cat", "a dog"])
    assert cat == again != dog


LABELS = {
    "bool": [True, False],
    "int": [1, 0],
    "float": [1.0, 0.0],
    "words": ["true", "False "],
    "digits": ["1", "0"],
    "class": datasets.ClassLabel(names=["mismatched", "matched"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_have_one_reading(kind):
    values = [1, 0] if kind == "class" else LABELS[kind]
    rows = tiny.make_dataset(2, negative_prompts=None, principles=None, label=values)
    rows = rows.cast_column("label", LABELS[kind]) if kind == "class" else rows
    assert {e.prompts[0]: e.is_matched for e in dataset_of(rows, "tkto")} == {"cat 0": [True], "cat 1": [False]}
    with pytest.raises(UserError, match="^row 1: column 'label' is false, and sft learns every row"):
        dataset_of(rows, "sft")
    assert len(dataset_of(rows, "sft", on_bad_row="skip")) == 1


@pytest.mark.parametrize("wrong", [float("nan"), 2, 0.5, "maybe", "", None])
@pytest.mark.parametrize("loss_type", ["tkto", "sft"])
def test_what_is_no_label_is_a_bad_row(wrong, loss_type):
    rows = tiny.make_dataset(2, negative_prompts=None, label=[None if wrong is None else type(wrong)(1), wrong][-2:])
    with pytest.raises(BadRow, match=r"^row \d: column 'label' must be true or false, got"):
        dataset_of(rows, loss_type)


def test_a_whole_book_is_no_prompt():
    rows = tiny.make_dataset(2, prompt=["cat", "a cat " * 2_000_000])
    with pytest.raises(
        BadRow, match="^row 1: column 'prompt' must hold a prompt, got a text of 12000000 characters, more"
    ):
        dataset_of(rows)


@pytest.mark.parametrize("streaming", [False, True])
def test_columns_that_are_not_used_are_never_read(streaming):
    broken = [{"bytes": b"no image", "path": None}] * 3
    rows = tiny.make_dataset(3, mask=broken, label=[None] * 3).cast_column("mask", datasets.Image())
    assert len(list(dataset_of(rows.to_iterable_dataset() if streaming else rows))) == 3


def test_a_format_that_was_saved_with_the_rows_changes_nothing():
    rows = tiny.make_dataset(3, negative_prompts=None, label=[1, 0, 1]).with_format("torch")
    assert sorted(e.is_matched[0] for e in dataset_of(rows, "tkto")) == [False, True, True]


def test_the_training_script_refuses_what_its_model_cannot_tell_apart(refused, tmp_path):
    one_alike(*ALIKE["case"]).save_to_disk(tmp_path / "data")
    sentence = refused(train_data_dir=str(tmp_path / "data"))
    assert sentence.startswith(
        "error: row 1: the model is given the same tokens for the mismatched prompt 'a red circle'"
    )
    assert sentence.endswith("--on_bad_row skip leaves such rows out")


def test_the_training_script_reads_images_of_a_zip(run_script, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        lines = []
        for number, image in enumerate(tiny.make_images(4)):
            with archive.open(f"{number}.png", "w") as file:
                image.save(file, "PNG")
            row = {"file_name": f"{number}.png", "prompt": f"cat {number}", "negative_prompts": ["dog"]}
            lines.append(json.dumps(row))
        archive.writestr("metadata.jsonl", "\n".join(lines))
    flags = {"train_data_dir": None, "dataset_name": tmp_path, "cache_dir": tmp_path / "cache", "use_lora": True}
    run_script(**flags, max_train_steps=1, train_batch_size=2, output_dir=tmp_path / "model")
    assert (tmp_path / "model" / "pytorch_lora_weights.safetensors").is_file()
