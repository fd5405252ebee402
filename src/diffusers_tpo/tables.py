"""Tables of figures: as JSON that is kept and as Markdown that is read. Knows nothing of what they say."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .intervals import Interval
from .show import markdown_table


class Percent(Interval):
    """An interval that is shown times 100."""

    def __str__(self) -> str:
        return self.percent()


Cell = str | Interval


@dataclass(frozen=True)
class Table:
    """A table of texts and intervals.

    Args:
        rows: as many cells in each as in `header`.
    """

    header: list[str]
    rows: list[list[Cell]]

    def markdown(self) -> str:
        return markdown_table(self.header, [[str(cell) for cell in row] for row in self.rows])


def as_json(cell: Cell) -> str | dict:
    if isinstance(cell, str):
        return cell
    return vars(cell) | ({"percent": True} if isinstance(cell, Percent) else {})


def as_cell(value: str | dict) -> Cell:
    if isinstance(value, str):
        return value
    kind = Percent if value.get("percent") else Interval
    return kind(value["mean"], value["low"], value["high"])


def write_tables(path: Path, tables: Mapping[str, Table], **about: object) -> None:
    """Writes tables, and what is to be known of them: the command, date, machine, seeds. One row of a table is one line."""
    parts = [f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in about.items()]
    texts = []
    for name, table in tables.items():
        rows = [json.dumps([as_json(cell) for cell in row], ensure_ascii=False) for row in table.rows]
        lines = ",\n    ".join(rows)
        header = json.dumps(table.header, ensure_ascii=False)
        texts.append(f'  {json.dumps(name)}: {{\n   "header": {header},\n   "rows": [\n    {lines}\n   ]\n  }}')
    parts.append(' "tables": {\n' + ",\n".join(texts) + "\n }")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def read_tables(path: Path) -> dict[str, Table]:
    """The tables of a file that [`write_tables`] wrote, by name."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))["tables"]
    return {
        name: Table(content["header"], [[as_cell(value) for value in row] for row in content["rows"]])
        for name, content in found.items()
    }
