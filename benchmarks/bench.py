#!/usr/bin/env python
"""Measures every figure and writes benchmarks/results.md and results.json.

    python benchmarks/bench.py [speed script ...]

With names, only these modules are measured again; the others keep their figures, with their machine and date.
"""

import argparse
import datetime
import importlib
import json
import multiprocessing
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import models
import torch
from timing import is_met

from diffusers_tpo.show import markdown_table


MODULES = {"speed": {}, "script": {}, "scaling": {"max_rows": 100_000}, "evaluation": {}}  # arguments of its `figures`
HEADER = ["figure", "measured against", "ratio", "target", "met"]
FOLDER = Path(__file__).parent
INTRO = """# Results

`make bench` writes this file and `results.json`; [README.md](README.md) says what the figures mean. A ratio is one of medians
(of means where data is waited for) of calls in turn; in brackets the 95 % bootstrap interval over the rounds, in `scaling` and
`evaluation` the least and the largest ratio of a round.
"""


def measure(name: str) -> dict:
    """The figures of a module with where and when they were measured."""
    began = time.perf_counter()
    figures = importlib.import_module(name).figures(**MODULES[name])
    seconds = round(time.perf_counter() - began)
    return {"machine": machine(), "date": str(datetime.date.today()), "seconds": seconds, "figures": figures}


def machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cpu_name()}, {os.cpu_count()} cores"
    versions = [f"{package} {version(package)}" for package in ("torch", "diffusers")]
    return ", ".join([device, f"{torch.get_num_threads()} threads", *versions, f"Python {platform.python_version()}"])


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def as_markdown(results: dict[str, dict], proportions: dict[str, str]) -> str:
    parts = [INTRO]
    for name, result in results.items():
        table = markdown_table(HEADER, [table_row(figure) for figure in result["figures"]])
        about = f"{result['machine']}; {result['date']}, {result['seconds']} s"
        parts.append(f"## {name}\n\n{about}\n\n{table}\n")
        if shares := {figure["name"]: figure["shares"] for figure in result["figures"] if "shares" in figure}:
            parts.append(f"Share of each part in the time of the script's loop:\n\n{share_table(shares)}\n")
    counted = [f"- {name}: {each}" for name, each in proportions.items()]
    return "\n".join([*parts, "## Models\n", *counted, ""])


def table_row(figure: dict) -> list[str]:
    numbers = [f"{figure[key]:.3g}" for key in ("ratio", "low", "high")]
    met = {None: "", True: "yes", False: "**no**"}[is_met(figure)]
    return [figure["name"], figure["rival"], "{} [{}, {}]".format(*numbers), figure["target"] or "", met]


def share_table(shares: dict[str, dict[str, float]]) -> str:
    parts = list(dict.fromkeys(part for row in shares.values() for part in row))
    names = [name.rpartition("denoiser, ")[2] for name in shares]
    rows = [[part, *(f"{row.get(part, 0):.1%}" for row in shares.values())] for part in parts]
    return markdown_table(["part", *names], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", choices=[[], *MODULES], help="all by default")
    names = parser.parse_args().modules or list(MODULES)
    file = FOLDER / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    proportions = {name: models.proportions(*how) for name, how in models.COUNTED.items()}
    for name in names:  # each in a process of its own
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            results[name] = pool.submit(measure, name).result()
        for figure in results[name]["figures"]:
            print(*table_row(figure), sep="\t", flush=True)
        results = {name: results[name] for name in MODULES if name in results}
        file.write_text(json.dumps(results, indent=1) + "\n")
        (FOLDER / "results.md").write_text(as_markdown(results, proportions))


if __name__ == "__main__":
    main()
