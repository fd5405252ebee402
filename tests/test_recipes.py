"""The commands that the documents print are ones that the programs take."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.commands.scripts import SCRIPTS


ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "text_preference"
CONFIGS = sorted((FOLDER / "accelerate_configs").glob("*.yaml"))
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *FOLDER.glob("*.md"),
    *(ROOT / "dataset_cards").glob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
]
FLAGGED = {*SCRIPTS.values(), "study_shapes.py"} - {"quickstart.py"}  # the others have a parser of their own
groups_of = runpy.run_path(str(ROOT / "docs" / "flags.py"))["groups_of"]


def lines(text: str) -> list[str]:
    """What a reader would type, each command in one line and without its comment."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    return [line for line in blocks.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


def launches(text: str) -> list[tuple[str, list[str]]]:
    """The scripts that a text launches, by file name or through the console door, each with its flags."""
    found = []
    for line in lines(text):
        words = shlex.split(line, comments=True)
        for place, word in enumerate(words):
            script = Path(word).name if word.endswith(".py") else None
            if word == "diffusers-tpo":
                place += 1
                script = SCRIPTS.get(words[place])
            if script is not None and word != "--config":
                found.append((script, words[place + 1 :]))
                break
    return found


LAUNCHES = [
    pytest.param(script, words, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, (script, words) in enumerate(launches(page.read_text()))
]


def test_the_reader_of_commands_finds_scripts_and_flags():
    text = "```bash\npip install .\nexport A=1\npython x/evaluate.py --a 1 \\\n  --b 'c d'  # why\ndiffusers-tpo train --e\n```"
    assert launches(text) == [
        ("evaluate.py", ["--a", "1", "--b", "c d"]),
        ("train_text_to_image_tpo.py", ["--e"]),
    ]


def test_there_are_launches_of_every_command():
    assert {launch.values[0] for launch in LAUNCHES} >= FLAGGED
    assert len(LAUNCHES) > 25


@pytest.mark.parametrize("script, words", LAUNCHES)
def test_a_printed_command_has_flags_that_exist(script, words):
    path = next(path for folder in (FOLDER, ROOT / "benchmarks", ROOT / "docs") if (path := folder / script).is_file())
    if path.parent == FOLDER and (groups := groups_of(path)):
        parse_flags(*groups, argv=words)
    else:  # a program with flags of its own
        source = path.read_text()
        for word in words:
            assert not word.startswith("--") or f'"{word.partition("=")[0]}"' in source


def test_two_recipes_do_not_write_into_one_folder():
    folders = [
        words[words.index("--output_dir") + 1] for _, words in launches((ROOT / "docs" / "recipes.md").read_text())
    ]
    assert len(folders) == len(set(folders)) > 8


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_takes_the_configurations(path):
    config = load_config_from_file(str(path))
    assert (
        config.distributed_type.value
        == {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED"}[path.stem]
    )
    assert path.name in (ROOT / "docs" / "recipes.md").read_text()


def test_every_flag_that_a_page_names_exists():
    known = {
        "--config",
        "--version",
        "--help",
        "--quiet",
        "--config_file",
        "--num_processes",
        "--constraint",
        "--output_dir",
    }
    for script in FLAGGED:
        known |= {f"--{name}" for group in groups_of(FOLDER / script) for name in group.__dataclass_fields__}
    unknown = {
        f"{page.name}: {flag}"
        for page in PAGES
        for flag in re.findall(r"`(--\w+)[^`]*`", page.read_text())
        if flag not in known and page.parent.name != "benchmarks"
    }
    assert not unknown
