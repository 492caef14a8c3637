"""How a kernel is compared with its reference; shared by tests and benchmarks, torch only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor

TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6}
"""Largest norm ratio by table dtype. Rows of every dtype are exact in float32 and summed there, so
16-bit tables are as exact as 32-bit ones: a few hundred roundings of 6e-8 that grow like a root."""


class Jagged(NamedTuple):
    """Inputs of a lookup.

    Attributes:
        ids: int64 ``[N]``.
        offsets: int64 ``[F * B + 1]``.
        batch_size: B.
    """

    ids: Tensor
    offsets: Tensor
    batch_size: int


def norm_ratio(found: Tensor, expected: Tensor) -> float:
    """``|found - expected| / |expected|`` in float64; infinite where ``found`` is not finite.

    Both zero gives 0. A ratio of norms does not divide by small numbers and does not hide a wrong
    row among many right ones as a mean would.
    """
    if found.shape != expected.shape or not found.isfinite().all():
        return float("inf")
    distance = (found.double() - expected.double()).norm().item()
    scale = expected.double().norm().item()
    return distance if scale == 0.0 else distance / scale


@contextmanager
def poisoned_outputs() -> Iterator[None]:
    """Within the block ``torch.empty`` of floating-point numbers gives NaN everywhere.

    A kernel that leaves a part of its output unwritten then shows it.
    """
    empty = torch.empty

    def poisoned(*size: object, **options: object) -> Tensor:
        made = empty(*size, **options)  # type: ignore[call-overload]
        return made.fill_(float("nan")) if made.is_floating_point() else made

    with mock.patch("torch.empty", poisoned):
        yield


def make_jagged(lengths: list[int], *, batch_size: int, seed: int = 0, repeat: int = 0) -> Jagged:
    """Random ids in bags of the given lengths.

    Args:
        lengths: Length of each bag, feature-major; ``F * batch_size`` numbers.
        batch_size: B.
        seed: Seed of the ids.
        repeat: Draw ids from so many values only, for duplicates; 0 for all of int64.
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = (0, repeat) if repeat else (-(2**63), 2**63 - 1)
    ids = torch.randint(low, high, (sum(lengths),), generator=generator)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return Jagged(ids, offsets, batch_size)
