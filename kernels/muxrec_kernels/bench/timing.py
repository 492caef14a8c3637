"""Milliseconds of calls, interleaved, and what else is measured about them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from muxrec_kernels.bench.case import Run
from muxrec_kernels.bench.inputs import SETS

WARM_UP = 3
REPLAYS = 20
"""Replays of a captured graph per round: a single one is as short as the events around it."""
REPEATS = 10


def time_calls(runs: Mapping[str, Run], *, rounds: int) -> dict[str, list[float]]:
    """Milliseconds per call, one number per round, everybody once a round in random order.

    Args:
        runs: Who -> a call on an input set.
        rounds: Rounds after the warm-up.
    """
    for run in runs.values():
        for at in range(WARM_UP):
            run(at)
    order, found = random.Random(0), {name: [] for name in runs}
    for at in range(rounds):
        for name in order.sample(list(runs), len(runs)):
            found[name].append(_elapsed(lambda name=name, at=at: runs[name](at)))
    return found


def graph_runs(runs: Mapping[str, Run]) -> tuple[dict[str, Run], dict[str, str]]:
    """Replays of captured calls, and why some could not be captured.

    Returns:
        Who -> a call that replays ``REPLAYS`` calls, and who -> the error.
    """
    captured, failed = {}, {}
    for name, run in runs.items():
        try:
            graphs = [_capture(run, at) for at in range(SETS)]
        except RuntimeError as error:
            failed[name] = f"not capturable in a CUDA graph: {str(error).splitlines()[0]}"
            torch.cuda.synchronize()
            continue
        captured[name] = _replaying(graphs)
    return captured, failed


def _capture(run: Run, at: int) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run(at)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(at)
    return graph


def _replaying(graphs: list[torch.cuda.CUDAGraph]) -> Run:
    def replay(at: int) -> None:
        for turn in range(REPLAYS):
            graphs[(at + turn) % SETS].replay()

    return replay


def _elapsed(call: Callable[[], object]) -> float:
    """Milliseconds by the device's events; by the wall clock without a device."""
    if not torch.cuda.is_available():
        begun = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - begun)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def peak_bytes(run: Run) -> int:
    """Device memory that a call takes beyond what is allocated already, its answer included."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run(0)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def is_repeatable(call: Callable[[], object]) -> bool:
    """Whether ten calls give the same bits."""
    first = [part.clone() for part in tensors_of(call())]
    for _ in range(REPEATS - 1):
        again = tensors_of(call())
        if not all(same_bits(a, b) for a, b in zip(first, again, strict=True)):
            return False
    return True


def tensors_of(answer: object) -> list[Tensor]:
    """The tensors of an answer, itself one or a tuple or list of them."""
    if isinstance(answer, Tensor):
        return [answer]
    parts = answer if isinstance(answer, tuple | list) else ()
    return [part for part in parts if isinstance(part, Tensor)]


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are equal bit for bit; NaN equals itself."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    first, second = (part.contiguous().reshape(-1).view(torch.uint8) for part in (first, second))
    return bool(torch.equal(first, second))
