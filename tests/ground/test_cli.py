"""The command line: lazy, one error line, exit codes."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from muxrec import __version__, cli
from muxrec.bench.command import BENCHES
from muxrec.errors import DataError, RecipeError
from muxrec.lazy_group import LazyCommand, LazyGroup
from muxrec.recipe.model import Recipe
from muxrec.recipe.option import recipe_argument

ENTRIES = {**cli.COMMANDS, **{f"bench {name}": entry for name, entry in BENCHES.items()}}


@click.command()
@recipe_argument
def _echo(recipe: Recipe) -> None:
    click.echo(f"{recipe.name} {recipe.train.lr}")


@click.command()
def _fail() -> None:
    raise DataError("events.parquet is damaged")


@click.command()
def _crash() -> None:
    raise ValueError("one\ntwo")


@click.command()
def _absent_package() -> None:
    importlib.import_module("nowhere_to_be_found")


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root, room = logging.getLogger(), logging.getLogger("muxrec")
    handlers, level = list(root.handlers), room.level
    yield
    root.handlers[:] = handlers
    room.setLevel(level)


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of this file under the real entry point."""
    module = type(sys)("probe_commands")
    lazy = {}
    for command in (_echo, _fail, _crash, _absent_package):
        name = command.callback.__name__.strip("_").replace("_", "-")  # type: ignore[union-attr]
        setattr(module, name, command)
        lazy[name] = LazyCommand(f"probe_commands:{name}", "A probe.", "train,cpu")
    lazy["absent"] = LazyCommand("a_room_not_installed.command:x", "A probe.", "serving,cpu")
    monkeypatch.setitem(sys.modules, "probe_commands", module)
    monkeypatch.setattr(cli.cli, "lazy", lazy)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_named_command_exists_and_is_a_click_command(name: str) -> None:
    module, attribute = ENTRIES[name].target.split(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.help


def test_help_lists_every_command_and_imports_no_room() -> None:
    program = (
        "import sys; from muxrec.cli import run; run(['--help']);"
        "heavy = {'torch', 'pyspark', 'mlflow', 'numpy', 'pydantic'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [name for name in cli.COMMANDS if f"\n  {name} " not in done.stdout] == []


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == cli.DONE
    assert capsys.readouterr().out == f"muxrec, version {__version__}\n"


@pytest.mark.usefixtures("probes")
@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["fail"], 1, "error: events.parquet is damaged"),
        (["crash"], 1, "error: ValueError: one two (muxrec --debug shows the traceback)"),
        (
            ["absent-package"],
            1,
            "nowhere_to_be_found is not installed: pip install",
        ),
        (["absent"], 1, "a_room_not_installed is not installed: pip install 'muxrec[serving,cpu]'"),
        (["echo", "no.yaml"], 2, "no.yaml: cannot be read as a recipe: No such file"),
        (["echo"], 2, "Missing argument 'RECIPE'"),
        (["nope"], 2, "No such command 'nope'"),
        (["fail", "--nope"], 2, "No such option"),
    ],
)
def test_failures_are_told_in_one_line_with_their_exit_code(
    arguments: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == code
    said = capsys.readouterr()
    assert line in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


@pytest.mark.usefixtures("probes")
def test_debug_shows_the_traceback_and_keeps_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--debug", "fail"]) == cli.FAILED
    assert "Traceback" in capsys.readouterr().err
    assert cli.run(["--debug", "echo", "no.yaml"]) == cli.USAGE


@pytest.mark.usefixtures("probes")
def test_a_recipe_command_takes_overrides(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MUXREC_DATA", "anywhere")
    path = str(repository / "recipes" / "movies.yaml")
    assert cli.run(["echo", path, "--set", "train.lr=3e-4", "--set", "name=mine"]) == cli.DONE
    assert capsys.readouterr().out == "mine 0.0003\n"


@pytest.mark.usefixtures("probes")
def test_several_recipe_faults_are_several_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("nam: x\ndata: 3\nfeatures: []\n", encoding="utf-8")
    assert cli.run(["echo", str(path)]) == cli.USAGE
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_broken_pipe_ends_quietly() -> None:
    program = "from muxrec.cli import main; import sys; sys.argv = ['muxrec', '--help']; main()"
    done = subprocess.run(
        f'{sys.executable} -c "{program}" | true', shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""


def test_an_interrupt_is_told_and_coded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LazyGroup, "invoke", interrupt)
    assert cli.run(["doctor"]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_only_the_command_line_installs_a_handler() -> None:
    program = "import logging, muxrec.log; print(len(logging.getLogger().handlers))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "0\n"
    assert issubclass(RecipeError, Exception)
    assert logging.getLogger("muxrec").handlers == []
