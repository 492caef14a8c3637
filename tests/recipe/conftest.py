"""A small sound recipe as YAML text, and files made from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SOUND = """\
name: small
data:
  source: {kind: movielens, path: raw}
  split: {train: 0.8, validation: 0.1}
features:
  - name: item_id
    kind: id
    columns: item_id
    modality: id
    table: items
  - {name: words, kind: tokens, columns: [title], modality: text, table: shared, probes: 2}
tables:
  - {name: items, method: full, width: 8}
  - name: shared
    method: unified
    width: 4
    rows: 64
"""


@pytest.fixture
def sound() -> str:
    return SOUND


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
