"""The layout that keeps `platform` the standard library's, and every room findable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_each_source_root_holds_exactly_one_package(source_roots: dict[Path, str]) -> None:
    for root, package in source_roots.items():
        packages = [p.parent.name for p in root.glob("*/__init__.py")]
        assert packages == [package]
        assert not (root / "__init__.py").exists(), f"{root.name}/ would shadow a real module"


def test_platform_is_still_the_standard_library(repository: Path) -> None:
    program = "import platform; print(platform.__file__); platform.system()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=repository, check=True
    )
    assert not Path(done.stdout.strip()).is_relative_to(repository / "platform")


def test_no_test_folder_is_a_package(repository: Path) -> None:
    assert list((repository / "tests").rglob("__init__.py")) == []


def test_no_module_hides_a_library(source_roots: dict[Path, str], repository: Path) -> None:
    libraries = {"triton", "torch", "onnx", "numpy", "mlflow", "pyspark", "platform"}
    folders = [*source_roots, repository / "tests"]
    found = [p for folder in folders for p in folder.rglob("*.py") if p.stem in libraries]
    assert found == []


def test_there_is_no_drawer_for_odds_and_ends(source_roots: dict[Path, str]) -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "misc"}
    found = [p for root in source_roots for p in root.rglob("*") if p.stem in drawers]
    assert found == []


def test_no_source_file_is_too_long_to_hold_in_the_head(source_roots: dict[Path, str]) -> None:
    limit = 400
    counted = {
        p.name: len(p.read_text(encoding="utf-8").splitlines())
        for root in source_roots
        for p in root.rglob("*.py")
    }
    assert {name: lines for name, lines in counted.items() if lines > limit} == {}
