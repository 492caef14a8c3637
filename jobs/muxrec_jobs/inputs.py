"""Fingerprints of what a build read: the same inputs need no second build."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from muxrec.manifest import digest_of, sha256_file


def fingerprints(paths: list[Path]) -> list[dict[str, Any]]:
    """``{path, bytes, sha256}`` of each file; of a folder also ``files``, with one hash over all.

    Args:
        paths: Files and folders that exist.
    """
    return [_folder(path) if path.is_dir() else _file(path) for path in paths]


def _file(path: Path) -> dict[str, Any]:
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _folder(path: Path) -> dict[str, Any]:
    files = sorted(p for p in path.rglob("*") if p.is_file())
    hashes = {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }
    size = sum(p.stat().st_size for p in files)
    return {"path": str(path), "bytes": size, "files": len(files), "sha256": digest_of(hashes)}
