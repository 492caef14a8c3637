"""The demo's parts: its recipe, its server process and its tables."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from muxrec.demo.command import demo_recipe, serve_command
from muxrec.demo.scores import neighbour_table, recall_table
from muxrec.demo.server import free_port, get_json, running_server
from muxrec.errors import MuxrecError


def file_server(folder: Path, port: int) -> list[str]:
    words = ["-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    return [sys.executable, *words]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder that a plain file server answers /health/ready from."""
    (tmp_path / "site" / "health").mkdir(parents=True)
    (tmp_path / "site" / "health" / "ready").write_text("yes", encoding="utf-8")
    (tmp_path / "site" / "version").write_text('{"bundle": "abc"}', encoding="utf-8")
    return tmp_path / "site"


def test_a_server_lasts_as_long_as_the_block(site: Path, tmp_path: Path) -> None:
    port = free_port()
    with running_server(file_server(site, port), port=port, log=tmp_path / "log") as base:
        assert get_json(f"{base}/version") == {"bundle": "abc"}
    with pytest.raises(URLError):
        urlopen(f"{base}/version", timeout=5)


def test_a_server_is_stopped_when_the_block_fails(site: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        pytest.raises(KeyError),
        running_server(file_server(site, port), port=port, log=tmp_path / "log"),
    ):
        raise KeyError
    with pytest.raises(URLError):
        urlopen(f"http://127.0.0.1:{port}/version", timeout=5)


def test_a_server_that_ends_is_told_with_its_last_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('starting'); print('port in use'); raise SystemExit(3)"]
    with (
        pytest.raises(MuxrecError, match=r"ended with code 3: port in use \(.*log\)"),
        running_server(command, port=free_port(), log=tmp_path / "log"),
    ):
        pass


def test_an_error_answer_is_told_with_its_text(site: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        running_server(file_server(site, port), port=port, log=tmp_path / "log") as base,
        pytest.raises(MuxrecError, match=r"/nothing answered 404: .*File not found"),
    ):
        get_json(f"{base}/nothing")


def test_everything_of_the_demo_is_inside_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a folder: with # signs"
    recipe = demo_recipe(folder)
    source = recipe.data.source
    assert source.interactions is not None
    assert source.items is not None
    paths = [source.interactions.path, source.items.path, recipe.output or ""]
    assert all(Path(path).is_relative_to(folder) for path in paths)
    command = serve_command(recipe, port=1234)
    assert command[3:6] == ["serve", "--model", "demo@champion"]
    assert f"sqlite:///{folder}/mlflow.db" in command


def test_a_neighbour_line_tells_score_title_truth_and_reasons() -> None:
    found = {
        "item_id": "sku-1",
        "score": 0.91234,
        "fields": {"title": "Fine pan"},
        "reasons": {"text": 0.5, "id": -0.1},
    }
    (head, line) = neighbour_table([found], {"sku-1": "kitchen, berry"}, title="near").splitlines()
    assert head == "near"
    assert line.split("  ")[1:3] == ["0.912", "Fine pan"]
    assert line.endswith("kitchen, berry      text +0.50, id -0.10")


def test_the_recall_table_has_a_line_per_row_and_a_dash_for_none() -> None:
    def part(name: str, means: dict[str, float | None]) -> dict[str, object]:
        rows = [{"name": n, "metrics": {"recall_at_10": {"mean": m}}} for n, m in means.items()]
        return {"name": name, "rows": rows}

    slices = [
        part("all", {"main": 0.5, "popularity": 0.04}),
        part("warm", {}),
        part("cold", {"main": 0.25, "popularity": None}),
    ]
    lines = recall_table({"truths": [{"slices": slices}]}).splitlines()
    assert [line.split() for line in lines] == [
        ["recall@10,", "%", "all", "items", "new", "items"],
        ["main", "50.0", "25.0"],
        ["popularity", "4.0", "-"],
    ]
