"""Where a text model lies on disk, and which one it is. Torch-free."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from muxrec.errors import DataError
from muxrec.features.text_onnx import CONFIG
from muxrec.manifest import sha256_file

log = logging.getLogger("muxrec.encoders")
_PACKAGE = "package:"
_VERSION = "1"
"""Version of the export code; part of the cache name, so a change re-exports."""


def model_folder(encoder: str) -> Path:
    """The folder of a text model named by a path or by ``package:NAME``.

    Raises:
        DataError: There is no such folder or package, or it lacks config or safetensors weights.
    """
    folder = (
        _package_folder(encoder.removeprefix(_PACKAGE))
        if encoder.startswith(_PACKAGE)
        else Path(encoder)
    )
    if not (folder / "config.json").is_file():
        raise DataError(f"text encoder {encoder}: {folder} holds no config.json")
    if not list(folder.glob("*.safetensors")):
        raise DataError(f"text encoder {encoder}: {folder} holds no *.safetensors weights")
    return folder


def _package_folder(name: str) -> Path:
    found = importlib.util.find_spec(name)
    places = list(found.submodule_search_locations or []) if found else []
    if not places:
        raise DataError(f"text encoder package:{name}: the package is not installed")
    configs = [
        p
        for p in sorted(Path(places[0]).rglob("config.json"))
        if list(p.parent.glob("*.safetensors"))
    ]
    if not configs:
        raise DataError(f"text encoder package:{name}: the package holds no model with safetensors")
    return configs[0].parent


def fingerprint_model(folder: Path) -> str:
    """SHA-256 over config, tokenizer and weights: which model this is."""
    files = [
        folder / "config.json",
        folder / "tokenizer.json",
        *sorted(folder.glob("*.safetensors")),
    ]
    present = [path for path in files if path.is_file()]
    lines = "".join(f"{path.name} {sha256_file(path)}\n" for path in present)
    return hashlib.sha256(lines.encode()).hexdigest()


def exported_encoder(encoder: str, cache: Path) -> Path:
    """Folder of the exported form of a text model, exporting it once per model into ``cache``.

    Raises:
        DataError: The model cannot be found or exported; the exporter's last line is given.
    """
    source = model_folder(encoder)
    out = cache / f"text-encoder-{fingerprint_model(source)[:16]}-v{_VERSION}"
    if (out / CONFIG).is_file():
        return out
    temporary = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    log.info("export_text_encoder source=%s", source)
    command = [sys.executable, "-m", "muxrec.encoders.text_export", str(source), str(temporary)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(temporary, ignore_errors=True)
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"text encoder {encoder} cannot be exported: {last}")
    temporary.rename(out)
    return out
