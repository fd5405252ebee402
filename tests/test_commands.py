"""`diffusers-tpo` on the console and in Python: which script runs, with which words, and what it leaves behind."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from diffusers_tpo import __version__, versions
from diffusers_tpo.commands import console, environment, scripts
from diffusers_tpo.errors import UserError
from diffusers_tpo.models import adapters


ROOT = Path(__file__).parents[1]
SCRIPT = '''
"""Says what it was given.

    python small.py --number 3
"""

import json
import sys
from dataclasses import dataclass

from accelerate import Accelerator

from diffusers_tpo.commands.parsing import parse_flags
from diffusers_tpo.errors import UserError, exit_on_user_error
from diffusers_tpo.flags import AtLeastOne, flag


@dataclass
class Numbers:
    """The numbers."""

    number: AtLeastOne = flag(help="Any.")
    names: list[str] = flag([], "Of things.")


@dataclass
class Run:
    """How it ends."""

    is_wrong: bool = flag(False, "Not to be mended here.")
    code: int = flag(0, "Exit code.")
    output: str = flag("said.json", "What it was given.")


def main(numbers: Numbers, run: Run):
    if run.is_wrong:
        raise UserError("--is_wrong is wrong; leave it out")
    accelerator = Accelerator(mixed_precision="bf16")
    said = {"argv": sys.argv, "module": __name__, "number": numbers.number, "names": numbers.names}
    with open(run.output, "w") as file:
        json.dump(said | {"precision": accelerator.mixed_precision}, file)
    if run.code:
        sys.exit(run.code)


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_flags(Numbers, Run, description=__doc__))
'''


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A command `small`, in the place of the others."""
    (tmp_path / "small.py").write_text(SCRIPT.lstrip())
    monkeypatch.setattr(scripts, "FOLDERS", (tmp_path / "nowhere", tmp_path))
    monkeypatch.setattr(scripts, "SCRIPTS", {"small": "small.py"})
    monkeypatch.setattr(console, "SCRIPTS", scripts.SCRIPTS)
    monkeypatch.delitem(sys.modules, "diffusers_tpo.scripts.small", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda: json.loads((tmp_path / "said.json").read_text())


def test_the_help_names_every_command_and_what_it_does(capsys):
    console.run([])
    told = capsys.readouterr().out
    console.run(["--help"])
    assert capsys.readouterr().out == told
    for command in (*scripts.SCRIPTS, "env"):
        assert f"\n  {command} " in told
    assert "Fine-tunes a text-to-image model" in told and "accelerate launch -m diffusers_tpo train" in told


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("trian", "did you mean train?"),
        ("neg", "did you mean negatives or negatives-at-scale?"),
        ("--rank", "it has train, "),
    ],
)
def test_a_command_that_does_not_exist(word, advice):
    with pytest.raises(UserError, match=f"diffusers-tpo has no command '{word}'; {advice}".replace("?", r"\?")):
        console.run([word])


@pytest.mark.parametrize("name", scripts.SCRIPTS.values())
def test_the_help_breaks_an_example_where_the_script_does(name):
    told = ast.get_docstring(ast.parse((ROOT / "examples" / "text_preference" / name).read_text()))
    assert not re.search(r"\S {2,}\S", told)  # a line end that only the source has


def test_version(capsys):
    console.run(["--version"])
    assert capsys.readouterr().out == f"diffusers_tpo {__version__}\n"


def test_a_wrong_command_ends_the_program_with_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["diffusers-tpo", "trian"])
    with pytest.raises(SystemExit) as stopped:
        console.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "\nerror: diffusers-tpo has no command 'trian'; did you mean train?\n"


def test_the_module_is_the_program_and_starts_without_torch(tmp_path):
    """As `accelerate launch -m diffusers_tpo` starts it."""
    code = "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_module('diffusers_tpo', run_name='__main__'); print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: diffusers-tpo COMMAND"), done.stderr
    assert not {"torch", "diffusers", "transformers", "accelerate"} & set(done.stdout.split("\n")[-2].split())


def test_a_command_runs_its_script_as_a_program(small, capsys):
    argv = list(sys.argv)
    console.run(["small", "--number", "3", "--names", "a", "b"])
    said = small()
    assert said["argv"] == ["diffusers-tpo small", "--number", "3", "--names", "a", "b"]
    assert (said["module"], said["number"], said["names"]) == ("__main__", 3, ["a", "b"])
    assert sys.argv == argv
    with pytest.raises(SystemExit) as stopped:
        console.run(["small", "--numbr", "3"])
    assert stopped.value.code == 2
    assert "error: there is no flag --numbr; did you mean --number?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        console.run(["small", "--help"])
    told = capsys.readouterr().out
    assert told.startswith("usage: diffusers-tpo small [") and "Says what it was given." in told


def test_a_command_is_called_from_python(small):
    argv = list(sys.argv)
    scripts.call("small", {"number": 3, "names": ["a", "-b"]})
    said = small()
    assert said["argv"] == ["diffusers-tpo small", "--number", "3", "--names", "a", "-b"]
    assert (said["module"], said["number"], said["names"]) == ("diffusers_tpo.scripts.small", 3, ["a", "-b"])
    assert sys.argv == argv


def test_what_python_gives_is_checked_and_raised(small):
    with pytest.raises(UserError, match="^--number must be at least 1, got 0$"):
        scripts.call("small", {"number": 0})
    with pytest.raises(UserError, match="^there is no flag numbr; did you mean --number"):
        scripts.call("small", {"numbr": 0})
    with pytest.raises(UserError, match="^--is_wrong is wrong; leave it out$"):
        scripts.call("small", {"number": 1, "is_wrong": True})


def test_an_early_end_is_an_error_in_python(small):
    with pytest.raises(RuntimeError, match="small ended early, with exit code 3"):
        scripts.call("small", {"number": 1, "code": 3})
    assert small()["number"] == 1


def test_a_call_leaves_accelerate_as_it_was(small):
    mine = Accelerator(mixed_precision="no")
    scripts.call("small", {"number": 1})
    assert small()["precision"] == "bf16"
    assert mine.mixed_precision == AcceleratorState().mixed_precision == "no"


def test_a_package_without_its_scripts_says_so(small, monkeypatch):
    monkeypatch.setattr(scripts, "FOLDERS", ())
    with pytest.raises(UserError, match="the script of diffusers-tpo small is not installed"):
        console.run(["small"])


def test_env_says_what_a_bug_report_needs_and_nothing_private(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    console.run(["env"])
    told = capsys.readouterr().out
    for fact in ("Python: 3.", f"diffusers_tpo: {__version__}", "torch: ", "accelerator: ", "memory ", "do not fit: "):
        assert f"- {fact}" in told or fact in told
    assert "hf_secret" not in told and str(Path.home()) not in told and sys.prefix not in told
    assert os.uname().nodename not in told.replace("Linux", "")


def test_packages_that_do_not_fit_together_are_named(monkeypatch):
    installed = {"peft": "0.1.0", "transformers": "9.0"}
    monkeypatch.setattr(
        versions, "requirements_of", lambda name: [versions.Requirement("peft>=0.18")][: name == "diffusers_tpo"]
    )
    monkeypatch.setattr(versions, "version_of", lambda name: installed.get(name, "1.0"))
    assert versions.misfits() == ["diffusers_tpo 1.0 wants peft>=0.18, and 0.1.0 is installed"]
    installed["peft"] = None
    assert versions.misfits() == ["diffusers_tpo 1.0 wants peft>=0.18, and it is missing"]
    installed["peft"] = "0.20.dev0"
    assert versions.misfits() == []


def test_a_pair_that_is_found_only_in_use_is_named_too(monkeypatch):
    monkeypatch.setattr(adapters, "MIN_PEFT_VERSION", "99.0")
    assert any("needs peft 99.0 or newer with transformers" in problem for problem in environment.problems())


def test_what_is_installed_here_fits_together():
    assert environment.problems() == []
