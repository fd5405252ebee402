"""Which versions are installed, and which of them do not fit together. Knows nothing of what the packages do."""

import importlib.metadata
import platform

from packaging.requirements import Requirement

from .version import __version__


PACKAGES = ("diffusers_tpo", "diffusers", "transformers", "accelerate", "datasets", "peft", "torch")


def version_of(name: str) -> str | None:
    """The installed version of a package; `None` if it is missing."""
    if name == "diffusers_tpo":
        return __version__  # of a clone that is not installed too
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> str:
    """Python and the packages that this project stands on, as a card names them."""
    packages = [f"{name} {version_of(name)}" for name in PACKAGES]
    return ", ".join([f"Python {platform.python_version()}", *packages])


def requirements_of(name: str) -> list[Requirement]:
    """What an installed package asks for here, without its extras; empty if it is missing."""
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = map(Requirement, lines)
    return [wanted for wanted in found if wanted.marker is None or wanted.marker.evaluate({"extra": ""})]


def misfits() -> list[str]:
    """One clause for each package whose version another one does not work with."""
    wanted = [(asking, requirement) for asking in PACKAGES for requirement in requirements_of(asking)]
    return [
        f"{asking} {version_of(asking)} wants {requirement.name}{requirement.specifier}, and {_found(requirement.name)}"
        for asking, requirement in wanted
        if not requirement.specifier.contains(version_of(requirement.name) or "", prereleases=True)
    ]


def _found(name: str) -> str:
    version = version_of(name)
    return f"{version} is installed" if version else "it is missing"
