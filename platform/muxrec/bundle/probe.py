"""Loading a bundle in a process of its own, where a crash harms nobody.

``python -m muxrec.bundle.probe FOLDER`` verifies a bundle, loads every part, asks the golden
questions and a thousand random ones, prints one line and exits 0, or says why not and exits 1.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from muxrec.bundle.golden import check_golden
from muxrec.bundle.reader import Bundle
from muxrec.errors import BundleError, MuxrecError

TIMEOUT_S = 300.0
RANDOM_QUERIES = 1000
UNIT_TOLERANCE = 1e-3
"""Vectors are divided by their norm in float32; more than this is damage."""
PARTS_TOLERANCE = 0.02
"""Parts are kept in float16, M of them are summed."""


def probe_bundle(folder: Path, *, timeout_s: float = TIMEOUT_S, digest: str | None = None) -> str:
    """Probe a bundle in a subprocess and return the line that it printed.

    Args:
        folder: The bundle.
        timeout_s: Longest time that the probe may take.
        digest: The digest that the bundle must have; None takes any.

    Raises:
        BundleError: The bundle was refused, the probe crashed or took too long.
    """
    command = [
        sys.executable,
        "-m",
        "muxrec.bundle.probe",
        str(folder),
        *([digest] if digest else []),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"{folder}: the probe took more than {timeout_s:g} s: refused") from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise BundleError(f"{folder}: the probe was killed by {name} while loading it: refused")
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BundleError(said[-1])
    return done.stdout.strip()


def probe(folder: Path, *, digest: str | None = None) -> str:
    """Verify, load and question a bundle in this process; returns a line about it.

    Raises:
        BundleError: Something is wrong with it.
    """
    bundle = Bundle.open(folder, digest=digest)
    _check_arrays(bundle)
    bundle.encoder()
    _ask_at_random(bundle)
    report = check_golden(bundle)
    return (
        f"ok digest={bundle.digest} items={bundle.count} golden={report.queries} "
        f"recall={report.recall:.3f} tower_error={report.tower_error:.1e}"
    )


def main(arguments: list[str]) -> int:
    """Probe the folder in ``arguments``; returns the exit code."""
    try:
        line = probe(Path(arguments[0]), digest=arguments[1] if len(arguments) > 1 else None)
    except MuxrecError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{line}\n")
    return 0


def _check_arrays(bundle: Bundle) -> None:
    norms = np.linalg.norm(bundle.vectors, axis=1)
    # An item of which nothing at all is known has the zero vector.
    sound = (np.abs(norms - 1) <= UNIT_TOLERANCE) | (norms <= UNIT_TOLERANCE)
    _demand(bool(sound.all()), bundle, "vectors are not unit")
    summed = bundle.parts.astype(np.float32).sum(axis=1)
    gap = float(np.abs(summed - bundle.vectors).max())
    _demand(gap <= PARTS_TOLERANCE, bundle, f"parts miss their vector by {gap:.1e}")
    neighbours = bundle.neighbours
    inside = bool(((neighbours >= 0) & (neighbours < bundle.count)).all())
    _demand(inside, bundle, "neighbours point outside the catalogue")
    _demand(bool(np.isfinite(bundle.scores).all()), bundle, "scores are not finite")
    _demand(len(bundle.item_ids) == bundle.count, bundle, "item ids do not match the vectors")
    for position in {0, bundle.count - 1}:
        bundle.image(position)


def _ask_at_random(bundle: Bundle) -> None:
    drawn = np.random.default_rng(0).normal(size=(RANDOM_QUERIES, bundle.dim)).astype(np.float32)
    index = bundle.index()
    index.search(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), min(10, bundle.count))


def _demand(holds: bool, bundle: Bundle, what: str) -> None:
    if not holds:
        raise BundleError(f"{bundle.folder}: {what}: refused")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
