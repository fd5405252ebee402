"""The commands and configurations of the examples' README are ones that the programs take."""

import re
import shlex
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from transformers import HfArgumentParser

from diffusers_tpo import TPOConfig
from diffusers_tpo.training.arguments import DataArguments, ModelArguments, RunArguments, TrainingArguments
from diffusers_tpo.training.watch import EvaluationConfig


FOLDER = Path(__file__).parents[1] / "examples" / "text_preference"
GROUPS = (ModelArguments, DataArguments, TPOConfig, TrainingArguments, EvaluationConfig, RunArguments)
CONFIGS = sorted((FOLDER / "accelerate_configs").glob("*.yaml"))


def commands() -> list[str]:
    """Every launch of the training script in the README, its flags in one line."""
    blocks = re.findall(r"```bash\n(.*?)```", (FOLDER / "README.md").read_text(), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("train_text_to_image_tpo.py", 1)[1] for line in lines if "train_text_to_image_tpo.py" in line]


@pytest.mark.parametrize("flags", commands())
def test_the_readme_s_commands_have_flags_that_exist(flags):
    groups = HfArgumentParser(GROUPS).parse_args_into_dataclasses(shlex.split(flags))
    assert groups[-1].output_dir != RunArguments.output_dir  # two recipes do not overwrite each other


def test_there_are_recipes():
    assert len(commands()) >= 8


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_takes_the_configurations(path):
    config = load_config_from_file(str(path))
    assert (
        config.distributed_type.value
        == {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED"}[path.stem]
    )
    assert path.name in (FOLDER / "README.md").read_text()


def test_every_flag_is_explained():
    text = (FOLDER / "README.md").read_text()
    flags = [f"--{name}" for group in GROUPS for name in group.__dataclass_fields__]
    assert [flag for flag in flags if f"`{flag}`" not in text] == []
