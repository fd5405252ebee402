"""The notebook in docs/ runs from top to bottom, on the tiny pipeline in the place of a real one."""

import json
from pathlib import Path

import pytest
import tiny
from conftest import white_pictures
from PIL import Image

from diffusers_tpo import commands
from diffusers_tpo.commands.scripts import call


NOTEBOOK = Path(__file__).parents[1] / "docs" / "train.ipynb"
CAPTIONS = [
    "a red cup on a blue table",
    "two black dogs in the snow",
    "a man with a green hat",
    "three big white cats",
]


def cells(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_the_notebook_runs_and_trains_with_ten_lines(tmp_path, pipe_dir, monkeypatch):
    tiny.make_dataset(4, prompt=CAPTIONS, negative_prompts=None, principles=None).save_to_disk(tmp_path / "images")
    monkeypatch.chdir(tmp_path)

    def train(**flags) -> None:  # what the notebook asks for is for a GPU and a large model
        small = {"resolution": tiny.RESOLUTION, "mixed_precision": "no", "max_train_steps": 2, "train_batch_size": 2}
        assert {"mixed_precision", "max_train_steps"} <= flags.keys()
        call("train", flags | small | {"learning_rate": 0.5, "report_to": "none"})

    monkeypatch.setattr(commands, "train", train)
    small = {
        "stable-diffusion-v1-5/stable-diffusion-v1-5": pipe_dir,
        "your-name/captioned-images": "images",
        "torch.float16": "torch.float32",
        '.to("cuda")': "",
        "guidance_scale=4": "guidance_scale=4, num_inference_steps=2",
    }
    programs = [cell for cell in cells("code") if not cell.startswith("!")]
    training = next(cell for cell in programs if "train(" in cell)
    assert sum(1 for line in training.splitlines() if line.strip()) == 10
    for large, value in small.items():
        assert any(large in program for program in programs), large
        programs = [program.replace(large, value) for program in programs]
    known: dict = {}
    with white_pictures():
        for program in programs:
            exec(compile(program, "a cell", "exec"), known)
    assert isinstance(known["before"], Image.Image) and known["before"].tobytes() != known["after"].tobytes()
    assert (tmp_path / "my-negatives" / "preview.html").is_file()


def test_the_notebook_is_as_saved_without_outputs():
    content = json.loads(NOTEBOOK.read_text())
    assert content["nbformat"] == 4 and cells("markdown")[0].startswith("# ")
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in content["cells"] if "outputs" in cell
    )


@pytest.mark.parametrize("page", ["README.md", "docs/quicktour.md"])
def test_the_notebook_is_linked(page):
    text = (NOTEBOOK.parents[1] / page).read_text()
    assert "colab.research.google.com/github/diffusers-tpo/diffusers_tpo/blob/main/docs/train.ipynb" in text
