"""Prints which required packages are newer here than the tested ones of constraints.txt, and which newer release is kept back.

Run it with the Python of the environment to look at. Nothing to print is said too.
"""

import json
import subprocess
import sys
from importlib.metadata import version

from floors import SETUP, floors
from packaging.utils import canonicalize_name
from packaging.version import Version


def pinned() -> dict[str, str]:
    """The tested version of every package, by its canonical name."""
    lines = SETUP.with_name("constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): tested for name, _, tested in (line.partition("==") for line in lines) if tested}


def newest_releases() -> dict[str, str]:
    """The newest release of every package that is older here, whatever keeps it back."""
    command = [sys.executable, "-m", "pip", "list", "--outdated", "--format", "json"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {canonicalize_name(package["name"]): package["latest_version"] for package in told}


def differences() -> list[str]:
    """One line for each package that is not the tested one, or not the newest one."""
    tested, newest, lines = pinned(), newest_releases(), []
    for name in sorted(map(canonicalize_name, floors())):
        if name not in tested:
            continue  # an extra that is not part of `test`
        here = Version(version(name)).public  # torch adds the build
        if here != tested[name]:
            lines.append(f"{name} {here} is here, {tested[name]} is tested")
        if name in newest:
            lines.append(f"{name} {newest[name]} is kept back at {here}")
    return lines


if __name__ == "__main__":
    print("\n".join(differences()) or "every package has its tested version, and none is newer")
