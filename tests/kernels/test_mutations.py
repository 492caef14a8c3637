"""Seeded defects: each must be caught by the comparison that the kernel's test makes.

Every defect is one edit of a kernel's source. An edit that no longer applies fails too, so the
lists in ``defects/`` cannot go stale in silence.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from muxrec_kernels.operations import OPERATIONS

HERE = Path(__file__).parent
WORKER = HERE / "mutation_worker.py"
SOUND = ""


@cache
def defects_of(operation: str) -> ModuleType:
    path = HERE / "defects" / f"{operation}.py"
    spec = importlib.util.spec_from_file_location(f"defects_of_{operation}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAMES = [(operation, name) for operation in OPERATIONS for name in defects_of(operation).DEFECTS]


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, dict[str, float]]]:
    """Distances of every operation's sound kernels and mutants, filled when first asked for."""
    return {}


def distances_of(operation: str, folder: Path) -> dict[str, dict[str, float]]:
    """Distances by defect, measured in a process of their own.

    A mutant that reads outside of its tensors may end that process; its distance is infinite.
    """
    found, left = {}, [SOUND, *defects_of(operation).DEFECTS]
    listed = HERE / "defects" / f"{operation}.py"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    while left:
        command = [sys.executable, str(WORKER), str(listed), str(folder), *left]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode > 0:
            raise AssertionError(done.stderr)
        found |= dict(json.loads(line) for line in done.stdout.splitlines())
        left = [name for name in left if name not in found]
        if left and done.returncode < 0:
            lost = left.pop(0)
            assert lost != SOUND, "the sound kernels ended their process"
            found[lost] = {defects_of(operation).DEFECTS[lost][0]: math.inf}
    return found


@pytest.fixture
def distances(operation: str, measured: dict, tmp_path_factory: pytest.TempPathFactory) -> dict:
    if operation not in measured:
        measured[operation] = distances_of(operation, tmp_path_factory.mktemp(operation))
    return measured[operation]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_sound_kernels_pass(operation: str, distances: dict) -> None:
    assert max(distances[SOUND].values()) <= defects_of(operation).TOLERANCE


@pytest.mark.parametrize(("operation", "name"), NAMES)
def test_a_seeded_defect_is_caught(operation: str, name: str, distances: dict) -> None:
    listed = defects_of(operation)
    function = listed.DEFECTS[name][0]
    assert distances[name][function] > 100 * listed.TOLERANCE
