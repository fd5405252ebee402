"""setup.cfg alone declares the lowest supported versions, what else names a version agrees, and deprecations are errors."""

import logging
import runpy
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
from diffusers.utils import deprecate
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


ROOT = Path(__file__).parents[1]
UNTESTED = {"diffsynth", "sentence-transformers"}  # extras that are not part of `test`

read_floors = runpy.run_path(str(ROOT / ".ci" / "floors.py"))["floors"]


@pytest.fixture(scope="module")
def floors() -> dict[str, Version]:
    return {canonicalize_name(name): Version(floor) for name, floor in read_floors().items()}


def requirements(path: Path) -> dict[str, Requirement]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(found.name): found for found in map(Requirement, lines)}


def test_tested_versions_are_at_least_the_floors(floors):
    pinned = {
        name: Version(str(found.specifier)[2:]) for name, found in requirements(ROOT / "constraints.txt").items()
    }
    assert floors.keys() - pinned.keys() == UNTESTED
    assert not {name for name in floors.keys() & pinned.keys() if pinned[name] < floors[name]}


def test_the_example_asks_for_the_floors(floors):
    found = requirements(ROOT / "examples" / "text_preference" / "requirements.txt")
    assert {name: str(wanted.specifier) for name, wanted in found.items()} == {
        name: f">={floors[name]}" for name in found
    }


def test_what_is_installed_is_supported(floors):
    assert not {name for name in floors.keys() - UNTESTED if Version(version(name)) < floors[name]}


@pytest.mark.parametrize(
    "line, message",
    [
        ("torch", "`torch` must read"),
        ("torch==2", "`torch==2` must read"),
        ("numpy>=1.0", "numpy has two floors, 2.0 and 1.0"),
    ],
)
def test_a_requirement_without_one_floor_is_refused(line, message, tmp_path):
    setup = tmp_path / "setup.cfg"
    setup.write_text(
        "[metadata]\nname = us\n[options]\ninstall_requires =\n    numpy>=2.0\n"
        f"[options.extras_require]\nall = us[test]\ntest =\n    {line}\n"
    )
    with pytest.raises(ValueError, match=message):
        read_floors(setup)


@pytest.mark.parametrize(
    "module", ["diffusers_tpo", "diffusers_tpo.evaluation.plots", "__main__", "test_data", "tiny_newer"]
)
@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning, PendingDeprecationWarning])
def test_a_deprecated_call_of_ours_is_an_error(module, category):
    with pytest.raises(category, match="old"):
        warnings.warn_explicit("old", category, "file.py", 1, module)


def test_a_deprecation_inside_another_library_is_not_an_error():
    with pytest.warns(DeprecationWarning, match="old"):
        warnings.warn_explicit("old", DeprecationWarning, "file.py", 1, "torch.jit")


def test_what_diffusers_deprecates_is_an_error():
    with pytest.raises(FutureWarning, match="use another"):
        deprecate("argument", "99.0", "use another")


@pytest.mark.parametrize("library", ["diffusers.models.unets", "transformers.modeling_utils"])
def test_a_deprecation_that_is_only_logged_is_an_error(library):
    with pytest.raises(DeprecationWarning, match="argument"):
        logging.getLogger(library).warning("`argument` is deprecated")
