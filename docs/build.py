#!/usr/bin/env python
"""Builds these pages with Hugging Face's doc-builder (`pip install hf-doc-builder`) into outputs/docs.

    python docs/build.py

On GitHub a link names a file, as in `training.md#models`; the built pages have other addresses. So the pages are copied, links between them lose
their ending, and links to other files of the repository lead to its address in setup.cfg.
"""

import configparser
import re
import shutil
import subprocess
import tempfile
from pathlib import Path


DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
LINK = re.compile(r"(?<!!)\[([^\]\[]*)\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")


def repository() -> str:
    """The address of the repository."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    addresses = dict(line.split(" = ") for line in setup["metadata"]["project_urls"].split("\n") if line)
    return addresses["Source"]


def built_links(text: str, source: str) -> str:
    """A page whose links work where doc-builder puts it."""

    def built(match: re.Match) -> str:
        words, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        if "/" not in target and target.endswith(".md"):
            return f"[{words}]({target.removesuffix('.md')}{anchor})"
        path = (DOCS / target).resolve().relative_to(ROOT)
        return f"[{words}]({source}/blob/main/{path}{anchor})"

    return LINK.sub(built, text)


def main() -> None:
    source = repository()
    with tempfile.TemporaryDirectory() as folder:
        pages = Path(folder) / "docs"
        pages.mkdir()
        for page in DOCS.glob("*.md"):
            (pages / page.name).write_text(built_links(page.read_text(encoding="utf-8"), source), encoding="utf-8")
        for other in [DOCS / "_toctree.yml", *DOCS.glob("*.png"), *DOCS.glob("*.ipynb")]:
            shutil.copy(other, pages)
        target = ROOT / "outputs" / "docs"
        owner, name = source.split("/")[-2:]
        command = ["doc-builder", "build", "diffusers_tpo", str(pages), "--build_dir", str(target), "--clean"]
        command += ["--repo_owner", owner, "--repo_name", name, "--version", "main"]
        subprocess.run(command, check=True)
    print(f"In {target}: the pages as doc-builder makes them")


if __name__ == "__main__":
    main()
