"""What a build leaves behind when it is killed or the disk is full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from muxrec.data.snapshot import Snapshot
from muxrec.errors import MuxrecError
from muxrec.recipe.load import dump_recipe
from muxrec.recipe.model import Recipe
from muxrec_jobs.build import build_dataset
from muxrec_jobs.publish import full_disk

MakeRecipe = Callable[..., Recipe]


def start_build(recipe: Recipe, folder: Path) -> subprocess.Popen[str]:
    path = folder / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "muxrec.cli", "data", "build", str(path)]
    environment = os.environ | {"MUXREC_SPARK_MEMORY": "1g"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.spark
@pytest.mark.slow
def test_a_build_killed_while_it_writes_leaves_the_last_snapshot_and_can_be_repeated(
    spark: SparkSession,
    make_recipe: MakeRecipe,
    weekly_events: str,
    weekly_items: str,
    tmp_path: Path,
) -> None:
    last = build_dataset(make_recipe(weekly_events, weekly_items)).snapshot
    root, day = last.folder.parent.parent, last.folder.parent
    changed = make_recipe(weekly_events.replace(",view,2\n", ",view,2.5\n", 1), weekly_items)
    process = start_build(changed, tmp_path)
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "stage=events" in line:
            # Events are on disk, nothing is sealed: the worst moment.
            process.kill()
            break
    process.wait()
    assert process.returncode == -9, "".join(seen)
    assert "log level" not in "".join(seen), "Spark's start is quiet"
    left = list(day.glob(".building-*"))
    assert len(left) == 1
    assert list(left[0].rglob("*.parquet"))
    assert Snapshot.open(root).digest == last.digest
    assert Snapshot.open(root).events().num_rows == 360

    repeated = build_dataset(changed)
    assert repeated.status == "built"
    assert Snapshot.open(root).digest == repeated.snapshot.digest != last.digest
    assert not list(day.glob(".building-*"))
    assert Snapshot.open(last.folder).digest == last.digest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB, too small for a snapshot."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.spark
def test_a_full_disk_is_one_clear_error_and_publishes_nothing(
    spark: SparkSession,
    make_recipe: MakeRecipe,
    weekly_events: str,
    weekly_items: str,
    small_disk: Path,
) -> None:
    recipe = make_recipe(weekly_events, weekly_items)
    full = Recipe(recipe.name, recipe.data, recipe.features, recipe.tables, output=str(small_disk))
    with pytest.raises(MuxrecError, match="disk full while writing") as raised:
        build_dataset(full)
    assert "\n" not in str(raised.value)
    assert "Free some space" in str(raised.value)
    assert not list((small_disk / "dataset").rglob("CURRENT"))
    assert not list((small_disk / "dataset").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("words", "is_full"),
    [
        ("java.io.IOException: No space left on device", True),
        ("java.io.IOException: Disk quota exceeded", True),
        ("java.io.IOException: Permission denied", False),
    ],
)
def test_only_a_full_disk_is_called_full(words: str, is_full: bool, tmp_path: Path) -> None:
    assert (full_disk(OSError(words), tmp_path) is not None) == is_full
