"""Measured tables as Markdown for docs/ and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

Cell = str | int | float


@dataclass(frozen=True)
class Table:
    """One table of results.

    Attributes:
        title: Heading.
        note: What was measured and how, in a sentence or two.
        columns: Names of the columns.
        rows: One tuple per line, as long as ``columns``.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def markdown(self) -> str:
        """The table as Markdown, numbers to three significant digits."""
        lines = [f"## {self.title}", "", self.note, "", _line(self.columns)]
        lines.append(_line(["---"] + ["---:"] * (len(self.columns) - 1)))
        lines += [_line([_text(cell) for cell in row]) for row in self.rows]
        return "\n".join(lines) + "\n"


def write_report(folder: Path, name: str, tables: Sequence[Table]) -> tuple[Path, Path]:
    """Write ``<name>.md`` and ``<name>.json`` into ``folder``; returns both paths.

    The Markdown replaces whatever stood there: prose belongs into another file.
    """
    machine = folder / f"{name}.json"
    markdown = write_markdown(folder, name, tables)
    found = [asdict(table) for table in tables]
    machine.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return markdown, machine


def write_markdown(folder: Path, name: str, tables: Sequence[Table]) -> Path:
    """Write ``<name>.md`` alone, for measurements that have a JSON file of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    markdown = folder / f"{name}.md"
    text = "\n".join(table.markdown() for table in tables)
    head = f"<!-- written by `muxrec bench {name.removeprefix('bench-')}`; do not edit -->\n\n"
    markdown.write_text(head + text, encoding="utf-8")
    return markdown


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else cell
