"""What the wheel and the source archive hold, and the commands that an installed wheel gives."""

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "text_preference"
BUILD = "import sys, setuptools.build_meta as it; to = sys.argv[1]; it.build_wheel(to); it.build_sdist(to)"


def folders_of_the_package() -> set[str]:
    return {".".join(file.parent.relative_to(ROOT / "src").parts) for file in (ROOT / "src").rglob("*.py")}


def test_setup_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    assert listed == sorted(folders_of_the_package() | {"diffusers_tpo.scripts"})


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of the wheel and the archive, made in a copy: a build leaves files in its tree."""
    tree, target = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("built")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("src", "examples"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    done = subprocess.run([sys.executable, "-c", BUILD, target], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def wheel(built) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


def sources() -> set[str]:
    """Every file of the package and every script, by the name that an installed one has."""
    package = {
        file.relative_to(ROOT / "src").as_posix()
        for file in (ROOT / "src" / "diffusers_tpo").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    return package | {f"diffusers_tpo/scripts/{file.name}" for file in EXAMPLES.glob("*.py")}


def test_the_wheel_holds_the_package_its_data_and_the_scripts_and_nothing_else(wheel):
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == sources()
    assert {"diffusers_tpo/py.typed", "diffusers_tpo/publish/templates/model_card.md"} <= held


def test_the_archive_holds_what_the_wheel_is_made_of(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    files = {name.replace("diffusers_tpo/scripts/", "examples/text_preference/") for name in sources()}
    wanted = {name if name.startswith("examples/") else f"src/{name}" for name in files}
    assert wanted | {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= held


def test_the_wheel_has_one_console_command(wheel):
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    config = configparser.ConfigParser()
    config.read_string(wheel.read(name).decode())
    assert dict(config["console_scripts"]) == {"diffusers-tpo": "diffusers_tpo.commands.console:main"}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel's files in a folder of their own, as an installer leaves them."""
    folder = tmp_path_factory.mktemp("site")
    wheel.extractall(folder)
    return folder


def in_the_wheel(installed: Path, code: str, cwd: Path) -> str:
    """What code prints that imports the installed wheel instead of this repository."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_of_an_installed_wheel_run_its_own_scripts(installed, tmp_path):
    code = (
        "from diffusers_tpo.commands.scripts import SCRIPTS, find_script\n"
        "print(*(find_script(command) for command in SCRIPTS), sep='\\n')"
    )
    found = {Path(line) for line in in_the_wheel(installed, code, tmp_path).splitlines()}
    assert {path.parent for path in found} == {installed / "diffusers_tpo" / "scripts"}
    assert all(path.read_bytes() == (EXAMPLES / path.name).read_bytes() for path in found)


@pytest.mark.slow
def test_the_quickstart_runs_from_an_installed_wheel(installed, tmp_path):
    short = ["quickstart", "--output_dir", "quick", "--max_train_steps", "2", "--num_prompts", "2"]
    code = f"import sys; sys.argv[1:] = {short!r}; from diffusers_tpo.commands.console import main; main()"
    assert "| 1.5/aligned" in in_the_wheel(installed, code, tmp_path)
    assert (tmp_path / "quick" / "pytorch_lora_weights.safetensors").is_file()
