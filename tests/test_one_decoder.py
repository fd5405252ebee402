"""Every image is opened by `diffusers_tpo.decoding`, which takes only formats and sizes that cannot harm."""

import ast
import io
import runpy
import sys
from pathlib import Path

import datasets
import pytest
import tiny
from conftest import SCRIPT, as_flags
from PIL import Image

from diffusers_tpo import decoding


ROOT = Path(__file__).parents[1]
SOURCES = [*(ROOT / "src").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
OPENERS = {"imread", "decode_example", "decode_batch", "open_image"}


def openings(source: str) -> list[int]:
    """Lines in which an image is opened."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
            if node.attr in OPENERS or (node.attr == "open" and owner in ("Image", "PIL")):
                found.append(node.lineno)
    return found


def test_no_other_module_opens_images():
    assert openings("open(path)\nImage.open(path)\nPIL.Image.open(path)\nfeature.decode_example(row)") == [2, 3, 4]
    others = [path for path in SOURCES if path.name != "decoding.py"]
    assert not {path: lines for path in others if (lines := openings(path.read_text()))}


@pytest.fixture
def only_ours(monkeypatch):
    """Makes every decoder fail but ours."""
    real = Image.open

    def guarded(*args, **options):
        assert sys._getframe(1).f_code.co_filename == decoding.__file__, "opened elsewhere"
        return real(*args, **options)

    def refuse(*_, **__):
        raise AssertionError("decoded by datasets")

    monkeypatch.setattr(Image, "open", guarded)
    monkeypatch.setattr(datasets.Image, "decode_example", refuse)


def eps() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "EPS")
    return file.getvalue()


@pytest.fixture
def hostile_dir(tmp_path) -> str:
    """Rows of which one has a program, one a text and one far too many pixels in place of its image."""
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    images = [{"bytes": content, "path": None} for content in (eps(), b"<svg/>", bomb.getvalue())]
    columns = {
        "image": [*tiny.make_images(8), *images],
        "prompt": [f"a red car beside a small dog {i}" for i in range(11)],
    }
    columns |= {"negative_prompts": [[f"a blue car {i}"] for i in range(11)], "principles": [["attribute"]] * 11}
    tiny.make_dataset(11, **columns, editor=None).save_to_disk(tmp_path / "hostile")
    return str(tmp_path / "hostile")


def test_training_opens_images_with_our_decoder_alone(only_ours, run_script, hostile_dir, tmp_path):
    flags = {"use_lora": True, "train_data_dir": hostile_dir, "on_bad_row": "skip", "max_train_steps": 2}
    flags |= {"validation_prompt": ["a cat"], "use_aspect_ratio_buckets": True, "aspect_ratio_buckets": "16,16;16,24"}
    run_script(**flags, train_batch_size=4, output_dir=tmp_path / "out")
    assert (tmp_path / "out" / "pytorch_lora_weights.safetensors").is_file()


def test_building_and_its_preview_open_images_with_our_decoder_alone(only_ours, hostile_dir, monkeypatch, tmp_path):
    rows = datasets.load_from_disk(hostile_dir)
    (tmp_path / "in").mkdir()
    rows.select_columns(["image", "prompt"]).to_parquet(tmp_path / "in" / "train.parquet")
    flags = {"dataset_name": tmp_path / "in", "editor": "rules", "output_dir": tmp_path / "built", "preview": 11}
    monkeypatch.setattr(sys, "argv", ["build_negatives.py", *as_flags(flags)])
    runpy.run_path(str(SCRIPT.with_name("build_negatives.py")), run_name="__main__")
    page = (tmp_path / "built" / "preview.html").read_text()
    assert page.count("<img") == 8
