"""One case measured: agreement with peers, equal bits, times, memory, targets."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from muxrec_kernels.bench.case import OURS, ROOF, Case, Run
from muxrec_kernels.bench.roofs import Roof
from muxrec_kernels.bench.timing import (
    REPLAYS,
    graph_runs,
    is_repeatable,
    peak_bytes,
    tensors_of,
    time_calls,
)
from muxrec_kernels.testing import norm_ratio

ROUNDS = 30
FEWEST_ROUNDS = 5
CASE_S = 12.0
"""A case's rounds end after so many seconds."""


@dataclass
class Result:
    """What was found out about a case.

    Attributes:
        name: The case's name.
        milliseconds: Who -> median of a call.
        spread: Who -> tenth and ninetieth percentile.
        peak_bytes: Who -> extra device memory.
        bytes_per_s: Ours, by the traffic model.
        roof_share: Ours, of the roof.
        roof_bytes_per_s: The roof.
        lookups_per_s: Ours.
        flops_per_s: Ours.
        speed_ups: Peer -> its median over ours.
        targets: Target -> wanted, reached, and whether it is met.
        is_repeatable: Whether ten calls of ours gave the same bits.
        absent: Peer -> why it was not measured.
        faults: What is wrong with the answers.
    """

    name: str
    milliseconds: dict[str, float] = field(default_factory=dict)
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    bytes_per_s: float = 0.0
    roof_share: float = 0.0
    roof_bytes_per_s: float = 0.0
    lookups_per_s: float = 0.0
    flops_per_s: float = 0.0
    speed_ups: dict[str, float] = field(default_factory=dict)
    targets: dict[str, tuple[float, float, bool]] = field(default_factory=dict)
    is_repeatable: bool = False
    absent: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def try_case(case: Case) -> tuple[Result, dict[str, Run]]:
    """Call everybody once: who can run, who agrees, whether ours repeats itself."""
    result = Result(case.name, absent=dict(case.absent))
    ours = [part.clone() for part in tensors_of(case.run[OURS](0))]
    able: dict[str, Run] = {OURS: case.run[OURS]}
    for name, run in case.run.items():
        if name == OURS:
            continue
        try:
            theirs = tensors_of(run(0))
        except Exception as error:  # noqa: BLE001 - a peer's failure is a fact to print
            result.absent[name] = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
            continue
        able[name] = run
        for mine, other in zip(ours, theirs, strict=False):
            if mine.shape == other.shape and norm_ratio(other, mine) > case.agreement:
                ratio = norm_ratio(other, mine)
                result.faults.append(f"{name} differs by {ratio:.2g}, {case.agreement} was allowed")
    result.is_repeatable = is_repeatable(case.again or (lambda: case.run[OURS](0)))
    if not result.is_repeatable:
        result.faults.append("ten calls did not give the same bits")
    return result, able


def measure_case(case: Case, roof: Roof) -> Result:
    """Time a case on its device; graphs and peak memory are a CUDA device's only.

    Args:
        case: The workload.
        roof: What its share is taken of.
    """
    result, able = try_case(case)
    is_cuda = torch.cuda.is_available()
    if case.peak_bytes and is_cuda:
        result.peak_bytes = {name: peak_bytes(run) for name, run in able.items()}
    calls = 1
    if case.is_small and is_cuda:
        able, failed = graph_runs(able)
        result.absent |= failed
        calls = REPLAYS
    for name, times in _timed(able).items():
        each = sorted(value / calls for value in times)
        result.milliseconds[name] = statistics.median(each)
        result.spread[name] = each[len(each) // 10], each[-1 - len(each) // 10]
    if OURS in result.milliseconds:
        _rate(result, case, roof)
    else:
        result.faults.append(f"ours was not timed: {result.absent.get(OURS, 'no reason')}")
    return result


def _timed(runs: Mapping[str, Run]) -> dict[str, list[float]]:
    begun = time.monotonic()
    found = time_calls(runs, rounds=FEWEST_ROUNDS)
    each = (time.monotonic() - begun) / FEWEST_ROUNDS
    rounds = min(ROUNDS, int(CASE_S / max(each, 1e-9))) - FEWEST_ROUNDS
    if rounds > 0:
        more = time_calls(runs, rounds=rounds)
        found = {name: found[name] + more[name] for name in runs}
    return found


def _rate(result: Result, case: Case, roof: Roof) -> None:
    seconds = result.milliseconds[OURS] / 1e3
    result.bytes_per_s = case.bytes_moved / seconds
    result.lookups_per_s = case.lookups / seconds
    result.flops_per_s = case.flops / seconds
    result.roof_bytes_per_s = roof.bytes_per_s
    result.roof_share = result.bytes_per_s / roof.bytes_per_s
    result.speed_ups = {
        name: value / result.milliseconds[OURS]
        for name, value in result.milliseconds.items()
        if name != OURS
    }
    for name, wanted in case.targets.items():
        reached = result.roof_share if name == ROOF else result.speed_ups.get(name)
        if reached is None:
            result.absent.setdefault(name, "its target was not measured")
        else:
            result.targets[name] = wanted, reached, reached >= wanted
