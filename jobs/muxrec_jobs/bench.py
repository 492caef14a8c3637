"""``muxrec bench pairs``: pair mining by Spark, plain Spark, DuckDB and numpy on one real log."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from muxrec.data.keys import id_keys
from muxrec.errors import DataError, MuxrecError
from muxrec.manifest import write_text_atomically
from muxrec_jobs.bench_engines import ENGINES, SETTINGS

ORACLE = "numpy, local engine"
HEAD = "<!-- written by `muxrec bench pairs`; do not edit -->\n\n"
CAVEAT = (
    "The log has no times: a user's row number stands for the time, so the order is the file's and "
    "the limit in days never binds. Every engine runs twice in a process of its own; CPU includes "
    "the JVM and Python workers. Numbers are printed only after all engines gave equal rows."
)


@click.command("pairs")
@click.option("--events", type=click.IntRange(min=1), default=1_000_000, show_default=True)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Parquet of (userID, movieID); default: $MUXREC_DATA/movielens-1m/pairs.parquet.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for Markdown and JSON.")
def pairs_bench(*, events: int, data: Path | None, out: Path | None) -> None:
    """Compare engines for pair mining: equal rows first, then CPU and wall seconds."""
    log = read_log(data or _default_log(), events=events)
    with tempfile.TemporaryDirectory(prefix="muxrec-bench-") as folder:
        path = Path(folder, "events.parquet")
        pq.write_table(log, path)
        runs = [run_engine(engine, path, Path(folder)) for engine in ENGINES]
        rows = refuse_differences(Path(folder))
    result = {
        "events": log.num_rows,
        "users": len(np.unique(log["user_key"])),
        "items": len(np.unique(log["item_key"])),
        "pairs": rows,
        "settings": vars(SETTINGS),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "caveat": CAVEAT,
        "engines": runs,
    }
    click.echo(markdown(result))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text_atomically(out / "bench-pairs.json", json.dumps(result, indent=1))
        write_text_atomically(out / "bench-pairs.md", HEAD + markdown(result))


def read_log(path: Path, *, events: int) -> pa.Table:
    """The first ``events`` rows as ``schemas.SLICED_EVENT`` and ``weight``.

    Raises:
        DataError: The file is missing or lacks the columns.
    """
    try:
        table = pq.read_table(path, columns=["userID", "movieID"]).slice(0, events)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: expected parquet with userID and movieID: {error}") from error
    user = id_keys(table["userID"].cast("string").to_pylist())
    item = id_keys(table["movieID"].cast("string").to_pylist())
    order = np.argsort(user, kind="stable")
    starts = np.searchsorted(user[order], user[order], side="left")
    time = np.empty(len(user), dtype=np.int64)
    time[order] = np.arange(len(user)) - starts
    columns = {"split": ["train"] * len(user), "user_key": user, "timestamp": time}
    return pa.table(columns | {"item_key": item, "weight": np.ones(len(user))})


def run_engine(engine: str, events: Path, folder: Path) -> dict[str, Any]:
    """Measures one engine in a fresh process.

    Raises:
        MuxrecError: The engine failed; its last line is quoted.
    """
    result = str(folder / f"{list(ENGINES).index(engine)}.parquet")
    command = [sys.executable, "-m", "muxrec_jobs.bench_engines", engine, str(events), result]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [
            line for line in done.stderr.splitlines() if "Error" in line or "Exception" in line
        ]
        raise MuxrecError(f"engine {engine} failed: {(lines or ['no message'])[-1].strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def refuse_differences(folder: Path) -> int:
    """Number of pairs, which all engines agree on to the last bit.

    Raises:
        MuxrecError: An engine's pairs differ from the oracle's.
    """
    tables = {name: pq.read_table(folder / f"{n}.parquet") for n, name in enumerate(ENGINES)}
    for name, table in tables.items():
        if not table.equals(tables[ORACLE]):
            rows = (table.num_rows, tables[ORACLE].num_rows)
            raise MuxrecError(f"{name} gives other pairs than {ORACLE} (rows {rows}): no numbers")
    return tables[ORACLE].num_rows


def markdown(result: dict[str, Any]) -> str:
    """The result as a table with its caveats."""
    counts = ", ".join(f"{result[name]:,} {name}" for name in ("events", "users", "items"))
    lines = [
        f"## Pair mining: {counts} -> {result['pairs']:,} equal pairs ({result['machine']})",
        "",
        "| engine | CPU s, start + first job | CPU s, warm job | wall s, start | first | warm |",
        "|---|---|---|---|---|---|",
    ]
    for run in result["engines"]:
        start, first, warm = (run["seconds"][phase] for phase in ("start", "first", "warm"))
        cpu = start["cpu"] + first["cpu"]
        walls = " | ".join(f"{phase['wall']:.1f}" for phase in (start, first, warm))
        lines.append(f"| {run['engine']} | {cpu:.1f} | {warm['cpu']:.1f} | {walls} |")
    return "\n".join([*lines, "", result["caveat"], ""])


def _default_log() -> Path:
    folder = os.environ.get("MUXREC_DATA")
    if not folder:
        raise DataError("set MUXREC_DATA to the folder that holds movielens-1m, or give --data")
    return Path(folder, "movielens-1m", "pairs.parquet")
