"""``muxrec methods``: the table methods, one line each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click

from muxrec.tables.catalogue import EXAMPLE, MethodFacts, method_facts

COLUMNS = ("method", "paper", "ids", "probes", "arrays", "stages", "size", "train", "serve")
NOTE = (
    "train: the first stage, with optimiser state; train and serve: without the dictionary of the "
    "known ids (about 14 bytes per id)"
)
NUMBERS = {"arrays", "train", "serve"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def methods(*, as_json: bool) -> None:
    """Table methods: paper, ids they answer, physical arrays, stages, what a budget sets, bytes."""
    found = method_facts()
    if as_json:
        click.echo(json.dumps([asdict(facts) for facts in found], indent=1, ensure_ascii=False))
        return
    for line in _aligned([COLUMNS, *map(_cells, found)]):
        click.echo(line)
    click.echo(f"\n{EXAMPLE}\n{NOTE}")


def _cells(facts: MethodFacts) -> tuple[str, ...]:
    limit = "<" if facts.is_found else ""
    return (
        facts.name,
        facts.paper,
        "any" if facts.is_open else "known",
        "yes" if facts.probes else "",
        str(facts.tables),
        ", ".join(facts.stages),
        facts.size or ("searched" if facts.is_found else "fixed"),
        f"{facts.training:.1f}",
        f"{limit}{facts.serving:.1f}",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns two blanks apart; numbers end and words begin at the same place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(COLUMNS, row, widths, strict=True)
        parts = [c.rjust(w) if name in NUMBERS else c.ljust(w) for name, c, w in cells]
        lines.append("  ".join(parts).rstrip())
    return lines
