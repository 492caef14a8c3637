"""history.jsonl: what was measured at which step, one JSON object per line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muxrec.manifest import write_text_atomically

HISTORY = "history.jsonl"


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The records so far, in order; a last line that a kill cut short is left out."""
    path = folder / HISTORY
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


class History:
    """The history of one training, continued at ``step``.

    Args:
        folder: Folder of the variant and seed.
        step: Steps done; records after it belong to a stretch that is trained again, and go.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        self.path = folder / HISTORY
        kept = [record for record in read_history(folder) if record["step"] <= step]
        write_text_atomically(self.path, "".join(json.dumps(record) + "\n" for record in kept))

    def add(self, **values: Any) -> None:
        """Append one record; ``step`` must be among the values."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")
