"""Tables from files: parquet, csv and JSON lines, with the rows that cannot be read kept apart."""

from __future__ import annotations

import csv
import glob
import gzip
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from muxrec.errors import DataError
from muxrec.recipe.model import TableFile
from muxrec_jobs.schemas import MALFORMED

SUFFIXES = {
    "parquet": (".parquet",),
    "csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"),
    "jsonl": (".jsonl", ".jsonl.gz", ".json", ".json.gz"),
}


def table_files(table: TableFile) -> list[Path]:
    """The files of a table, sorted: itself, a folder's files of its format, or a glob's matches.

    Raises:
        DataError: Nothing is there.
    """
    path = Path(table.path)
    if path.is_file():
        return [path.resolve()]
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.name.endswith(SUFFIXES[table.format])]
        visible = [p for p in found if not p.name.startswith(("_", "."))]
        if not visible:
            raise DataError(f"{path} holds no {table.format} file")
        return sorted(p.resolve() for p in visible)
    matches = sorted(Path(p).resolve() for p in glob.glob(table.path, recursive=True))  # noqa: PTH207 - absolute patterns
    files = [p for p in matches if p.is_file()]
    if not files:
        raise DataError(f"{table.path} is not a file, a folder or a glob that matches something")
    return files


def read_table(spark: SparkSession, table: TableFile, *, multiline: bool = False) -> DataFrame:
    """A table as it is, plus ``MALFORMED``; every column of a csv is text.

    Args:
        spark: The session.
        table: Path, format and separator.
        multiline: Whether quoted csv fields may hold line ends; such files are not split.

    Raises:
        DataError: No file, no header, or csv files with different headers.
    """
    files = table_files(table)
    if table.format == "csv":
        return read_csv(spark, files, separator=table.separator, multiline=multiline)
    names = [str(file) for file in files]
    if table.format == "parquet":
        return spark.read.parquet(*names).withColumn(MALFORMED, F.lit(None).cast("string"))
    found = spark.read.option("columnNameOfCorruptRecord", MALFORMED).json(names)
    if MALFORMED in found.columns:
        return found
    return found.withColumn(MALFORMED, F.lit(None).cast("string"))


def read_csv(
    spark: SparkSession,
    files: list[Path],
    *,
    separator: str = ",",
    quote: str = '"',
    multiline: bool = False,
) -> DataFrame:
    """Csv files of one header as text columns, plus ``MALFORMED`` with the line of a broken row.

    Raises:
        DataError: A file is empty, or its header is not the first file's.
    """
    header = read_header(files[0], separator=separator, quote=quote)
    for file in files[1:]:
        if read_header(file, separator=separator, quote=quote) != header:
            raise DataError(f"{file} has another header than {files[0]}: columns would be mixed up")
    fields = [T.StructField(name, T.StringType()) for name in [*header, MALFORMED]]
    reader = spark.read.schema(T.StructType(fields)).options(
        header=True,
        sep=separator,
        quote=quote,
        escape='"',
        multiLine=multiline,
        mode="PERMISSIVE",
        columnNameOfCorruptRecord=MALFORMED,
        # A pruned parser looks at the wanted columns only and calls a torn row sound.
        columnPruning=False,
    )
    return reader.csv([str(file) for file in files])


def read_header(file: Path, *, separator: str, quote: str = '"') -> list[str]:
    """Column names in the first line of a csv file.

    Raises:
        DataError: The file is empty or names a column twice.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    try:
        with opened(file, "rt", encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, delimiter=separator, quoting=quoting)
            header = [name.strip() for name in next(rows, [])]
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if not header:
        raise DataError(f"{file} is empty: a header line was expected")
    if len(set(header)) != len(header):
        raise DataError(f"{file} names a column twice: {', '.join(header)}")
    return header
