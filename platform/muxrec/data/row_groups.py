"""Row groups of parquet files: what they hold, and a checked read of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from muxrec.errors import DataError


@dataclass(frozen=True)
class RowGroup:
    """One row group of a parquet file.

    Attributes:
        path: The file.
        index: Number of the group inside the file.
        rows: Its rows.
    """

    path: Path
    index: int
    rows: int


def list_row_groups(paths: Sequence[Path]) -> tuple[RowGroup, ...]:
    """Row groups with at least one row, by file name and then number.

    Raises:
        DataError: A file is missing or is not parquet.
    """
    groups = []
    for path in sorted(paths):
        metadata = _open(path).metadata
        sizes = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
        groups += [RowGroup(path, at, rows) for at, rows in enumerate(sizes) if rows]
    return tuple(groups)


def read_row_group(group: RowGroup, columns: list[str]) -> pa.Table:
    """The columns of one row group, page checksums verified.

    Raises:
        DataError: The file is damaged or lacks a column.
    """
    try:
        return _open(group.path).read_row_group(group.index, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(group.path, error) from error


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path} cannot be read ({reason}): build the dataset again")
