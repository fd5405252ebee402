"""Training, building and judging from Python on the tiny pipeline, and the same commands from the console."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from conftest import white_pictures
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

import diffusers_tpo
from diffusers_tpo.commands import console, evaluate, negatives, train
from diffusers_tpo.errors import UserError


LORA = "pytorch_lora_weights.safetensors"
CAPTIONS = Path(__file__).parent / "data" / "captions.txt"


@pytest.fixture(scope="module")
def trained(small_flags, tmp_path_factory) -> Path:
    """The folder of two steps that a notebook has trained."""
    folder = tmp_path_factory.mktemp("trained")
    with white_pictures():
        train(**small_flags, use_lora=True, beta=500, max_train_steps=2, train_batch_size=2, output_dir=folder / "run")
    return folder / "run"


def test_a_notebook_trains(trained, pipe_dir):
    log = [json.loads(line) for line in (trained / "training_log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 2]
    pipe = DiffusionPipeline.from_pretrained(pipe_dir)
    pipe.load_lora_weights(trained)


def test_the_file_that_a_run_wrote_repeats_it_from_the_console(trained, tmp_path):
    with white_pictures():
        console.run(["train", "--config", str(trained / "config.yaml"), "--output_dir", str(tmp_path)])
    assert (tmp_path / "training_log.jsonl").read_text() == (trained / "training_log.jsonl").read_text()
    first, second = load_file(trained / LORA), load_file(tmp_path / LORA)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"rank": 0}, "--rank must be at least 1 "),
        ({"lora_rank": 8}, "there is no flag lora_rank; did you mean --rank"),
        ({"train_data_dir": "nowhere"}, "nowhere"),
        ({"pretrained_model_name_or_path": None}, "--pretrained_model_name_or_path takes a value, got nothing"),
    ],
)
def test_wrong_input_is_raised(small_flags, tmp_path, flags, sentence):
    with pytest.raises(UserError, match=sentence):
        train(**{**small_flags, "use_lora": True, "max_train_steps": 1, "output_dir": tmp_path / "model"} | flags)


def test_a_notebook_builds(tmp_path):
    negatives(captions_file=CAPTIONS, editor="rules", max_samples=20, preview=0, output_dir=tmp_path / "rows")
    assert list((tmp_path / "rows" / "data").glob("train-*.parquet"))
    with pytest.raises(UserError, match="captions_file"):
        negatives(captions_file=tmp_path / "nowhere.txt", editor="rules", output_dir=tmp_path / "other")


def test_a_notebook_judges(trained, pipe_dir, data_dir, tmp_path):
    with white_pictures():
        evaluate(
            pretrained_model_name_or_path=pipe_dir,
            models=[f"mine={trained}"],
            pairs=data_dir,
            resolution=tiny.RESOLUTION,
            strata=2,
            output_dir=tmp_path / "eval",
        )
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert results["about"]["command"].startswith(
        "diffusers-tpo evaluate --pretrained_model_name_or_path tiny --models "
    )
    with pytest.raises(UserError, match="nothing would be measured"):
        evaluate(pretrained_model_name_or_path=pipe_dir, output_dir=tmp_path / "other")


@pytest.mark.parametrize("command", ["train", "negatives", "evaluate"])
def test_a_misspelled_flag_is_one_sentence_in_every_command(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        console.run([command, "--output_dri", "x"])
    assert stopped.value.code == 2
    assert "error: there is no flag --output_dri; did you mean --output_dir?" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_through_the_launcher(small_flags, tmp_path):
    """`accelerate launch -m diffusers_tpo train`, as the help says, starts several processes so."""
    flags = small_flags | {"max_train_steps": 1, "train_batch_size": 2, "output_dir": tmp_path / "out"}
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        "-m",
        "diffusers_tpo",
    ]
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    environment = os.environ | {"PYTHONPATH": str(Path(diffusers_tpo.__file__).parents[1])}
    command = [*launch, "train", "--use_lora", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "2 x CPU" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / LORA).is_file()
