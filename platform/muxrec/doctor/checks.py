"""What does not fit together on a machine: pure functions of its inventory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from muxrec.doctor.inventory import Inventory, java_major

TRITON_OF_TORCH = {"2.13": "3.7"}
"""The triton that belongs to a torch, where it was tested."""

TORCH_MINOR_AHEAD = 5
"""fbgemm-gpu and torchrec 1.X belong to torch 2.(X + 5)."""

MIN_FREE_BYTES = 2 * 10**9
"""The demo's Spark, checkpoints and bundle need less than this."""


@dataclass(frozen=True)
class Finding:
    """One thing that does not fit.

    Attributes:
        level: ``fault`` when something would fail, ``warning`` otherwise.
        what: What was found, and what was expected.
        remedy: What to do.
    """

    level: Literal["fault", "warning"]
    what: str
    remedy: str


def check_inventory(inventory: Inventory) -> list[Finding]:
    """Everything that does not fit together, faults first; empty when all is sound."""
    findings = [finding for check in CHECKS for finding in check(inventory)]
    return sorted(findings, key=lambda finding: finding.level != "fault")


def _python(inventory: Inventory) -> Iterator[Finding]:
    if _minor(inventory.python) < (3, 11):
        what = f"Python {inventory.python}: muxrec needs 3.11 or newer"
        yield Finding("fault", what, "install Python 3.11 and make the environment again")


def _leftovers(inventory: Inventory) -> Iterator[Finding]:
    for name, versions in inventory.packages.items():
        if len(versions) > 1:
            what = f"{name} is installed more than once: {', '.join(versions)}"
            yield Finding(
                "fault", what, f"pip uninstall {name} until none is left, then install it"
            )


def _fbgemm_of_torch(inventory: Inventory) -> Iterator[Finding]:
    torch = inventory.version("torch")
    for name in ("fbgemm-gpu", "fbgemm-gpu-cpu", "torchrec"):
        version = inventory.version(name)
        if torch is None or version is None:
            continue
        (torch_major, torch_minor), (major, minor) = _minor(torch), _minor(version)
        if (torch_major, torch_minor) != (major + 1, minor + TORCH_MINOR_AHEAD):
            wanted = f"1.{torch_minor - TORCH_MINOR_AHEAD}"
            what = f"{name} {version} beside torch {torch}: torch 2.{torch_minor} needs {wanted}"
            yield Finding("fault", what, f"pip install '{name}=={wanted}.*'")


def _two_fbgemm(inventory: Inventory) -> Iterator[Finding]:
    cuda, cpu = inventory.version("fbgemm-gpu"), inventory.version("fbgemm-gpu-cpu")
    if cuda and cpu and not cuda.endswith("+cpu"):
        what = (
            f"fbgemm-gpu {cuda} (CUDA) beside fbgemm-gpu-cpu {cpu}: both own the module fbgemm_gpu"
        )
        remedy = (
            "pip uninstall -y fbgemm-gpu fbgemm-gpu-cpu; then on a CPU machine install "
            "requirements/fbgemm-gpu-shim, on a GPU machine fbgemm-gpu alone"
        )
        yield Finding("fault", what, remedy)
    if cuda and cuda.endswith("+cpu") and not cpu:
        what = f"fbgemm-gpu {cuda} is the empty stand-in and fbgemm-gpu-cpu is missing"
        yield Finding("fault", what, "pip install fbgemm-gpu-cpu==1.8.0")


def _two_onnxruntimes(inventory: Inventory) -> Iterator[Finding]:
    cpu, gpu = inventory.version("onnxruntime"), inventory.version("onnxruntime-gpu")
    if cpu and gpu:
        what = f"onnxruntime {cpu} beside onnxruntime-gpu {gpu}: both own the module onnxruntime"
        yield Finding("fault", what, "pip uninstall -y onnxruntime onnxruntime-gpu; install one")


def _triton_of_torch(inventory: Inventory) -> Iterator[Finding]:
    torch, triton = inventory.version("torch"), inventory.version("triton")
    if torch is None or triton is None:
        return
    wanted = TRITON_OF_TORCH.get(".".join(map(str, _minor(torch))))
    if wanted is None:
        what = f"torch {torch} with triton {triton} was never tested with muxrec"
        yield Finding("warning", what, "install from requirements/constraints.txt")
    elif wanted != ".".join(map(str, _minor(triton))):
        what = f"triton {triton} beside torch {torch}, which needs triton {wanted}"
        yield Finding("fault", what, f"pip install 'triton=={wanted}.*'")


def _pandas_of_pyspark(inventory: Inventory) -> Iterator[Finding]:
    pandas, pyspark = inventory.version("pandas"), inventory.version("pyspark")
    if pandas and pyspark and _minor(pandas)[0] >= 3:
        what = f"pandas {pandas} beside pyspark {pyspark}, which supports pandas 2 only"
        yield Finding("fault", what, "pip install 'pandas<3'")


def _java(inventory: Inventory) -> Iterator[Finding]:
    if inventory.version("pyspark") is None:
        return
    remedy = "install Java 17 (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
    if inventory.java is None:
        yield Finding("fault", "no Java found, Spark cannot start", remedy)
    elif java_major(inventory.java) < 17:
        what = f"Java {inventory.java}: Spark 4 needs 17 or newer"
        yield Finding("fault", what, remedy)


def _mlflow_pair(inventory: Inventory) -> Iterator[Finding]:
    full, skinny = inventory.version("mlflow"), inventory.version("mlflow-skinny")
    if full and skinny and full != skinny:
        what = f"mlflow {full} beside mlflow-skinny {skinny}: both own the module mlflow"
        yield Finding("fault", what, f"pip install mlflow-skinny=={full}")


def _machine(inventory: Inventory) -> Iterator[Finding]:
    if inventory.compiler is None and inventory.version("hnswlib") is None:
        what = "no C++ compiler: hnswlib has no wheel and cannot be installed"
        yield Finding("fault", what, "install one (Debian: apt-get install g++)")
    if inventory.free_bytes < MIN_FREE_BYTES:
        what = (
            f"{inventory.free_bytes / 1e9:.1f} GB free here, a run needs {MIN_FREE_BYTES / 1e9:.0f}"
        )
        yield Finding("warning", what, "free some space or set output in the recipe")
    torch = inventory.version("torch")
    if inventory.gpus and torch and torch.endswith("+cpu"):
        what = f"{inventory.gpus[0]} is here, but torch {torch} is the CPU build"
        yield Finding("warning", what, "make setup DEVICE=gpu VENV=.venv-gpu")


def _broken_backends(inventory: Inventory) -> Iterator[Finding]:
    for name, said in inventory.backends.items():
        if not said.startswith("ok"):
            yield Finding("fault", f"{name} is installed and does not work: {said}", "see above")


def _minor(version: str) -> tuple[int, int]:
    """Major and minor number of a version: (2, 13) for ``2.13.0+cpu``."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    return numbers[0], numbers[1] if len(numbers) > 1 else 0


CHECKS: tuple[Callable[[Inventory], Iterator[Finding]], ...] = (
    _python,
    _leftovers,
    _two_fbgemm,
    _fbgemm_of_torch,
    _two_onnxruntimes,
    _triton_of_torch,
    _pandas_of_pyspark,
    _mlflow_pair,
    _java,
    _machine,
    _broken_backends,
)
