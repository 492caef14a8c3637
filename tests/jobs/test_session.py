"""The session's settings, its need for Java, and what the jobs must not import."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from muxrec.errors import MuxrecError
from muxrec_jobs.session import check_java, settings, spark_session

IMPORT_ALL = """
import importlib, pkgutil, sys
import muxrec_jobs, muxrec.data.snapshot
for module in pkgutil.walk_packages(muxrec_jobs.__path__, "muxrec_jobs."):
    importlib.import_module(module.name)
heavy = {"torch", "torchrec", "triton", "fbgemm_gpu", "mlflow", "transformers"}
print(sorted(heavy & set(sys.modules)))
"""
IMPORT_KERNEL = """
import sys
import muxrec_jobs.pair_kernel
print(sorted({"torch", "pydantic", "yaml", "pyspark", "pandas"} & set(sys.modules)))
"""


@pytest.mark.parametrize("code", [IMPORT_ALL, IMPORT_KERNEL])
def test_the_jobs_import_no_torch_and_executors_numpy_and_arrow_alone(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def fake_java(folder: Path, text: str) -> None:
    java = folder / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{text}' >&2\n", encoding="utf-8")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)


def test_missing_java_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MuxrecError, match=r"no Java found \(PATH\).*install openjdk-17"):
        check_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    with pytest.raises(MuxrecError, match=r"no Java found \(JAVA_HOME="):
        check_java()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "11.0.2" 2019-01-15', "11"),
        ('java version "1.8.0_292"', "1"),
        ("?", "unk"),
    ],
)
def test_old_java_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, version: str
) -> None:
    fake_java(tmp_path, text)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MuxrecError, match=f"is version {version}.*Java 17 or newer"):
        check_java()


def test_a_new_java_is_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_java(tmp_path, 'openjdk version "21.0.1" 2023-10-17')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert check_java() == 21


def test_a_submitted_job_keeps_the_submitters_master_and_memory() -> None:
    submitted = settings(is_submitted=True, master=None, memory=None)
    assert not {"spark.master", "spark.driver.memory", "spark.sql.shuffle.partitions"} & set(
        submitted
    )
    assert submitted["spark.sql.ansi.enabled"] == "true"


def test_local_settings_do_not_reach_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUXREC_SPARK_MASTER", "spark://host:7077")
    cluster = settings(is_submitted=False, master=None, memory="6g")
    assert cluster["spark.master"] == "spark://host:7077"
    assert cluster["spark.driver.memory"] == "6g"
    assert "spark.sql.shuffle.partitions" not in cluster
    assert "SerialGC" not in cluster["spark.driver.extraJavaOptions"]
    local = settings(is_submitted=False, master="local[2]", memory=None)
    assert local["spark.sql.shuffle.partitions"] == "4"


@pytest.mark.spark
def test_workers_run_this_python_and_a_running_session_is_shared(spark: SparkSession) -> None:
    def python(batches):
        import sys

        import pyarrow as pa

        for _ in batches:
            yield pa.RecordBatch.from_pydict({"python": [sys.executable]})

    with spark_session() as shared:
        assert shared is spark
    found = spark.range(1).mapInArrow(python, "python string").collect()[0].python
    assert found == sys.executable
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.conf.get("spark.sql.ansi.enabled") == "true"
