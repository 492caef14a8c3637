"""The data job: raw logs and a catalogue in, one published dataset snapshot out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyspark
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

import muxrec
from muxrec.data.snapshot import FORMAT_VERSION, KIND, Snapshot, point_to
from muxrec.errors import MuxrecError
from muxrec.manifest import digest_of, seal
from muxrec.recipe.load import output_folder, recipe_hash
from muxrec.recipe.model import Recipe
from muxrec.spec.hashing import HASH_VERSION
from muxrec_jobs.inputs import fingerprints
from muxrec_jobs.publish import building_folder, data_fault, full_disk, prune, publish
from muxrec_jobs.session import spark_session
from muxrec_jobs.sources import READERS
from muxrec_jobs.stages import Stages
from muxrec_jobs.steps import Sliced, checked_input, sliced_events, write_tables

STAGES = 7
DIGEST_LENGTH = 12


@dataclass(frozen=True)
class Request:
    """What one build is asked for.

    Attributes:
        day: As-of date; None for the day of the last event.
        lookback_days: Days up to the end of the as-of date that count; None for the recipe's.
        rebuild: Build even where inputs, recipe and versions are those of the current snapshot.
        keep: Runs kept per day; None keeps all.
        may_go_back: Whether the root's ``CURRENT`` may move to an older day.
        now: Seconds since 1970 after which an event is a mistake; None for the clock.
    """

    day: date | None = None
    lookback_days: int | None = None
    rebuild: bool = False
    keep: int | None = None
    may_go_back: bool = True
    now: int | None = None


@dataclass(frozen=True)
class Built:
    """Outcome of a build.

    Attributes:
        snapshot: The published snapshot.
        status: ``built``, ``same`` (built again, same content) or ``unchanged`` (nothing to do).
        seconds: Stage -> seconds.
        removed: Runs that retention removed.
    """

    snapshot: Snapshot
    status: str
    seconds: dict[str, float] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


def build_dataset(recipe: Recipe, request: Request | None = None) -> Built:
    """Builds the dataset snapshot of ``recipe`` and points ``CURRENT`` to it.

    Args:
        recipe: ``data`` decides the content, ``output`` or the name where it goes.
        request: As-of date and how to go about it; None for the defaults.

    Raises:
        DataError: Input is missing, empty or too broken (``data.max_rejected``); a slice is empty.
        MuxrecError: Java is missing, or the disk is full; the last snapshot is as it was.
    """
    request = request or Request()
    root = output_folder(recipe) / "dataset"
    plan = _plan(recipe, request)
    current = None if request.rebuild else _unchanged(root, request, plan)
    if current is not None:
        _point(current.folder, request)
        return Built(current, "unchanged")
    root.mkdir(parents=True, exist_ok=True)
    stages = Stages(STAGES, title=f"data {recipe.name}")
    try:
        with spark_session() as spark:
            return _build(spark, recipe, request, root=root, plan=plan, stages=stages)
    except (PySparkException, Py4JError, OSError) as error:
        raise full_disk(error, root) or data_fault(error, stage=stages.current) from error
    finally:
        stages.close()


def _plan(recipe: Recipe, request: Request) -> dict[str, Any]:
    """What decides a snapshot's content; equal plans need no second build."""
    return {
        "recipe_hash": recipe_hash(recipe, "data"),
        "request": {
            "day": request.day.isoformat() if request.day else None,
            "lookback_days": request.lookback_days,
        },
        "sources": fingerprints(READERS[recipe.data.source.kind].paths(recipe.data.source)),
        "versions": {"muxrec": muxrec.__version__, "pyspark": pyspark.__version__},
    }


def _unchanged(root: Path, request: Request, plan: dict[str, Any]) -> Snapshot | None:
    day = root / f"dt={request.day}" if request.day else root
    try:
        current = Snapshot.open(day)
    except MuxrecError:
        return None
    return current if all(current.manifest.get(k) == v for k, v in plan.items()) else None


def _build(
    spark: SparkSession,
    recipe: Recipe,
    request: Request,
    *,
    root: Path,
    plan: dict[str, Any],
    stages: Stages,
) -> Built:
    data = recipe.data
    with stages("check"):
        checked = checked_input(spark, data, now=request.now)
    with stages("split"):
        lookback = request.lookback_days
        sliced = sliced_events(checked, data, day=request.day, lookback=lookback)
    day = root / f"dt={sliced.as_of}"
    with building_folder(day) as folder:
        tables = write_tables(checked, sliced, data, folder=folder, stages=stages)
        checked.release()
        body = {**plan, **tables, **_cut(sliced), "digest": _digest(sliced, tables)}
        seal(folder, kind=KIND, format_version=FORMAT_VERSION, body=body)
        final = day / f"run={body['digest'][:DIGEST_LENGTH]}"
        is_new = publish(folder, final)
    _point(final, request)
    removed = prune(day, keep=request.keep) if request.keep is not None else []
    snapshot = Snapshot.open(final, verify=False)
    return Built(snapshot, "built" if is_new else "same", stages.seconds, removed)


def _cut(sliced: Sliced) -> dict[str, Any]:
    ends = {
        "train_end": sliced.boundaries.train_end,
        "validation_end": sliced.boundaries.validation_end,
    }
    return {"as_of": sliced.as_of.isoformat(), "split": ends}


def _digest(sliced: Sliced, tables: dict[str, Any]) -> str:
    """Digest of the rows and the boundaries alone: no paths, file names, times or versions."""
    content = {
        "format": FORMAT_VERSION,
        "hash": HASH_VERSION,
        "prints": tables["prints"],
        "split": _cut(sliced)["split"],
    }
    return digest_of(content)


def _point(run: Path, request: Request) -> None:
    day = run.parent
    is_newest = all(other.parent.name <= day.name for other in day.parent.glob("dt=*/run=*"))
    point_to(run, move_root=request.may_go_back or is_newest)
