"""Rows replaced by the nearest entries of codebooks, while training.

Every id has a row of its own, the query, and reads the nearest centroid of each part. Its gradient
passes straight through to the query, and a penalty holds queries and centroids together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from muxrec.tables.methods.addresses import needed
from muxrec.tables.methods.clustering import k_means, revived
from muxrec.tables.methods.protocol import Access
from muxrec.tables.methods.sampling import is_shared, sampled_places, sampled_rows

REVIVE_EVERY = 100
COMMITMENT = 0.25
"""Weight of the term that pulls queries to their centroids; 1 for the opposite direction."""
BLOCK = 8192
"""Ids whose codes are found at once."""


@dataclass(frozen=True)
class CodebookPlan:
    """Sizes of one reader's codebooks.

    Attributes:
        ids: Known ids, n.
        width: Numbers per vector, d.
        parts: Codes per id, P; a divisor of d.
        codes: Entries of each part's codebook, K, at most 256.
        tail_codes: The first entries, which rare ids may use.
        frequent: Ids with a lower index than this may use all entries.
    """

    ids: int
    width: int
    parts: int
    codes: int
    tail_codes: int
    frequent: int

    def pools(self, index: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Groups of entries, bool ``[K]``, and which of the ids may use them, bool ``[S]``."""
        is_tail = torch.arange(self.codes, device=index.device) < self.tail_codes
        found = [(is_tail, torch.ones_like(index, dtype=torch.bool))]
        if self.tail_codes < self.codes:
            found.append((~is_tail, index < self.frequent))
        return found


def first_codebook(plan: CodebookPlan, rows: Tensor, generator: torch.Generator) -> Tensor:
    """k-means of rows ``[n, d]`` that are trained already, ``[P, K, d / P]``."""
    places = sampled_places(plan.ids)
    codebook = torch.zeros(plan.parts, plan.codes, plan.width // plan.parts)
    for own, points in zip(codebook, rows[places].chunk(plan.parts, dim=1), strict=True):
        for entries, mine in plan.pools(places):
            if mine.any():
                own[entries] = k_means(points[mine], int(entries.sum()), generator=generator)
    return codebook


class Quantiser(nn.Module):
    """The nearest centroid of each part of a query.

    Args:
        plan: Sizes.
        codebook: First centroids, float32 ``[P, K, d / P]``.
    """

    def __init__(self, plan: CodebookPlan, codebook: Tensor) -> None:
        super().__init__()
        self.plan = plan
        self._penalty: Tensor | None = None
        self.codebook = nn.Parameter(codebook.clone())

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Queries ``[N, d]`` to vectors ``[N, d]``."""
        found = self.entries(self.codes_of(rows, needed(index)))
        if self.training:
            to_queries, to_centroids = found - rows.detach(), found.detach() - rows
            self._penalty = mean_square(to_queries) + COMMITMENT * mean_square(to_centroids)
        return rows + (found - rows).detach()

    def codes_of(self, rows: Tensor, index: Tensor) -> Tensor:
        """Nearest entry of each part that the id may use, int64 ``[N, P]``; the first of equals."""
        plan = self.plan
        parts, norms = rows.unflatten(1, (plan.parts, -1)), self.codebook.square().sum(dim=2)
        scores = 2 * torch.einsum("npd,pkd->npk", parts, self.codebook) - norms
        if plan.tail_codes < plan.codes:
            entry = torch.arange(plan.codes, device=rows.device)
            is_rare = (index >= plan.frequent)[:, None, None]
            scores = scores.masked_fill(is_rare & (entry >= plan.tail_codes), -torch.inf)
        return scores.argmax(dim=2)

    @torch.no_grad()
    def all_codes(self, queries: Tensor) -> Tensor:
        """Codes of all ids, uint8 ``[n, P]``, from their queries ``[n, d]``."""
        index = torch.arange(len(queries))
        blocks = zip(queries.split(BLOCK), index.split(BLOCK), strict=True)
        return torch.cat([self.codes_of(rows, at).to(torch.uint8) for rows, at in blocks])

    def entries(self, codes: Tensor) -> Tensor:
        """The centroids of codes ``[N, P]`` side by side, ``[N, d]``."""
        first = torch.arange(self.plan.parts, device=codes.device) * self.plan.codes
        return self.codebook.flatten(0, 1)[codes + first].flatten(1)

    def penalty(self) -> Tensor:
        """How far the last batch's queries were from their centroids, mean squared; once."""
        term, self._penalty = self._penalty, None  # A graph that is kept could not be copied.
        return self.codebook.new_zeros(()) if term is None else term

    @torch.no_grad()
    def revive(self, rows: Tensor, index: Tensor) -> None:
        """Move entries that none of ``rows`` ``[S, d]`` uses to the rows that lie farthest off."""
        codes = self.codes_of(rows, index)
        parts = zip(self.codebook, rows.chunk(self.plan.parts, dim=1), codes.unbind(1), strict=True)
        for own, points, used in parts:
            for entries, mine in self.plan.pools(index):
                own.copy_(revived(points[mine], own, used[mine], movable=entries))


def mean_square(values: Tensor) -> Tensor:
    """Mean of the squares; 0 of no values."""
    return values.square().sum() / max(1, values.numel())


class ReviveHook:
    """Every ``REVIVE_EVERY`` steps an entry that no id uses gets something to do.

    Args:
        quantisers: Query table -> its quantiser.
    """

    def __init__(self, quantisers: Mapping[str, Quantiser]) -> None:
        self.quantisers = quantisers

    def after_step(self, access: Access, *, step: int, share: float) -> None:  # noqa: ARG002
        """Revive entries by rows from all over the table, alike on all ranks."""
        if step % REVIVE_EVERY:
            return
        for name, quantiser in self.quantisers.items():
            places = sampled_places(quantiser.plan.ids).to(quantiser.codebook.device)
            rows = sampled_rows(access, name, places, width=quantiser.plan.width)
            quantiser.revive(rows, places)
            if is_shared():
                dist.broadcast(quantiser.codebook.data, 0)
