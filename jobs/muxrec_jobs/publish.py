"""From a finished folder to a published run: temporary name, rename, pointers, retention."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muxrec.data.snapshot import CURRENT, Snapshot
from muxrec.errors import DataError, MuxrecError
from muxrec.manifest import MANIFEST, sync_folder

NO_SPACE = ("No space left on device", "Disk quota exceeded", "File too large", "ENOSPC")
"""What the systems below say when a write does not fit; Spark only passes their words on."""


@contextmanager
def building_folder(day: Path) -> Iterator[Path]:
    """A temporary folder under ``day`` for the block; it is gone afterwards unless it was renamed.

    Folders of builds that were killed on this host are removed first.
    """
    day.mkdir(parents=True, exist_ok=True)
    _remove_dead(day)
    folder = day / f"{_prefix()}{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, final: Path) -> bool:
    """Renames a sealed folder to ``final``; returns whether it is new.

    A sound run of the same digest is left alone. A damaged one is replaced: its content is the same
    by its name, and readers refuse it anyway.
    """
    if final.exists():
        try:
            Snapshot.open(final)
        except MuxrecError:
            damaged = final.with_name(f"{_prefix()}damaged-{final.name}")
            final.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        else:
            return False
    folder.rename(final)
    sync_folder(final.parent)
    return True


def prune(day: Path, *, keep: int) -> list[str]:
    """Removes all but the ``keep`` newest runs of a day; the pointed-to run always stays.

    Returns:
        Names of the removed runs.
    """
    runs = [run for run in day.glob("run=*") if (run / MANIFEST).is_file()]
    runs.sort(key=lambda run: (run / MANIFEST).stat().st_mtime, reverse=True)
    current = {pointer.read_text().strip().split("/")[-1] for pointer in _pointers(day)}
    old = [run for run in runs[keep:] if run.name not in current]
    for run in old:
        shutil.rmtree(run)
    return [run.name for run in old]


def full_disk(error: BaseException, folder: Path) -> MuxrecError | None:
    """The clear error behind a failed write, or None where the disk was not the reason."""
    words = next((text for text in NO_SPACE if text in str(error)), None)
    if words is None:
        return None
    free = shutil.disk_usage(folder).free
    return MuxrecError(
        f"disk full while writing {folder} ({words}): {free} bytes free; nothing was published and "
        "the last snapshot is as it was. Free some space and run the build again"
    )


def data_fault(error: BaseException, *, stage: str) -> DataError:
    """A failed Spark stage as one line: the first line of its innermost cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return DataError(
        f"Spark failed at stage {stage}: {(causes or lines or ['unknown'])[-1 if causes else 0]}"
    )


def _pointers(day: Path) -> list[Path]:
    return [p for p in (day / CURRENT, day.parent / CURRENT) if p.is_file()]


def _prefix() -> str:
    return f".building-{socket.gethostname()}-"


def _remove_dead(day: Path) -> None:
    for folder in day.glob(f"{_prefix()}*"):
        pid = folder.name.removeprefix(_prefix())
        if not pid.isdigit() or not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
