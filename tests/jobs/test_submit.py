"""The same job under spark-submit, with the packages shipped as a zip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyspark
import pytest

from muxrec.data.snapshot import Snapshot
from muxrec.recipe.load import dump_recipe
from muxrec.recipe.model import Recipe

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.spark
@pytest.mark.slow
def test_the_entry_script_builds_a_snapshot_under_spark_submit(
    make_recipe: Callable[..., Recipe], weekly_events: str, weekly_items: str, tmp_path: Path
) -> None:
    recipe = make_recipe(weekly_events, weekly_items)
    path, package = tmp_path / "recipe.yaml", tmp_path / "muxrec.zip"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    with zipfile.ZipFile(package, "w") as archive:
        for root, name in (("jobs", "muxrec_jobs"), ("platform", "muxrec")):
            for file in (REPOSITORY / root / name).rglob("*.py"):
                archive.write(file, file.relative_to(REPOSITORY / root))
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    options = ["--master", "local[2]", "--driver-memory", "1g", "--py-files", str(package)]
    done = subprocess.run(
        [str(submit), *options, str(REPOSITORY / "jobs" / "submit_data.py"), str(path), "--json"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_HOME": str(submit.parents[1])},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["status"] == "built"
    assert Snapshot.open(Path(recipe.output or "") / "dataset").digest == result["digest"]
