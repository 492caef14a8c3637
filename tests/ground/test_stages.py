"""Stages run in order, are timed, and stop at the first failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from muxrec.recipe.load import load_recipe
from muxrec.run_command import run, save_resolved
from muxrec.stages import STAGES, StageFailedError, run_stages, stage_commands


def program(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_stages_run_in_order_and_are_timed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mark = "import sys; open(sys.argv[1], 'a').write(sys.argv[2]); print('working', sys.argv[2])"
    log = tmp_path / "log"
    times = run_stages({name: [*program(mark), str(log), name] for name in ("a", "b", "c")})
    assert log.read_text() == "abc"
    assert [(t.name, t.code) for t in times] == [("a", 0), ("b", 0), ("c", 0)]
    assert all(t.wall_s > 0 for t in times)
    lines = capfd.readouterr().out.splitlines()
    assert lines[:4] == ["[1/3] a", "working a", "[2/3] b", "working b"]
    assert lines[-1].split()[0] == "all"


def test_the_first_failure_is_named_and_ends_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    never = tmp_path / "never"
    commands = {
        "data": program("pass"),
        "train": [*program("import sys; sys.exit(3)"), "runs/x/recipe.yaml"],
        "eval": program(f"open({str(never)!r}, 'w')"),
    }
    with pytest.raises(StageFailedError) as caught:
        run_stages(commands)
    assert str(caught.value).startswith("stage train failed with exit code 3 after 0 s")
    assert str(caught.value).endswith("go on with: muxrec run runs/x/recipe.yaml --from train")
    assert not never.exists()
    table = capfd.readouterr().out
    assert "failed" in table
    assert "\neval              -\n" in table


def test_a_run_can_begin_at_any_stage() -> None:
    assert list(stage_commands(Path("r.yaml"))) == list(STAGES)
    assert list(stage_commands(Path("r.yaml"), start="export")) == ["export", "index", "publish"]


def test_each_stage_is_a_process_of_this_interpreter() -> None:
    command = stage_commands(Path("r.yaml"))["data"]
    assert command == [sys.executable, "-m", "muxrec.cli", "data", "build", "r.yaml"]


def test_the_resolved_recipe_is_saved_with_the_run(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUXREC_DATA", "somewhere")
    overrides = [f"output={tmp_path / 'run'}", "train.epochs=3"]
    recipe = load_recipe(repository / "recipes" / "movies.yaml", overrides)
    path = save_resolved(recipe)
    monkeypatch.delenv("MUXREC_DATA")
    assert path == tmp_path / "run" / "recipe.yaml"
    assert load_recipe(path) == recipe


def test_an_unknown_stage_is_bad_usage(repository: Path) -> None:
    path = str(repository / "recipes" / "movies.yaml")
    done = CliRunner().invoke(run, [path, "--from", "nothing"])
    assert done.exit_code == 2
    assert "'data', 'train', 'eval', 'export', 'index', 'publish'" in done.output
