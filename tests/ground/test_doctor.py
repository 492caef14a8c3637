"""The doctor names every mismatch that was planted, and calls the tested set sound."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from muxrec.doctor.checks import check_inventory
from muxrec.doctor.inventory import Inventory, java_major, java_version, read_packages
from muxrec.doctor.probes import probe_backends

SOUND = Inventory(
    python="3.11.7",
    system="Linux",
    machine="x86_64",
    packages={
        "torch": ("2.13.0+cpu",),
        "torchrec": ("1.8.0",),
        "fbgemm-gpu": ("1.8.0+cpu",),
        "fbgemm-gpu-cpu": ("1.8.0",),
        "triton": ("3.7.1",),
        "pyspark": ("4.3.0",),
        "pandas": ("2.3.3",),
        "onnxruntime": ("1.31.1",),
        "hnswlib": ("0.8.0",),
        "mlflow": ("3.17.2",),
        "mlflow-skinny": ("3.17.2",),
    },
    java="17.0.15",
    compiler="/usr/bin/g++",
    free_bytes=10**11,
    backends={"torchrec": "ok: looked up (1, 4)"},
)


def with_packages(changes: Mapping[str, str | None]) -> Inventory:
    packages = dict(SOUND.packages)
    for name, version in changes.items():
        packages.pop(name, None)
        if version is not None:
            packages[name] = (version,)
    return dataclasses.replace(SOUND, packages=packages)


def test_the_tested_set_is_sound() -> None:
    assert check_inventory(SOUND) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"fbgemm-gpu-cpu": "1.7.0"}, "fbgemm-gpu-cpu 1.7.0 beside torch 2.13.0+cpu"),
        ({"torchrec": "1.9.0"}, "torchrec 1.9.0 beside torch 2.13.0+cpu: torch 2.13 needs 1.8"),
        ({"fbgemm-gpu": "1.8.0"}, "fbgemm-gpu 1.8.0 (CUDA) beside fbgemm-gpu-cpu 1.8.0"),
        ({"fbgemm-gpu-cpu": None}, "is the empty stand-in and fbgemm-gpu-cpu is missing"),
        ({"onnxruntime-gpu": "1.31.1"}, "onnxruntime 1.31.1 beside onnxruntime-gpu 1.31.1"),
        ({"triton": "3.6.0"}, "triton 3.6.0 beside torch 2.13.0+cpu, which needs triton 3.7"),
        ({"pandas": "3.0.1"}, "pandas 3.0.1 beside pyspark 4.3.0, which supports pandas 2 only"),
        ({"mlflow-skinny": "3.16.0"}, "mlflow 3.17.2 beside mlflow-skinny 3.16.0"),
    ],
)
def test_a_planted_mismatch_is_a_fault_with_a_remedy(
    changes: Mapping[str, str | None], what: str
) -> None:
    (finding,) = check_inventory(with_packages(changes))
    assert finding.level == "fault"
    assert what in finding.what
    assert finding.remedy


@pytest.mark.parametrize(
    ("changes", "level", "what"),
    [
        ({"python": "3.10.4"}, "fault", "Python 3.10.4: muxrec needs 3.11"),
        ({"java": None}, "fault", "no Java found"),
        ({"java": "11.0.2"}, "fault", "Java 11.0.2: Spark 4 needs 17"),
        ({"java": "1.8.0_392"}, "fault", "Java 1.8.0_392: Spark 4 needs 17"),
        ({"free_bytes": 10**9}, "warning", "1.0 GB free here"),
        ({"gpus": ("GPU 0: NVIDIA H100",)}, "warning", "torch 2.13.0+cpu is the CPU build"),
        ({"backends": {"torchrec": "OSError: no symbol"}}, "fault", "OSError: no symbol"),
    ],
)
def test_a_planted_machine_fault_is_named(
    changes: dict[str, object], level: str, what: str
) -> None:
    (finding,) = check_inventory(dataclasses.replace(SOUND, **changes))  # type: ignore[arg-type]
    assert finding.level == level
    assert what in finding.what


def test_faults_come_before_warnings() -> None:
    machine = dataclasses.replace(SOUND, free_bytes=0, java=None)
    assert [finding.level for finding in check_inventory(machine)] == ["fault", "warning"]


def test_a_machine_without_the_training_room_is_sound() -> None:
    alone = dataclasses.replace(SOUND, packages={"hnswlib": ("0.8.0",)}, java=None, backends={})
    assert check_inventory(alone) == []


def test_a_missing_compiler_matters_only_while_hnswlib_is_missing() -> None:
    machine = dataclasses.replace(SOUND, compiler=None)
    assert check_inventory(machine) == []
    bare = dataclasses.replace(with_packages({"hnswlib": None}), compiler=None)
    assert "no C++ compiler" in check_inventory(bare)[0].what


def test_an_untested_torch_is_a_warning() -> None:
    newer = with_packages(
        {"torch": "2.14.0", "torchrec": "1.9.0", "fbgemm-gpu": None, "fbgemm-gpu-cpu": "1.9.0"}
    )
    (finding,) = check_inventory(newer)
    assert (finding.level, "never tested" in finding.what) == ("warning", True)


def write_distribution(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(text, encoding="utf-8")


def test_distributions_are_read_from_their_metadata(tmp_path: Path) -> None:
    write_distribution(tmp_path, "Fbgemm_GPU", "1.8.0")
    write_distribution(tmp_path, "fbgemm-gpu-cpu", "1.8.0")
    write_distribution(tmp_path, "torch", "2.13.0")
    write_distribution(tmp_path, "torch", "2.12.0")
    write_distribution(tmp_path, "unrelated", "1.0")
    packages = read_packages([str(tmp_path)])
    assert sorted(packages) == ["fbgemm-gpu", "fbgemm-gpu-cpu", "torch"]
    findings = check_inventory(dataclasses.replace(SOUND, packages=packages))
    assert any("both own the module fbgemm_gpu" in finding.what for finding in findings)
    assert any("torch is installed more than once" in finding.what for finding in findings)


def test_a_probe_tells_what_works_and_what_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "hnswlib.py"
    broken.write_text("raise ImportError('undefined symbol: planted')", encoding="utf-8")
    assert probe_backends({"hnswlib": ("0.8.0",)})["hnswlib"] == "ok: built an index of 2"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = probe_backends({"hnswlib": ("0.8.0",)})["hnswlib"]
    assert said == "ImportError: undefined symbol: planted"


def test_the_doctor_says_which_backend_the_kernels_take(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton has wheels for Linux only")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a CUDA device: operations take the Triton backend")
    installed = {"triton": ("3.7.1",)}
    monkeypatch.delenv("MUXREC_BACKEND", raising=False)
    ran = "ok: kernels ran in the interpreter; operations on cpu tensors take the reference backend"
    assert probe_backends(installed)["triton"] == ran
    monkeypatch.setenv("MUXREC_BACKEND", "reference")
    assert probe_backends(installed)["triton"] == f"{ran}, forced by MUXREC_BACKEND"
    monkeypatch.setenv("MUXREC_BACKEND", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    said = probe_backends(installed)["triton"]
    assert "backend triton was asked for on cpu but Triton needs a CUDA device" in said


@pytest.mark.parametrize(("version", "major"), [("17.0.15", 17), ("21", 21), ("1.8.0_392", 8)])
def test_java_counts_its_versions_in_two_ways(version: str, major: int) -> None:
    assert java_major(version) == major


def test_java_home_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019' >&2\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java_version() == "11.0.2"


def run_doctor(**environment: str) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "muxrec.cli", "doctor", "--quick", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_the_command_exits_1_for_a_planted_distribution(tmp_path: Path) -> None:
    write_distribution(tmp_path, "onnxruntime-gpu", "1.31.1")
    write_distribution(tmp_path, "onnxruntime", "1.31.1")
    code, report = run_doctor(PYTHONPATH=str(tmp_path))
    assert code == 1
    assert report["sound"] is False
    assert "both own the module onnxruntime" in json.dumps(report["findings"])
