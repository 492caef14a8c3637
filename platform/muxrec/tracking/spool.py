"""Records that wait on disk: appended one line each, read back even when the last line is torn."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from muxrec.log import event
from muxrec.tracking.records import Record

log = logging.getLogger("muxrec.tracking")


class Spool:
    """A JSON-lines file of records that no server has yet.

    Args:
        path: The file; absent while nothing waits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, batch: Iterable[Record]) -> None:
        """Append records."""
        lines = [json.dumps(record) + "\n" for record in batch]
        if lines:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.writelines(lines)

    def waiting(self) -> list[Record]:
        """The records that wait, oldest first; a line that a kill tore in two is left out."""
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                log.warning(event("spool_line_torn", path=self.path, characters=len(line)))
        return found

    def clear(self) -> None:
        """Forget the records, which were sent."""
        self.path.unlink(missing_ok=True)
