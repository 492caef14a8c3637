"""The append-only file of live writes: one checked line per write, replayed at the next start."""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from muxrec.errors import DataError
from muxrec.log import event
from muxrec.manifest import sync_folder

log = logging.getLogger("muxrec_serving.live")
Entries = dict[str, dict[str, Any] | None]
"""Item id -> the raw item last written, or None when it was deleted last; oldest write first."""

_BYTES = "$bytes"
_COMPACT_ABOVE = 1000


class Journal:
    """An open journal, locked against a second server. Not thread-safe: one writer at a time."""

    def __init__(self, path: Path, stream: BinaryIO, entries: Entries) -> None:
        self.path = path
        self.entries = entries
        self._stream = stream

    @classmethod
    def open(cls, path: Path) -> Journal:
        """The journal at ``path``, made when absent; ``entries`` holds what it says.

        A last line that was cut by a crash is dropped and said so. The file is rewritten when most
        of its lines were overtaken by later ones.

        Raises:
            DataError: Another server holds it, it cannot be written, or a line that is not the last
                was changed.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("a+b")
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{path} is in use by another server: give each its own") from error
        except OSError as error:
            raise DataError(f"the journal {path} cannot be written: {error.strerror}") from error
        lines, whole = _whole_lines(stream)
        entries: Entries = {}
        for number, line in enumerate(lines, start=1):
            item_id, item = _read_line(line, path=path, number=number)
            entries.pop(item_id, None)
            entries[item_id] = item
        stream.truncate(whole)
        journal = cls(path, stream, entries)
        if len(lines) > _COMPACT_ABOVE and len(lines) > 2 * len(entries):
            journal._compact()
        return journal

    def append(self, item_id: str, item: dict[str, Any] | None) -> None:
        """Write one upsert (or deletion, when ``item`` is None) and wait until it is on disk.

        Raises:
            OSError: The disk refused; the file is as it was.
        """
        before = self._stream.seek(0, os.SEEK_END)
        try:
            self._stream.write(_line(item_id, item))
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError:
            self._stream.truncate(before)
            raise
        self.entries.pop(item_id, None)
        self.entries[item_id] = item

    def close(self) -> None:
        """Release the file and its lock."""
        self._stream.close()

    def _compact(self) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        stream = temporary.open("a+b")
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for item_id, item in self.entries.items():
            stream.write(_line(item_id, item))
        stream.flush()
        os.fsync(stream.fileno())
        temporary.replace(self.path)
        sync_folder(self.path.parent)
        self._stream.close()
        self._stream = stream


def _whole_lines(stream: BinaryIO) -> tuple[list[bytes], int]:
    stream.seek(0)
    body = stream.read()
    whole = body.rfind(b"\n") + 1
    if whole < len(body):
        log.warning(event("journal_cut", dropped_bytes=len(body) - whole))
    return body[:whole].splitlines(), whole


def _line(item_id: str, item: dict[str, Any] | None) -> bytes:
    body = json.dumps({"id": item_id, "item": item}, default=_encode_bytes).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _read_line(line: bytes, *, path: Path, number: int) -> tuple[str, dict[str, Any] | None]:
    checksum, _, body = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(body):
            raise ValueError("checksum differs")
        record = json.loads(body, object_hook=_decode_bytes)
        return record["id"], record["item"]
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path}:{number} was changed after it was written ({error}): restore the file, or "
            "move it away to start without live items"
        ) from error


def _encode_bytes(value: object) -> dict[str, str]:
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} has no place in a journal")


def _decode_bytes(value: dict[str, Any]) -> Any:
    return base64.b64decode(value[_BYTES]) if value.keys() == {_BYTES} else value
