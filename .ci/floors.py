"""Prints the lowest supported versions as pip constraints: every `name>=version` of setup.cfg as `name==version`."""

import configparser
import re
from pathlib import Path


SETUP = Path(__file__).parents[1] / "setup.cfg"


def floors(setup: Path = SETUP) -> dict[str, str]:
    """The floor of every package that setup.cfg requires, for the library itself or for one of its extras.

    Raises:
        ValueError: if a requirement has no floor, more than a floor and releases that are left out, or another floor elsewhere.
    """
    config = configparser.ConfigParser()
    config.read_string(setup.read_text())
    groups = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    found = {}
    for line in "\n".join(groups).split():
        if line.startswith(f"{config['metadata']['name']}["):
            continue  # other extras of the package itself
        match = re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,!=[\d.]+)*", line)
        if match is None:
            raise ValueError(f"setup.cfg: `{line}` must read `name>=version`")
        name, floor = match.groups()
        if found.setdefault(name, floor) != floor:
            raise ValueError(f"setup.cfg: {name} has two floors, {found[name]} and {floor}")
    return found


if __name__ == "__main__":
    print("\n".join(f"{name}=={floor}" for name, floor in sorted(floors().items())))
