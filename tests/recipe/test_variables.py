"""Environment variables in the paths of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from muxrec.errors import RecipeError
from muxrec.recipe.load import load_recipe
from muxrec.recipe.variables import escape, expand

Writer = Callable[[str], Path]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${PLACE}/x", "here/x"),
        ("${PLACE:-there}/x", "here/x"),
        ("${AWAY:-there}/x", "there/x"),
        ("${AWAY:-}x", "x"),
        ("$${PLACE}", "${PLACE}"),
        ("$PLACE and ${", "$PLACE and ${"),
    ],
)
def test_references_are_replaced(text: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "here")
    monkeypatch.delenv("AWAY", raising=False)
    assert expand(text) == value


@pytest.mark.parametrize("text", ["${PLACE}", "$${PLACE}", "$$${", "${PLACE:-x}${", "plain$"])
def test_an_escaped_text_is_left_as_it_is(text: str) -> None:
    assert expand(escape(text)) == text


def test_a_variable_that_is_not_set_is_a_fault_at_its_line(
    sound: str, write_recipe: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUXREC_DATA", raising=False)
    monkeypatch.chdir("/")
    path = write_recipe(sound.replace("path: raw", 'path: "${MUXREC_DATA}/movies"'))
    with pytest.raises(RecipeError, match=r"yaml:3: data\.source\.path: .* MUXREC_DATA is not set"):
        load_recipe(path)


def test_the_data_folder_beside_a_checkout_is_found(
    sound: str, write_recipe: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUXREC_DATA", raising=False)
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "checkout").mkdir()
    path = write_recipe(sound.replace("path: raw", 'path: "${MUXREC_DATA}/movies"'))
    monkeypatch.chdir(tmp_path / "checkout")
    assert load_recipe(path).data.source.path == str(tmp_path / "shared" / "data" / "movies")


def test_only_paths_are_expanded(sound: str, write_recipe: Writer) -> None:
    path = write_recipe(sound.replace("columns: [title]", 'columns: ["${title}"]'))
    assert load_recipe(path).features[1].columns == ("${title}",)
