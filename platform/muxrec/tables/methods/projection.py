"""Full tables of narrow rows, each with a bias-free linear map to the vector's width."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.addresses import IndexAddress
from muxrec.tables.methods.drawing import generator_of
from muxrec.tables.methods.joining import lower_each
from muxrec.tables.methods.protocol import Declared, Lowered, Read, shrinks


class Projection(nn.Module):
    """A linear map without bias, so that an empty bag stays zero and pooling commutes with it.

    Its columns start orthogonal and of such a length that vectors start with the mean square of
    their rows, and that a step of a row moves its vector as far as it would move a full row.

    Args:
        inner: Numbers per row, at most ``width``.
        width: Numbers per vector.
        generator: Draws the first map.
    """

    def __init__(self, inner: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = torch.empty(width, inner)
        nn.init.orthogonal_(weight, gain=math.sqrt(width / inner), generator=generator)
        self.weight = nn.Parameter(weight)

    def forward(self, rows: Tensor) -> Tensor:
        """Pooled rows ``[B, inner]`` to vectors ``[B, width]``."""
        return F.linear(rows, self.weight)


def lower_projected(declared: Declared, dims: Mapping[str, int]) -> Lowered:
    """A table of narrow rows and a projection for each reader; full tables where that is no less.

    Args:
        declared: The table.
        dims: Numbers per row of each reader, by feature.
    """
    return lower_each(declared, partial(_projected, dims=dims))


def _projected(
    declared: Declared, reader: FeatureSpec, *, dims: Mapping[str, int]
) -> Lowered | None:
    words, width, dim = declared.known(reader), declared.table.width, dims[reader.name]
    if not shrinks(declared, reader, dim * (words.size + width)):
        return None
    table = declared.physical(declared.name_of(reader), words.size, dim)
    return Lowered(
        (table,),
        (Read(reader.name, 0, table.name, IndexAddress()),),
        widths={reader.name: width},
        combines={reader.name: Projection(dim, width, generator_of(declared, reader))},
        known={reader.name: words},
    )
