"""done.json: the last file of a finished training; with it the training is skipped next time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muxrec.manifest import write_text_atomically

DONE = "done.json"


def read_done(folder: Path) -> dict[str, Any] | None:
    """What ``write_done`` wrote in ``folder``, or None where training has not ended."""
    path = folder / DONE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_done(folder: Path, values: dict[str, Any]) -> None:
    """Mark ``folder`` as finished."""
    write_text_atomically(folder / DONE, json.dumps(values, indent=1, sort_keys=True))


def is_done(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether ``folder`` holds a finished training of ``identity``; see ``training_identity``."""
    done = read_done(folder)
    return done is not None and all(done.get(name) == value for name, value in identity.items())
