"""Dataset snapshots: immutable folders that a job writes once and everyone else only reads.

``<root>/dt=YYYY-MM-DD/run=<digest>`` holds the files, its manifest lists each with its SHA-256, and
``CURRENT`` files point to runs. Pointers move by one rename, so a build that dies at any moment
leaves the last good snapshot readable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from muxrec.errors import BundleError, DataError, HashMismatchError
from muxrec.manifest import MANIFEST, read_manifest, verify, write_text_atomically

KIND = "dataset"
FORMAT_VERSION = 1
CURRENT = "CURRENT"
SPLITS = ("train", "validation", "test")

PAIR_SCHEMA = pa.schema(
    [
        ("item_a", pa.int64()),
        ("item_b", pa.int64()),
        ("count", pa.int64()),
        ("weight", pa.float64()),
        ("score", pa.float64()),
    ]
)
EVENT_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("user_key", pa.int64()),
        ("item_key", pa.int64()),
        ("timestamp", pa.int64()),
        ("event_type", pa.string()),
        ("weight", pa.float64()),
        ("split", pa.string()),
    ]
)
REJECTED_SCHEMA = pa.schema(
    [("source", pa.string()), ("row", pa.string()), ("reason", pa.string())]
)


@dataclass(frozen=True)
class Snapshot:
    """An open dataset snapshot.

    Attributes:
        folder: The run folder.
        manifest: Its manifest.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Snapshot:
        """The snapshot at ``path``: a run folder, or a root or day folder that points to one.

        Args:
            path: Dataset root, ``dt=...`` folder or run folder.
            verify: Compare every file's SHA-256 with the manifest. Without it a damaged file is
                noticed only by the page checksums of the parquet pages that are read.

        Raises:
            DataError: There is no finished snapshot, or a file is missing, truncated, edited or not
                listed; the file is named.
            HashMismatchError: The snapshot was made with another hash spec.
        """
        folder = resolve(Path(path))
        try:
            return cls(folder, _checked(folder) if verify else _listed(folder))
        except HashMismatchError:
            raise
        except BundleError as error:
            raise DataError(f"dataset snapshot refused: {error}") from error

    @property
    def digest(self) -> str:
        """Hex content digest: the same for the same rows, whatever their order or files."""
        return self.manifest["digest"]

    def items(self) -> pa.Table:
        """The catalogue, sorted by ``item_key``; a row's number is the item's position everywhere.

        Columns: ``item_id`` string, ``item_key`` int64, the catalogue's own typed columns,
        ``train_events`` and ``test_events`` int64, ``is_cold`` bool.
        """
        return _read(self.files("items"))

    def events(self, split: str | None = None, columns: list[str] | None = None) -> pa.Table:
        """Events sorted by (timestamp, user_key, item_key).

        Args:
            split: ``train``, ``validation`` or ``test``; None for all.
            columns: Columns wanted, see ``EVENT_SCHEMA``; None for all.

        Raises:
            DataError: Unknown split or column, or a damaged file.
        """
        wanted = _known(columns, EVENT_SCHEMA)
        order = ["timestamp", "user_key", "item_key"]
        needed = sorted({*wanted, *order, "split"})
        table = _read(self.files("events"), columns=needed, empty=EVENT_SCHEMA)
        if split is not None:
            table = table.filter(pc.field("split") == _split(split))
        return table.sort_by([(name, "ascending") for name in order]).select(wanted)

    def pairs(self, split: str) -> pa.Table:
        """Item pairs mined from one slice, both directions, see ``PAIR_SCHEMA``.

        Sorted inside each file by (item_a, score falling, item_b); empty when nothing paired up.

        Raises:
            DataError: Unknown split, or a damaged file.
        """
        return _read(self.pair_files(split), columns=PAIR_SCHEMA.names, empty=PAIR_SCHEMA)

    def pair_files(self, split: str) -> list[Path]:
        """Parquet files of one slice's pairs, in a fixed order; no files when nothing paired up."""
        return self.files(f"pairs/split={_split(split)}")

    def rejected(self) -> pa.Table:
        """Rows that the checks refused: ``source``, ``row`` (JSON of the raw row), ``reason``."""
        return _read(self.files("rejected"), empty=REJECTED_SCHEMA)

    def files(self, under: str) -> list[Path]:
        """Files of the folder ``under`` that the manifest lists, sorted by name."""
        names = (PurePosixPath(name) for name in self.manifest["files"])
        return sorted(self.folder / n for n in names if n.is_relative_to(under))


def resolve(path: Path) -> Path:
    """The run folder that ``path`` is or points to.

    Raises:
        DataError: Nothing is there, or a pointer leads outside its folder or to nowhere.
    """
    if (path / MANIFEST).is_file():
        return path
    pointer = path / CURRENT
    if not pointer.is_file():
        raise DataError(
            f"{path} holds no dataset snapshot (no {CURRENT}, no {MANIFEST}): "
            "make one with `muxrec data build RECIPE`"
        )
    text = pointer.read_text(encoding="utf-8", errors="replace").strip()
    target = PurePosixPath(text)
    if not text or target.is_absolute() or ".." in target.parts:
        raise DataError(f"{pointer} is damaged: expected dt=.../run=..., got {text[:80]!r}")
    if not (path / target / MANIFEST).is_file():
        raise DataError(f"{pointer} points to {text}, which is not a finished snapshot")
    return path / target


def point_to(run: Path, *, move_root: bool = True) -> None:
    """Point the day's ``CURRENT`` and, if wanted, the root's to ``run`` (``<root>/dt=./run=.``)."""
    day, root = run.parent, run.parent.parent
    write_text_atomically(day / CURRENT, run.name)
    if move_root:
        write_text_atomically(root / CURRENT, f"{day.name}/{run.name}")


def _checked(folder: Path) -> dict[str, Any]:
    return verify(folder, kind=KIND, format_version=FORMAT_VERSION)


def _listed(folder: Path) -> dict[str, Any]:
    return read_manifest(folder, kind=KIND, format_version=FORMAT_VERSION)


def _split(name: str) -> str:
    if name not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, got {name}")
    return name


def _known(columns: list[str] | None, schema: pa.Schema) -> list[str]:
    unknown = sorted(set(columns or ()) - set(schema.names))
    if unknown:
        raise DataError(f"unknown column {unknown[0]}, known: {', '.join(schema.names)}")
    return schema.names if columns is None else columns


def _read(
    paths: Iterable[Path], *, columns: list[str] | None = None, empty: pa.Schema | None = None
) -> pa.Table:
    tables = [_read_file(path, columns) for path in paths]
    if tables:
        return pa.concat_tables(tables)
    schema = empty or pa.schema([])
    return schema.empty_table().select(columns or schema.names)


def _read_file(path: Path, columns: list[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=columns).replace_schema_metadata(None)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged or missing: {error}") from error
