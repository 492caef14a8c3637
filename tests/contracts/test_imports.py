"""Who may import whom: contracts, single importers, and what a process really loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ONLY_IMPORTERS = {
    "torchrec": ("muxrec.tables", "muxrec.bench"),
    "fbgemm_gpu": (
        "muxrec.tables",
        "muxrec.bench",
        "muxrec_kernels.multiplexed_lookup.bench",
        "muxrec_kernels.quantised_lookup.bench",
        "muxrec_kernels.row_update.bench",
    ),
    "mlflow": ("muxrec.tracking", "muxrec.export", "muxrec_serving"),
    "pyspark": ("muxrec_jobs",),
    "hnswlib": ("muxrec.index", "muxrec_serving.bench"),
    "triton": ("muxrec_kernels",),
    "fastapi": ("muxrec_serving",),
    "yaml": ("muxrec.recipe",),
    "duckdb": ("muxrec_jobs.bench", "muxrec_jobs.bench_engines"),
}
"""Package -> the only modules (with what is below them) that import it."""

TORCH = {"torch", "torchrec", "triton", "fbgemm_gpu"}
TORCH_FREE = (
    "muxrec_serving.web.app",
    "muxrec_serving.command",
    "muxrec_serving.answering.service",
    "muxrec_jobs.commands",
    "muxrec.spec.features",
    "muxrec.recipe.load",
    "muxrec.bundle",
    "muxrec.index",
    "muxrec.features.encode",
    "muxrec.data.snapshot",
    "muxrec.evaluation.metrics",
)


def imports_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def test_the_import_linter_keeps_every_contract(repository: Path) -> None:
    program = Path(sys.executable).with_name("lint-imports")
    if not program.exists():
        pytest.skip("import-linter is not installed: pip install 'muxrec[lint]'")
    done = subprocess.run([program, "--no-cache"], capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("package", ONLY_IMPORTERS)
def test_a_package_is_imported_where_it_is_wrapped_only(
    syntax_trees: dict[str, ast.Module], package: str
) -> None:
    importers = {
        module
        for module, tree in syntax_trees.items()
        if any(name.split(".")[0] == package for name in imports_of(tree))
    }
    allowed = ONLY_IMPORTERS[package]
    strays = {m for m in importers if not any(m == a or m.startswith(f"{a}.") for a in allowed)}
    assert strays == set()


@pytest.mark.parametrize("module", TORCH_FREE)
def test_a_room_without_torch_loads_none(module: str) -> None:
    program = f"import sys, {module}; print(*sorted({TORCH!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_importing_muxrec_is_quick_and_brings_nothing() -> None:
    program = (
        "import sys; before = set(sys.modules); import muxrec; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert set(done.stdout.split()) <= {"muxrec", "__future__"}
