"""Where a bundle came from, and the small file that remembers it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from muxrec.errors import BundleError
from muxrec.manifest import write_text_atomically


@dataclass(frozen=True)
class Origin:
    """Where a bundle came from.

    Attributes:
        folder: The bundle folder.
        model: Registered model; None for a plain folder.
        version: Version of that model.
        alias: Alias that pointed at the version.
    """

    folder: Path
    model: str | None = None
    version: str | None = None
    alias: str | None = None


def write_origin(path: Path, origin: Origin) -> None:
    """Remember ``origin`` in ``path``, in one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {**vars(origin), "folder": str(origin.folder)}
    write_text_atomically(path, json.dumps(body))


def read_origin(path: Path) -> Origin | None:
    """What ``path`` remembers; None where it does not exist.

    Raises:
        BundleError: The file is damaged.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return Origin(**{**body, "folder": Path(body["folder"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{path} is damaged: remove it") from error
