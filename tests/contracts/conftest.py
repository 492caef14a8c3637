"""The four source roots and their modules."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOTS = {
    "platform": "muxrec",
    "kernels": "muxrec_kernels",
    "jobs": "muxrec_jobs",
    "serving": "muxrec_serving",
}


@pytest.fixture(scope="session")
def source_roots(repository: Path) -> dict[Path, str]:
    """Source root -> the one import package in it."""
    return {repository / root: package for root, package in ROOTS.items()}


@pytest.fixture(scope="session")
def syntax_trees(source_roots: dict[Path, str]) -> dict[str, ast.Module]:
    """Dotted module name -> syntax tree, of every module of the four packages."""
    trees = {}
    for root in source_roots:
        for path in sorted(root.rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            trees[name.removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return trees
