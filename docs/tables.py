#!/usr/bin/env python
"""Writes the tables of these pages and of SECURITY.md from the figures in results/, between lines such as `<!-- table: shapes_main/aligned -->` and `<!-- end -->`.

    python docs/tables.py [--check]

The studies and benchmarks write such files; put one into results/ in place of the old one, and run this.
"""

import argparse
import re
import sys
from pathlib import Path

from diffusers_tpo.tables import read_tables


DOCS = Path(__file__).resolve().parent
PAGES = [DOCS.parent / "SECURITY.md", *sorted(DOCS.glob("*.md"))]
PLACE = re.compile(r"(<!-- table: (\w+)/(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """A page with its tables as the figures say."""

    def table(match: re.Match) -> str:
        before, file, name, after = match.groups()
        return f"{before}{read_tables(DOCS / 'results' / f'{file}.json')[name].markdown()}\n{after}"

    return PLACE.sub(table, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not current")
    args = parser.parse_args()
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        if page == filled(page):
            continue
        if args.check:
            sys.exit(f"{path.name} is not current: run python docs/tables.py")
        path.write_text(filled(page), encoding="utf-8")


if __name__ == "__main__":
    main()
