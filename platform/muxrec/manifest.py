"""Folders that prove themselves: a manifest with a SHA-256 per file, written last, verified first.

Datasets, checkpoints and bundles are all such folders. A folder is filled under a temporary name,
every file is synced, the manifest is written, and one rename publishes it; a reader believes only
what the manifest lists.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from muxrec.errors import BundleError, HashMismatchError, MuxrecError
from muxrec.spec.hashing import HASH_VERSION

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 64 * 2**20
_CHUNK = 2**20


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """One spelling of a JSON value: sorted keys, no spaces. Hash this, never ``str(value)``."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Any) -> str:
    """Hex SHA-256 of a JSON value's canonical spelling."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_text_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one rename: a crash leaves the old or the new text."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush a folder's own entries to disk, so that a rename inside it survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def seal(folder: Path, *, kind: str, format_version: int, body: dict[str, Any]) -> dict[str, Any]:
    """Sync every file in ``folder`` and write its manifest; returns the manifest.

    Args:
        folder: A finished folder, not yet published.
        kind: ``dataset``, ``checkpoint`` or ``bundle``.
        format_version: Version of that kind's layout.
        body: What else the manifest says. ``kind``, ``format_version``, ``hash_version`` and
            ``files`` are added.
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    manifest = {
        **body,
        "kind": kind,
        "format_version": format_version,
        "hash_version": HASH_VERSION,
        "files": files,
    }
    write_text_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
    return manifest


def manifest_digest(folder: Path) -> str:
    """Hex SHA-256 of the manifest, which names every file's hash: the identity of the folder."""
    return sha256_file(folder / MANIFEST)


@contextmanager
def published_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside ``final``, renamed to it when the block ends well.

    The block must seal the folder. Where the block fails the temporary folder is removed and
    ``final`` is as it was; an existing ``final`` is left alone and the new folder is dropped, since
    published folders are never edited.

    Raises:
        MuxrecError: The disk is full; the message names the folder and the space left.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if not final.exists():
            temporary.rename(final)
            sync_folder(final.parent)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        free = shutil.disk_usage(final.parent).free
        message = f"disk full while writing {final}: {free} bytes free; nothing was published"
        raise MuxrecError(message) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_manifest(folder: Path, *, kind: str, format_version: int) -> dict[str, Any]:
    """The manifest of ``folder``, its shape and versions checked, its files not yet.

    Raises:
        BundleError: There is no manifest, it is not readable, or it is of another kind or format.
        HashMismatchError: It was made with another hash spec.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder} holds no {MANIFEST}: it is not a finished {kind}")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes: refused")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = (manifest["kind"], manifest["format_version"])
        hash_version = manifest["hash_version"]
        files = manifest["files"].items()
        well_formed = all(isinstance(f["bytes"], int) and f["sha256"] for _, f in files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{path} is damaged ({type(error).__name__}): make the {kind} again"
        ) from error
    if found != (kind, format_version) or not well_formed:
        message = f"{path} is {found[0]} format {found[1]}, expected {kind} format {format_version}"
        raise BundleError(f"{message}: upgrade muxrec or make the {kind} again")
    if hash_version != HASH_VERSION:
        raise HashMismatchError(
            f"{folder} was made with hash spec {hash_version}, this muxrec knows {HASH_VERSION}: "
            f"make the {kind} again or run the version that made it"
        )
    return manifest


def verify(folder: Path, *, kind: str, format_version: int) -> dict[str, Any]:
    """The manifest of ``folder`` after every file was compared with it.

    Raises:
        BundleError: A file is missing, truncated, edited, a link or not listed; the file is named.
        HashMismatchError: The folder was made with another hash spec.
    """
    manifest = read_manifest(folder, kind=kind, format_version=format_version)
    for name, entry in manifest["files"].items():
        _verify_file(folder, name, entry)
    known = {*manifest["files"], MANIFEST}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleError(f"{folder}: {name} is a link: refused")
        if not path.is_dir() and name not in known:
            raise BundleError(f"{folder}: {name} is not listed in {MANIFEST}: refused")
    return manifest


def _verify_file(folder: Path, name: str, entry: dict[str, Any]) -> None:
    pure = PurePosixPath(name)
    path = folder / pure
    if pure.is_absolute() or ".." in pure.parts or path.is_symlink():
        raise BundleError(f"{folder}: {name} points outside the folder or is a link: refused")
    if not path.is_file():
        raise BundleError(f"{folder}: {name} is missing")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise BundleError(f"{folder}: {name} has {size} bytes, the manifest says {entry['bytes']}")
    if sha256_file(path) != entry["sha256"]:
        raise BundleError(f"{folder}: {name} was changed after it was published (SHA-256 differs)")
