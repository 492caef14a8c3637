"""What an operation's ``bench.py`` offers: checks of correctness and cases to time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

OURS = "muxrec"
ROOF = "roof"
"""The target that is a share of the roof, and not a speed-up over a peer."""

Run = Callable[[int], object]
"""One call on the input set of that number; returns tensors, or a tuple of them."""


@dataclass(frozen=True)
class Check:
    """A comparison with the reference in float64.

    Attributes:
        name: What was compared.
        ratio: Distance over norm, see :func:`muxrec_kernels.testing.norm_ratio`.
        tolerance: Largest ratio that passes.
    """

    name: str
    ratio: float
    tolerance: float

    @property
    def is_passed(self) -> bool:
        """Whether the ratio is within the tolerance; not a number is not."""
        return self.ratio <= self.tolerance


@dataclass(frozen=True)
class Case:
    """One workload, done by us and by peers on the same inputs.

    Attributes:
        name: Dtype, width, ids, distribution, batch.
        run: Who -> one call; ``muxrec`` comes first.
        bytes_moved: Bytes per call by the traffic model.
        row_bytes: Bytes of a row whose random gather is the roof; 0 for the streaming copy.
        lookups: Rows read per call.
        flops: Floating-point operations per call.
        again: What is repeated for equal bits; None for ``run["muxrec"](0)``.
        targets: ``roof`` -> least share of it, or a peer's name -> least speed-up over it.
        is_small: Whether calls are replayed from a CUDA graph, since launching would dominate.
        absent: Peer -> why it is not here.
        peak_bytes: Whether each one's extra device memory is reported.
        agreement: Largest norm ratio between our answer and a peer's of the same shape.
    """

    name: str
    run: Mapping[str, Run]
    bytes_moved: int
    row_bytes: int = 0
    lookups: int = 0
    flops: int = 0
    again: Callable[[], object] | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    is_small: bool = False
    absent: Mapping[str, str] = field(default_factory=dict)
    peak_bytes: bool = False
    agreement: float = 1e-2


class KernelBench(Protocol):
    """An operation's ``bench`` module."""

    @staticmethod
    def checks(device: torch.device, *, small: bool) -> Iterator[Check]:
        """Comparisons on fresh random inputs, outputs poisoned."""
        ...

    @staticmethod
    def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
        """Workloads, those with a target first; built when asked for, so that one fits at a time.

        ``small`` asks for a handful of programs, for the interpreter: nothing of it is timed.
        """
        ...
