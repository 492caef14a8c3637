"""Every recipe in the repository and in the package parses and says what it needs."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from muxrec.recipe.load import dump_recipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "platform").rglob("recipes/*.yaml")])


@pytest.fixture(autouse=True)
def _data_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUXREC_DATA", "data-sets")


def test_the_promised_recipes_are_shipped() -> None:
    names = {path.stem for path in SHIPPED}
    assert {"demo", "movies", "movielens-100k", "grocery"} <= names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_parses_and_is_called_like_its_file(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    again = tmp_path / "again.yaml"
    again.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_opens_with_what_it_is_and_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    head = text[: text.index("\nname:")]
    assert head.startswith("# ")
    assert "muxrec " in head
    assert len(text.splitlines()) <= 80


def test_the_demo_recipe_is_found_in_the_installed_package() -> None:
    assert files("muxrec").joinpath("recipes/demo.yaml").is_file()
