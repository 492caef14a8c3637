"""One Spark session, set up so that a laptop and a cluster run the same code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import SparkSession

from muxrec.errors import MuxrecError

MASTER_VARIABLE = "MUXREC_SPARK_MASTER"
MEMORY_VARIABLE = "MUXREC_SPARK_MEMORY"
MIN_JAVA = 17
LOG_CONFIGURATION = Path(__file__).with_name("log4j2.properties")

SETTINGS = {
    "spark.sql.ansi.enabled": "true",
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "262144",
    "spark.sql.parquet.compression.codec": "zstd",
    # dt=2018 and split=train are text; a guessed type would turn the one into a number.
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # Nothing but listed files may lie in a snapshot.
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
    "spark.ui.enabled": "false",
}

PARTITIONS = "spark.sql.shuffle.partitions"
LOCAL_SETTINGS = {
    # 200 partitions, the default, cost three times the CPU of a few on one machine.
    PARTITIONS: "4",
    "spark.default.parallelism": "2",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}

# Measured on a build of 100 k events with two cores: 75 s of CPU with the optimising compiler, 44 s
# without; a local run ends before its code would pay back.
LOCAL_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


@contextmanager
def spark_session(
    *, master: str | None = None, memory: str | None = None
) -> Iterator[SparkSession]:
    """A Spark session for the block; an already running one is used and left running.

    Args:
        master: Spark master; None for ``MUXREC_SPARK_MASTER``, else ``local[2]``. Under
            ``spark-submit`` the submitted master is kept.
        memory: Driver memory such as ``4g``; None for ``MUXREC_SPARK_MEMORY``, else ``2g``.

    Raises:
        MuxrecError: Java is missing or too old.
    """
    running = SparkSession.getActiveSession()
    if running is not None:
        yield running
        return
    spark = start_session(master=master, memory=memory)
    try:
        yield spark
    finally:
        spark.stop()


def start_session(*, master: str | None = None, memory: str | None = None) -> SparkSession:
    """A new Spark session; see ``spark_session``."""
    is_submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if not is_submitted:
        check_java()
    builder = SparkSession.builder.appName("muxrec")
    for key, value in settings(is_submitted=is_submitted, master=master, memory=memory).items():
        builder = builder.config(key, value)
    if not is_submitted:
        # Workers run `python3` of the PATH otherwise, which need not have muxrec or pyarrow.
        os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    spark = builder.getOrCreate()
    _few_partitions(spark)
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def settings(*, is_submitted: bool, master: str | None, memory: str | None) -> dict[str, str]:
    """Spark settings of a session.

    Args:
        is_submitted: Whether ``spark-submit`` started this process; master, memory and shuffle
            partitions are then the submitter's.
        master: See ``spark_session``.
        memory: See ``spark_session``.
    """
    if is_submitted:
        return dict(SETTINGS)
    chosen = master or os.environ.get(MASTER_VARIABLE) or "local[2]"
    local = LOCAL_SETTINGS if chosen.startswith("local") else {}
    logs = f"-Dlog4j2.configurationFile={LOG_CONFIGURATION.as_uri()}"
    return {
        **SETTINGS,
        **local,
        "spark.master": chosen,
        "spark.driver.memory": memory or os.environ.get(MEMORY_VARIABLE) or "2g",
        "spark.driver.extraJavaOptions": " ".join([logs, *(LOCAL_JAVA if local else ())]),
        "spark.sql.warehouse.dir": Path(tempfile.gettempdir(), "muxrec-warehouse").as_uri(),
        "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower(),
    }


def _few_partitions(spark: SparkSession) -> None:
    """Few partitions under ``spark-submit --master local[n]``, unless the submitter chose some."""
    given = spark.sparkContext.getConf()
    if given.get("spark.master", "").startswith("local") and not given.contains(PARTITIONS):
        spark.conf.set(PARTITIONS, LOCAL_SETTINGS[PARTITIONS])


def check_java() -> int:
    """Java's major version.

    Raises:
        MuxrecError: There is no Java, or it is older than Spark needs.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    advice = (
        f"Spark needs Java {MIN_JAVA} or newer: install openjdk-17-jre-headless or set JAVA_HOME"
    )
    if java is None or not Path(java).is_file():
        raise MuxrecError(f"no Java found ({f'JAVA_HOME={home}' if home else 'PATH'}). {advice}")
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', text)
    version = int(found.group(1)) if found else 0
    if version < MIN_JAVA:
        raise MuxrecError(f"{java} is version {version or 'unknown'}. {advice}")
    return version
