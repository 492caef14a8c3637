"""What a result was made of: recipe, data, code, versions, command."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from muxrec import __version__
from muxrec.recipe.load import recipe_hash
from muxrec.recipe.model import Recipe

_PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "implicit",
    "pyarrow",
    "torch",
    "torchrec",
    "pyspark",
)


def run_facts(recipe: Recipe, *, digest: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Facts for the report and ``metrics.json``: names to short texts."""
    return {
        "recipe": recipe.name,
        "recipe hash": recipe_hash(recipe),
        "dataset digest": digest,
        "git commit": git_commit(),
        "command": " ".join(["muxrec", *sys.argv[1:]]),
        "seeds": ", ".join(map(str, seeds)) or "none",
        "bootstrap resamples": str(recipe.evaluation.bootstrap),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": ", ".join(_versions()),
    }


def git_commit() -> str:
    """Commit of the checkout that this code runs from; ``unknown`` outside of one.

    Says ``(changed)`` where tracked files differ from the commit.
    """
    here = Path(__file__).resolve().parent
    commit = _git(here, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return "unknown"
    return f"{commit} (changed)" if _git(here, "status", "--porcelain", "-uno") else commit


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _versions() -> list[str]:
    found = [f"muxrec {__version__}", f"python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found
