"""The first line on a machine that lacks something says what, and what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BASE_TOOLS = ("sh", "sed", "df", "printf", "env", "make", "uname", "cat", "find", "rm", "echo")
Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def check(tmp_path: Path, repository: Path) -> Check:
    """Runs the check on a made-up machine that has the named programs only."""

    def run(
        *,
        java: str | None = "17.0.9",
        compiler: bool = True,
        python: str = sys.executable,
        free_kb: str = "0",
        venv: str = "absent",
    ) -> subprocess.CompletedProcess[str]:
        tools = tmp_path / "bin"
        shutil.rmtree(tools, ignore_errors=True)
        tools.mkdir()
        for name in BASE_TOOLS:
            (tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
        if java is not None:
            write_program(tools / "java", f"echo 'openjdk version \"{java}\" 2024-01-01' >&2")
        if compiler:
            write_program(tools / "g++", "exit 0")
        return subprocess.run(
            ["sh", str(repository / "requirements" / "check_machine.sh"), python, venv],
            capture_output=True,
            text=True,
            env={"PATH": str(tools), "MUXREC_SETUP_KB": free_kb},
            cwd=tmp_path,
            check=False,
        )

    return run


def write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)


def test_a_complete_machine_passes_in_silence(check: Check) -> None:
    done = check()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("lacking", "first_line"),
    [
        (
            {"java": None},
            "missing: Java 17 or newer for Spark, found none (apt-get install openjdk",
        ),
        ({"java": "11.0.2"}, "missing: Java 17 or newer for Spark, found 11 ("),
        ({"java": "1.8.0_392"}, "missing: Java 17 or newer for Spark, found 1 ("),
        ({"compiler": False}, "missing: a C++ compiler for hnswlib"),
        ({"python": ""}, "missing: Python 3.11 or newer"),
        ({"python": "/nowhere/python3"}, "missing: Python 3.11 or newer"),
        ({"free_kb": "999999999999"}, "missing: disk space: "),
    ],
)
def test_what_is_missing_is_the_first_line(
    check: Check, lacking: dict[str, object], first_line: str
) -> None:
    done = check(**lacking)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith(first_line)
    assert len(done.stderr.splitlines()) == 1


def test_an_old_python_is_named(check: Check, tmp_path: Path) -> None:
    write_program(tmp_path / "python3.10", "exit 1")
    done = check(python=str(tmp_path / "python3.10"))
    assert "missing: Python 3.11" in done.stderr


def test_everything_that_is_missing_is_told_at_once(check: Check) -> None:
    assert len(check(java=None, compiler=False, python="").stderr.splitlines()) == 3


def test_an_installed_environment_needs_java_only(check: Check, tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    write_program(tmp_path / "venv" / "bin" / "muxrec", "exit 0")
    venv = str(tmp_path / "venv")
    done = check(compiler=False, free_kb="999999999999", python="", venv=venv)
    assert done.returncode == 0
    assert check(java=None, venv=venv).returncode == 1


def test_make_says_what_is_missing_before_it_installs_anything(
    check: Check, tmp_path: Path, repository: Path
) -> None:
    check(java=None)
    done = subprocess.run(
        [
            "make",
            "-C",
            str(repository),
            "demo",
            f"VENV={tmp_path / 'venv'}",
            f"PYTHON={sys.executable}",
        ],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path / "bin"), "MUXREC_SETUP_KB": "0"},
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.startswith("missing: Java 17 or newer")
    assert not (tmp_path / "venv").exists()


def test_make_help_lists_every_goal(repository: Path) -> None:
    done = subprocess.run(
        ["make", "-C", str(repository)], capture_output=True, text=True, check=True
    )
    for goal in ("setup", "demo", "test", "lint", "types", "bench", "clean"):
        assert f"  make {goal} " in done.stdout


@pytest.mark.parametrize(("has_gpu", "device"), [(True, "gpu"), (False, "cpu")])
def test_make_chooses_the_device_by_nvidia_smi(
    tmp_path: Path, repository: Path, has_gpu: bool, device: str
) -> None:
    write_program(tmp_path / "nvidia-smi", "exit 0" if has_gpu else "exit 9")
    done = subprocess.run(
        ["make", "-C", str(repository), "-n", "setup", f"VENV={tmp_path / 'venv'}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
    )
    assert f".installed-{device}" in done.stdout


def test_a_second_setup_installs_nothing(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "bin").mkdir()
    write_program(tmp_path / "bin" / "muxrec", "echo doctor")
    (tmp_path / ".installed-cpu").touch()
    done = subprocess.run(
        [
            "make",
            "-C",
            str(repository),
            "setup",
            f"VENV={tmp_path}",
            "DEVICE=cpu",
            f"PYTHON={sys.executable}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "installing" not in done.stdout
    assert "doctor" in done.stdout
