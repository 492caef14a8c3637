"""``dhe``: no table at all, a small network that reads hashes of the id."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import hash_ids, probe_seed
from muxrec.tables.hash_torch import finish_hashes, mix_ids
from muxrec.tables.methods.drawing import generator_of
from muxrec.tables.methods.protocol import Declared, Lowered, Method

BITS = 24
"""Bits kept of each hash: as many as a float32 holds exactly."""
MISH_SQUARE = 0.4523
"""Mean square of mish of a standard normal number."""


class DeepHash(Method):
    """An id's hashes, scaled to [-1, 1], through a multilayer perceptron."""

    title = "no rows: hashes of the id through a small network, the same for all ids"
    source = "Kang et al., KDD 2021"

    def lower(self, declared: Declared) -> Lowered:
        """One network per reader; no arrays and no reads."""
        return Lowered(
            (),
            (),
            widths={reader.name: declared.table.width for reader in declared.readers},
            combines={reader.name: _network(declared, reader) for reader in declared.readers},
            per_id=frozenset(reader.name for reader in declared.readers),
        )


def _network(declared: Declared, reader: FeatureSpec) -> HashNetwork:
    hidden, layers = declared.whole("hidden"), declared.whole("layers")
    return HashNetwork(
        HashCode(reader.name, declared.whole("hashes")),
        [declared.whole("hashes"), *[hidden] * layers, declared.table.width],
        init=declared.table.init,
        generator=generator_of(declared, reader),
    )


class HashCode(nn.Module):
    """Many universal hashes of an id as numbers in [-1, 1).

    The id is hashed once by XXH64; each hash is the upper bits of that number times an odd number
    of its own, modulo 2 ** 64. All of it is unsigned arithmetic in int64: published code multiplies
    in int32, overflows, and takes remainders of negative numbers.

    Source: Dietzfelbinger et al. 1997 (multiply-shift).

    Args:
        feature: Feature name, the salt.
        hashes: How many.
    """

    factors: Tensor

    def __init__(self, feature: str, hashes: int) -> None:
        super().__init__()
        self.seed = probe_seed(feature, 0)
        factors = hash_ids(np.arange(hashes), probe_seed(feature, 1)) | 1
        self.register_buffer("factors", torch.from_numpy(factors), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Codes of ids, int64 ``[N]``, float32 ``[N, hashes]``."""
        mixed = finish_hashes(mix_ids(ids), self.seed)
        upper = ((mixed[:, None] * self.factors) >> (64 - BITS)) & (2**BITS - 1)
        return upper.to(torch.float32) * 2.0 ** (1 - BITS) - 1.0


class HashNetwork(nn.Module):
    """Codes of ids through hidden layers (linear, root mean square norm, mish) and a linear one.

    The norm is over the numbers of one id. The paper's batch norm would make an id's vector depend
    on the other ids of its batch, differ between training and serving, break on a batch of one, and
    have to be folded into the weights before an export; this one is the same formula everywhere.

    Args:
        code: Makes codes of ids.
        widths: Hashes, hidden widths, numbers per vector.
        init: Vectors start with the variance of ``[-init, init]``.
        generator: Draws the first weights.
    """

    def __init__(
        self, code: HashCode, widths: list[int], *, init: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.code = code
        pairs = list(pairwise(widths))
        # Norms take the scale of hidden weights away; codes have a mean square of 1 / 3.
        self.hidden = nn.ModuleList(
            _linear(before, after, std=math.sqrt(3 / before), generator=generator)
            for before, after in pairs[:-1]
        )
        self.norms = nn.ModuleList(nn.RMSNorm(after, eps=1e-6) for _, after in pairs[:-1])
        last = init / math.sqrt(3 * MISH_SQUARE * widths[-2])
        self.last = _linear(*pairs[-1], std=last, generator=generator)

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Vectors ``[N, width]`` of ids, int64 ``[N]``; every distinct id is computed once."""
        if torch.compiler.is_compiling():  # How many ids are distinct is no shape to export.
            return self._vectors(ids)
        distinct, places = ids.unique(return_inverse=True)
        return self._vectors(distinct).index_select(0, places)

    def _vectors(self, ids: Tensor) -> Tensor:
        found = self.code(ids).to(self.last.weight.dtype)
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            found = F.mish(norm(linear(found)))
        return self.last(found)


def _linear(before: int, after: int, *, std: float, generator: torch.Generator) -> nn.Linear:
    """A linear layer with normal weights and no first bias, drawn from ``generator`` alone."""
    layer = cast(nn.Linear, nn.utils.skip_init(nn.Linear, before, after))
    nn.init.normal_(layer.weight, std=std, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
