"""The whole measurement: checks of every operation, roofs, cases, one JSON file."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import torch
import triton

from muxrec_kernels.bench.case import Case, Check, KernelBench
from muxrec_kernels.bench.lines import case_lines, check_line
from muxrec_kernels.bench.measure import Result, measure_case, try_case
from muxrec_kernels.bench.roofs import Roof, copy_roof, gather_roof

FILE = "bench-kernels.json"


@dataclass
class Report:
    """Everything that a run found out.

    Attributes:
        environment: Device, versions, date, command.
        roofs: Bandwidths that shares are taken of.
        checks: Operation -> its checks.
        cases: Operation -> its cases.
        left_out: What was not measured, and why.
    """

    environment: dict[str, str]
    roofs: list[Roof] = field(default_factory=list)
    checks: dict[str, list[Check]] = field(default_factory=dict)
    cases: dict[str, list[Result]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether every check passed and no answer was wrong."""
        checks = (check for found in self.checks.values() for check in found)
        results = (result for found in self.cases.values() for result in found)
        return all(c.is_passed for c in checks) and not any(r.faults for r in results)


def run(
    operations: Sequence[str], *, device: torch.device, limit_s: float, out: Path | None
) -> Report:
    """Check and, on a CUDA device, time the operations.

    Nothing of an operation is timed before all its checks passed. Each operation gets an equal part
    of the time that is left; what did not fit is named.

    Args:
        operations: Names of operations.
        device: A CUDA device; on a CPU the interpreter runs small inputs and no time is taken.
        limit_s: Seconds for everything.
        out: Folder for the JSON file; None for none.
    """
    report, bench = Report(environment_of(device)), _Bench(device, time.monotonic() + limit_s)
    _say(*(f"{key}: {value}" for key, value in report.environment.items()))
    for at, name in enumerate(operations):
        bench.share(len(operations) - at)
        bench.operation(name, report)
        if out is not None:
            write(report, out)
    if not bench.is_timed:
        _say("no CUDA device: answers were checked in the interpreter, nothing was timed")
    _say(*(f"left out: {line}" for line in report.left_out))
    return report


class _Bench:
    """The run's device, deadlines and roofs measured so far."""

    def __init__(self, device: torch.device, end: float) -> None:
        self.device, self.end, self.deadline = device, end, end
        self.is_timed = device.type == "cuda"
        self._roofs: dict[int, Roof] = {}

    def share(self, operations_left: int) -> None:
        """Give the next operation its part of what is left."""
        now = time.monotonic()
        self.deadline = now + max(0.0, self.end - now) / operations_left

    def operation(self, name: str, report: Report) -> None:
        bench = cast(KernelBench, importlib.import_module(f"muxrec_kernels.{name}.bench"))
        checks = report.checks.setdefault(name, [])
        for check in bench.checks(self.device, small=not self.is_timed):
            checks.append(check)
            _say(check_line(name, check))
        if not all(check.is_passed for check in checks):
            report.left_out.append(f"the cases of {name}, which failed a check")
            return
        results = report.cases.setdefault(name, [])
        for case in bench.cases(self.device, small=not self.is_timed):
            if time.monotonic() > self.deadline:
                report.left_out.append(f"{name} from {case.name!r} on: no time was left")
                break
            results.append(self._case(case, report))
            _say(*case_lines(name, results[-1]))
            del case
            if self.is_timed:
                torch.cuda.empty_cache()

    def _case(self, case: Case, report: Report) -> Result:
        if not self.is_timed:
            return try_case(case)[0]
        if case.row_bytes not in self._roofs:
            size = case.row_bytes
            self._roofs[size] = gather_roof(size, self.device) if size else copy_roof(self.device)
            report.roofs.append(self._roofs[size])
            torch.cuda.empty_cache()
        return measure_case(case, self._roofs[case.row_bytes])


def environment_of(device: torch.device) -> dict[str, str]:
    """Device, versions, date and command of a run."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, interpreter"
    return {
        "device": name,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python -m muxrec_kernels.bench", *sys.argv[1:]]),
    }


def write(report: Report, folder: Path) -> Path:
    """Write what is known so far; a run that is cut off leaves it behind."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    path.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    return path


def _say(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()
