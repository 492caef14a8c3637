"""Results as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from muxrec_kernels.bench.case import OURS, Check
from muxrec_kernels.bench.measure import Result


def check_line(operation: str, check: Check) -> str:
    """A check as a line."""
    said = "ok" if check.is_passed else "FAILED"
    return (
        f"{operation} | {check.name} | off by {check.ratio:.2g} of {check.tolerance:.2g} | {said}"
    )


def case_lines(operation: str, result: Result) -> Iterator[str]:
    """A case as lines: ours, each peer, each target, each peer that is missing, each fault."""
    bits = "same bits" if result.is_repeatable else "OTHER BITS"
    head = f"{operation} | {result.name} | "
    if OURS in result.milliseconds:
        yield f"{head}{result.milliseconds[OURS]:.4f} ms | {_rates(result)} | {bits}"
    else:
        yield f"{head}ran | {bits}"
    for name, value in result.speed_ups.items():
        low, high = result.spread[name]
        yield f"  {name}: {result.milliseconds[name]:.4f} ms [{low:.4f}, {high:.4f}], {value:.2f}x"
    for name, size in result.peak_bytes.items():
        yield f"  {name}: {size / 2**20:,.1f} MiB of extra memory"
    for name, (wanted, reached, is_met) in result.targets.items():
        yield f"  target {name} {wanted:.2f}: {reached:.2f}, {'met' if is_met else 'MISSED'}"
    for name, reason in result.absent.items():
        yield f"  {name} is absent: {reason}"
    for fault in result.faults:
        yield f"  FAULT: {fault}"


def _rates(result: Result) -> str:
    parts = [
        f"{result.bytes_per_s / 1e9:,.0f} GB/s",
        f"{result.roof_share:.1%} of a roof of {result.roof_bytes_per_s / 1e9:,.0f} GB/s",
    ]
    if result.lookups_per_s:
        parts.append(f"{result.lookups_per_s / 1e9:.2f} G rows/s")
    if result.flops_per_s:
        parts.append(f"{result.flops_per_s / 1e12:.1f} TFLOP/s")
    return " | ".join(parts)
