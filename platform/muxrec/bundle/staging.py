"""Publishing a folder: filled under a temporary name, sealed, probed, renamed, pointed to."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from muxrec.bundle import format as names
from muxrec.bundle.probe import probe_bundle
from muxrec.errors import BundleError
from muxrec.log import event
from muxrec.manifest import manifest_digest, seal, sync_folder, write_text_atomically
from muxrec.manifest import verify as verify_folder

log = logging.getLogger("muxrec.bundle")


def publish_folder(root: Path, folder: Path, body: dict[str, Any]) -> Path:
    """Seal and probe a filled folder, name it by its digest and point ``CURRENT`` to it.

    Raises:
        BundleError: The probe refused it, or a damaged bundle of the same name is in the way.
    """
    seal(folder, kind=names.KIND, format_version=names.FORMAT_VERSION, body=body)
    log.info(event("bundle_probed", said=probe_bundle(folder)))
    final = root / manifest_digest(folder)[: names.DIGEST_CHARACTERS]
    if final.exists():
        verify_folder(final, kind=names.KIND, format_version=names.FORMAT_VERSION)
    else:
        folder.rename(final)
        sync_folder(root)
    write_text_atomically(root / names.CURRENT, f"{final.name}\n")
    return final


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """A temporary folder in ``root``, gone afterwards; those of dead processes are removed too."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(root)
        folder = root / f".bundle.{os.getpid()}.tmp"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    except OSError as error:
        raise BundleError(f"{root} cannot hold a bundle: {error}") from error
    try:
        yield folder
    except OSError as error:
        free = shutil.disk_usage(root).free
        full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, None)
        why = "the disk is full" if full else str(error)
        message = f"no bundle was published in {root}: {why} ({free} bytes free)"
        raise BundleError(message) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(root: Path) -> None:
    for folder in root.glob(".bundle.*.tmp"):
        found = re.fullmatch(r"\.bundle\.(\d+)\.tmp", folder.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            log.info(event("leftover_removed", folder=folder))
            shutil.rmtree(folder, ignore_errors=True)
