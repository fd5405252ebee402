"""What a user meets in the first hour: advice in messages, the bar, the summary, and what is kept quiet."""

import importlib.util
import inspect
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import tiny
import torch
from accelerate.utils import convert_bytes

from diffusers_tpo import quiet
from diffusers_tpo.data.rows import Columns, check_columns
from diffusers_tpo.errors import UserError
from diffusers_tpo.families import FAMILIES, StableDiffusion
from diffusers_tpo.families.tokens import TokenReader
from diffusers_tpo.models.adapters import add_lora, lora_state
from diffusers_tpo.training.progress import Progress, shown


@pytest.mark.parametrize("column", ["prompt", "text", "caption"])
def test_a_data_set_without_mismatched_prompts_leads_to_the_builder(column):
    rows = tiny.make_dataset(2, negative_prompts=None).rename_columns({"prompt": column} if column != "prompt" else {})
    with pytest.raises(
        UserError, match="--negative_prompts_column 'negative_prompts' is not a column .* it has image"
    ) as error:
        check_columns(rows, Columns(), "tdpo", name="me/my pictures")
    assert str(error.value).endswith(
        f": diffusers-tpo negatives --dataset_name 'me/my pictures' --caption_column {column} --editor rules --output_dir "
        "'my pictures-negatives'"
    )


def test_the_bar_shows_the_preference_loss_apart_from_the_anchor():
    row = {"loss": 12.6931, "preference_loss": 0.693147, "anchor": 12.0, "reward/margin": 0.0, "lr": 1e-5}
    assert shown(row) == {"preference_loss": "0.6931", "anchor": "12", "reward/margin": "0"}
    assert shown({"loss": 0.25, "lr": 1e-5}) == {"loss": "0.25"}


# Quiet


@pytest.fixture
def heard(monkeypatch):
    """The messages that get through the filters, with filters as of a process that has said nothing yet."""
    for name in (*quiet.NEVER, *quiet.CUTTING):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    quiet.install()
    quiet.install()
    messages = []

    class Ear(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    ear = Ear()
    for name in ("diffusers", "transformers"):
        logging.getLogger(name).addHandler(ear)
    yield messages
    for name in ("diffusers", "transformers"):
        logging.getLogger(name).removeHandler(ear)


def test_a_lora_of_the_denoiser_alone_loads_without_a_warning(heard):
    pipe = tiny.make_pipe()
    add_lora(pipe.unet, ("to_q",), rank=2)
    state = {f"unet.{key}": value for key, value in lora_state(pipe.unet).items()}
    other = tiny.make_pipe()
    other.load_lora_weights(state)
    assert not heard
    other.unet.load_lora_adapter({"transformer.x.lora_A.weight": torch.zeros(2, 2)}, prefix="unet")
    assert "No LoRA keys associated to UNet2DConditionModel" in heard[0]  # which does matter


def test_prompts_that_clip_cuts_are_said_once(heard):
    pipe = tiny.make_pipe()
    for number in range(3):
        pipe.encode_prompt(f"{number} " + "red cat " * 60, "cpu", 1, False)
    assert len(heard) == 1 and "truncated" in heard[0] and "first such prompt only" in heard[0]


@pytest.mark.parametrize("pipeline", FAMILIES)
def test_every_pipeline_that_says_what_it_cuts_is_known(pipeline):
    says_so = quiet.CUT in Path(inspect.getsourcefile(pipeline)).read_text()
    assert says_so == (pipeline.__module__ in quiet.CUTTING)


def test_the_phrases_are_those_that_the_libraries_say():
    for name, phrase in quiet.NEVER.items():
        source = Path(importlib.util.find_spec(name).origin).read_text()
        assert phrase in source


# What a run is about to do


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_says_what_would_run_makes_one_image_and_trains_nothing(run_script, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("diffusers_tpo.training.progress.Progress.begin", None)
    flags = {
        "use_lora": True,
        "train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_train_steps": 6,
        "checkpointing_steps": 4,
        "num_mismatched": 2,
        "validation_prompt": ["cat", "red dog"],
        "output_dir": tmp_path / "run",
    }
    run_script(dry_run=True, **flags)
    told = next(record.getMessage() for record in caplog.records if "Running training" in record.getMessage())
    facts = dict(re.findall(r"^  (\w[\w ]*?)  +(.+)$", told, re.MULTILINE))
    assert facts["rows"] == "8"
    assert facts["images per step"] == "4 (2 a pass, 2 passes, 1 process), with 3 prompts each"
    assert facts["optimizer steps"] == "6, of which 2 go through the data once"
    assert facts["reference"] == "the base, which is the same network with the LoRA switched off"
    trained = int(re.search(r"a LoRA of unet: ([\d,]+) parameters", facts["trained"])[1].replace(",", ""))
    pipe = tiny.make_pipe()
    add_lora(pipe.unet, StableDiffusion().lora_targets, rank=4)
    assert trained == sum(weight.numel() for weight in pipe.unet.parameters() if weight.requires_grad)
    assert facts["disk"].startswith(f"2 checkpoints of {convert_bytes(12 * trained)}, ")
    assert f"{convert_bytes(12 * trained)} of gradients and optimizer" in facts["memory"]
    assert files_below(tmp_path / "run") - {".run.lock"} == {"dry_run/step-0/0-0.png", "dry_run/step-0/settings.json"}
    monkeypatch.undo()
    run_script(**flags | {"max_train_steps": 1, "validation_prompt": None})  # nothing of it is in the way


def test_a_dry_run_reads_images_and_refuses_those_that_are_broken(refused, tmp_path):
    rows = tiny.make_dataset(2)
    broken = rows.cast_column("image", datasets.Image(decode=False)).map(
        lambda _: {"image": {"bytes": b"x", "path": None}}
    )
    broken.save_to_disk(tmp_path / "rows")
    message = refused(dry_run=True, train_data_dir=str(tmp_path / "rows"), train_batch_size=2)
    assert "row" in message and "image" in message


def begun(last_step: int, first_step: int = 0) -> Progress:
    """A run that is about to make the step after `first_step`."""
    progress = Progress.__new__(Progress)
    progress.step = progress.first_step = first_step
    progress.last_step = last_step
    progress.bar = SimpleNamespace(update=lambda: None)
    progress.accelerator = SimpleNamespace(is_main_process=True)
    return progress


@pytest.mark.parametrize(("first", "last", "rest"), [(0, 513, "0:16:40"), (100, 163, "0:01:40")])
def test_how_long_the_rest_will_take_is_said_once(first, last, rest, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    progress = begun(last, first)
    times = iter(range(0, 10**6, 20))
    monkeypatch.setattr("time.monotonic", lambda: next(times))  # is asked at two steps
    for _ in range(first, last):
        progress.advance()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == f"2 s a step: about {rest} (h:mm:ss) for the other {last - first - 13:,} steps"


def test_of_a_short_run_no_rest_is_foretold(caplog):
    caplog.set_level(logging.INFO)
    progress = begun(26)
    for _ in range(26):
        progress.advance()
    assert not caplog.records


def test_prompts_that_are_cut_are_counted():
    pipe = tiny.make_pipe()
    tokens = TokenReader(pipe, StableDiffusion())
    longest = pipe.tokenizer.model_max_length
    fits, too_long = " ".join("a" * (longest - 2)), " ".join("a" * (longest - 1))
    short, full = tokens(["a", fits])
    assert short != full and not tokens.about_cut()
    assert tokens([too_long, "b"])[0] == full
    assert tokens.about_cut() == {
        "prompts": f"of 4 are 1 longer than {longest} tokens, which a text encoder does not read further"
    }
