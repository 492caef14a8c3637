"""Delimited text files of public data sets, gzip allowed, with every fault named."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

from muxrec.errors import DataError


def read_columns(
    folder: Path,
    name: str,
    columns: Sequence[str],
    *,
    separator: str,
    header: bool,
    encoding: str = "utf-8",
) -> dict[str, list[str]]:
    """Columns of ``folder/name`` or ``folder/name.gz``, as text.

    Args:
        folder: Folder of the data set.
        name: File name without ``.gz``.
        columns: Names of all columns, in the file's order; with a header it must name exactly them.
        separator: What stands between two values.
        header: Whether the first line names the columns.
        encoding: Encoding of the file.

    Raises:
        DataError: The file is missing or not readable, or a line has another number of values.
    """
    path = _existing(folder, name)
    lines = _lines(path, encoding)
    if header:
        found = lines[0].split(separator) if lines else []
        if found != list(columns):
            raise DataError(f"{path}: expected the columns {list(columns)}, found {found}")
        lines = lines[1:]
    rows = [line.split(separator) for line in lines]
    for number, row in enumerate(rows, start=1 + header):
        if len(row) != len(columns):
            raise DataError(
                f"{path}:{number}: expected {len(columns)} values separated by {separator!r}, "
                f"got {len(row)}"
            )
    return {column: [row[at] for row in rows] for at, column in enumerate(columns)}


def integers(values: Sequence[str], *, column: str, origin: Path | str) -> list[int]:
    """The values as integers; ``3.0`` counts as 3.

    Raises:
        DataError: A value is no integer.
    """
    out = []
    for value in values:
        try:
            number = float(value)
            out.append(int(number))
        except ValueError as error:
            raise DataError(f"{origin}: {column} must be an integer, got {value!r}") from error
        if number != out[-1]:
            raise DataError(f"{origin}: {column} must be an integer, got {value!r}")
    return out


def positions_by_key(
    wanted: Sequence[str], keys: Sequence[str], *, what: str, origin: Path | str
) -> list[int]:
    """The place in ``keys`` of every value in ``wanted``.

    Raises:
        DataError: A value is not among ``keys``, or a key comes twice.
    """
    places = {key: at for at, key in enumerate(keys)}
    if len(places) != len(keys):
        raise DataError(f"{origin}: a {what} is listed twice")
    try:
        return [places[value] for value in wanted]
    except KeyError as error:
        raise DataError(f"{origin}: no {what} {error.args[0]!r}, which has impressions") from error


def _existing(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder}: expected {name} or {name}.gz, found neither: check --folder")


def _lines(path: Path, encoding: str) -> list[str]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode(encoding)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable {encoding} text: {error}") from error
    # Not splitlines(): it would also cut at the unusual separators inside a title.
    return [line.removesuffix("\r") for line in text.split("\n") if line]
