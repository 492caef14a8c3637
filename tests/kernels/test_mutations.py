"""Seeded defects: each must be caught by the comparison that the kernel's test makes.

Every defect is one edit of the kernel's source. An edit that no longer applies fails too, so the
list cannot go stale in silence.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("triton", reason="triton has wheels for Linux only")

from muxrec_kernels.multiplexed_lookup import autograd, reference, triton_kernel
from muxrec_kernels.testing import TOLERANCES, Jagged, make_jagged, norm_ratio, poisoned_outputs

FORWARD, BACKWARD = "forward", "backward"
SEGMENT_MASK = "alive = at < stop"
DEFECTS = {
    "ids beyond the bag are read": (FORWARD, "alive = at < stop", "alive = at <= stop"),
    "the bag's last id is missed": (FORWARD, "alive = at < stop", "alive = at < stop - 1"),
    "the last column is missed": (FORWARD, "columns < D\n", "columns < D - 1\n"),
    "the last row is never read": (
        FORWARD,
        "row = hash_rows(found, seed, rows)",
        "row = tl.minimum(hash_rows(found, seed, rows), rows - 2)",
    ),
    "rows are shifted by one": (
        FORWARD,
        "row = hash_rows(found, seed, rows)",
        "row = hash_rows(found, seed, rows) + 1",
    ),
    "an empty bag divides by zero": (
        FORWARD,
        "tl.maximum(last - first, 1).to(tl.float32)",
        "(last - first).to(tl.float32)",
    ),
    "an empty bag is not written": (
        FORWARD,
        "mask=in_batch[:, None] & is_column[None, :])",
        "mask=(in_batch & (last > first))[:, None] & is_column[None, :])",
    ),
    "all slots hash with the first seed": (
        FORWARD,
        "seed = tl.load(slot_seeds + slot)",
        "seed = tl.load(slot_seeds)",
    ),
    "a duplicate is dropped": (BACKWARD, SEGMENT_MASK, "alive = at < start + 1"),
    "a long run is cut": (BACKWARD, SEGMENT_MASK, "alive = at < tl.minimum(stop, start + LANES)"),
    "the neighbour's gradient leaks in": (BACKWARD, SEGMENT_MASK, "alive = at <= stop"),
    "the pooling is forgotten": (BACKWARD, "values = values * scale[:, None]", "values = values"),
    "the last gradient row is not written": (
        BACKWARD,
        "tl.sum(sums, axis=0), mask=is_column)",
        "tl.sum(sums, axis=0), mask=is_column & (segment < tl.num_programs(0) - 1))",
    ),
}

# 160 ids over 3 rows: the first and the last row are read too, by runs longer than any tile.
BAGS = make_jagged([0, 3, 1, 0, 70, 90], batch_size=3, seed=1)
ROWS, WIDTH = 3, 12


def load(source: str, folder: Path) -> ModuleType:
    path = folder / "mutant.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("mutant", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def worst_ratio(kernels: ModuleType, bags: Jagged = BAGS) -> dict[str, float]:
    """Distance of the kernels' forward and gradient from the reference in float64."""
    # Guard rows of a large number around the table make a read outside of it visible.
    guarded = torch.full((ROWS + 2, WIDTH), 1e6)
    guarded[1:-1] = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
    table = guarded[1:-1]
    features, seeds = torch.tensor([1, 0, 0]), torch.tensor([11, -7, 5])
    arguments = (bags.ids, bags.offsets, features, seeds)
    options = {"batch_size": bags.batch_size, "weights": None, "pooling": "mean"}
    exact = table.double().requires_grad_()
    out = reference.multiplexed_lookup(exact, *arguments, **options)  # type: ignore[arg-type]
    direction = torch.linspace(0.1, 1.0, out.numel()).view(out.shape)
    out.backward(direction.double())
    with poisoned_outputs():
        found = autograd.launch_forward(kernels, table, *arguments, **options)  # type: ignore[arg-type]
        rows, values = autograd.launch_backward(
            kernels,
            direction,
            *arguments,
            rows=ROWS,
            width=WIDTH,
            **options,  # type: ignore[arg-type]
        )
    gradient = torch.zeros(ROWS, WIDTH).index_copy(0, rows, values)
    return {
        FORWARD: norm_ratio(found, out.detach()),
        BACKWARD: norm_ratio(gradient, exact.grad.to_dense()),
    }


def test_the_sound_kernels_pass(tmp_path: Path) -> None:
    source = Path(triton_kernel.__file__).read_text(encoding="utf-8")
    ratios = worst_ratio(load(source, tmp_path))
    assert max(ratios.values()) <= TOLERANCES[torch.float32]


def mutant_of(name: str) -> str:
    """The kernels' source with the defect ``name``."""
    where, sound, defect = DEFECTS[name]
    source = Path(triton_kernel.__file__).read_text(encoding="utf-8")
    assert sound in source, "the defect no longer applies: rewrite it"
    head, tail = source.split("def segment_kernel", 1)
    parts = {FORWARD: head, BACKWARD: tail}
    assert sound in parts[where], "the defect applies to the other kernel: rewrite it"
    parts[where] = parts[where].replace(sound, defect)
    return "def segment_kernel".join(parts.values())


@pytest.fixture(scope="module")
def distances(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Distance of every mutant, measured in a process of their own.

    A mutant that reads outside of its tensors may end that process; its distance is infinite.
    """
    folder, found, left = tmp_path_factory.mktemp("mutants"), {}, list(DEFECTS)
    while left:
        command = [sys.executable, __file__, str(folder), *left]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode > 0:
            raise AssertionError(done.stderr)
        found |= dict(json.loads(line) for line in done.stdout.splitlines())
        left = [name for name in left if name not in found]
        if left and done.returncode < 0:
            found[left.pop(0)] = math.inf
    return found


@pytest.mark.parametrize("name", DEFECTS)
def test_a_seeded_defect_is_caught(name: str, distances: dict[str, float]) -> None:
    assert distances[name] > 100 * TOLERANCES[torch.float32]


def main() -> None:
    for name in sys.argv[2:]:
        # A folder of its own: sources and compiled modules are cached by their path.
        folder = Path(sys.argv[1]) / str(list(DEFECTS).index(name))
        folder.mkdir(exist_ok=True)
        ratio = worst_ratio(load(mutant_of(name), folder))[DEFECTS[name][0]]
        sys.stdout.write(json.dumps([name, ratio]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
