"""From queries in training to codes and codebooks when served: what ``dpq`` and ``mgqe`` share.

A full table trains alone first. Then the codebooks start as k-means of its rows, so that no quality
is lost to centroids that are far from all of them, and train with it. Served are one byte per id
and part and the codebooks; the rows are gone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.addresses import IndexAddress, MapAddress
from muxrec.tables.methods.drawing import generator_of
from muxrec.tables.methods.full import full_table, lower_full
from muxrec.tables.methods.joining import lower_each
from muxrec.tables.methods.protocol import (
    FP32_BYTES,
    Advanced,
    Arrays,
    Declared,
    Evaluate,
    Lowered,
    Method,
    Read,
    Stage,
    shrinks,
)
from muxrec.tables.methods.quantiser import CodebookPlan, Quantiser, ReviveHook, first_codebook

QUANTISE = 1
"""Number of the stage that trains codebooks."""
FEWEST = 2
"""Entries of the smallest codebook."""
SMALL = 32
"""Readers with fewer ids keep full rows: a codebook would save little and cost much."""


class CodebookMethod(Method):
    """Queries while training, codes and codebooks when served."""

    stages = (Stage("warm-up", 0.3), Stage("quantise", 0.7))

    def plan_of(self, declared: Declared, reader: FeatureSpec) -> CodebookPlan:
        """Sizes of the reader's codebooks, all of whose entries every id may use."""
        ids, width = declared.known(reader).size, declared.table.width
        parts, codes = largest_codes(declared, ids)
        return CodebookPlan(ids, width, parts, codes, tail_codes=codes, frequent=ids)

    def lower(self, declared: Declared) -> Lowered:
        """Full tables, and then quantisers behind those whose codes are smaller."""
        if declared.stage < QUANTISE:
            return lower_full(declared, declared.readers)
        lowered = lower_each(declared, self._quantised)
        quantisers = {
            declared.name_of(reader): module
            for reader in declared.readers
            if isinstance(module := lowered.combines.get(reader.name), Quantiser)
        }
        return replace(lowered, hook=ReviveHook(quantisers) if quantisers else None)

    def _quantised(self, declared: Declared, reader: FeatureSpec) -> Lowered | None:
        plan = self.plan_of(declared, reader)
        if not is_quantised(declared, reader, plan):
            return None
        table = full_table(declared, reader)
        return Lowered(
            (table,),
            (Read(reader.name, 0, table.name, IndexAddress()),),
            widths={reader.name: plan.width},
            combines={reader.name: Quantiser(plan, declared.carried[_key(reader)])},
            per_id=frozenset([reader.name]),
            known={reader.name: declared.known(reader)},
        )

    def advance(
        self,
        declared: Declared,
        rows: Arrays,
        combines: Mapping[str, nn.Module],
        evaluate: Evaluate,
    ) -> Advanced:
        """The trained rows go on, and codebooks start as their k-means."""
        del combines, evaluate
        plans = {reader: self.plan_of(declared, reader) for reader in declared.readers}
        carried = {
            _key(reader): first_codebook(
                plan, rows[declared.name_of(reader)], generator_of(declared, reader)
            )
            for reader, plan in plans.items()
            if is_quantised(declared, reader, plan)
        }
        return Advanced(carried, rows)

    def freeze(
        self, declared: Declared, rows: Arrays, combines: Mapping[str, nn.Module]
    ) -> Lowered:
        """One byte per id and part, and the codebooks."""
        served = lower_each(declared, partial(_frozen, rows=rows, combines=combines))
        names = {table.name for table in served.tables}
        full = {name: value for name, value in rows.items() if name in names}
        return replace(served, values={**full, **served.values})

    def served_shape(self, declared: Declared) -> Lowered:
        """The same shapes."""
        return lower_each(declared, self._shape)

    def _shape(self, declared: Declared, reader: FeatureSpec) -> Lowered | None:
        plan = self.plan_of(declared, reader)
        if not is_quantised(declared, reader, plan):
            return None
        codes = torch.zeros(plan.ids, plan.parts, dtype=torch.uint8)
        return lower_codes(declared, reader, plan, codes)


def is_quantised(declared: Declared, reader: FeatureSpec, plan: CodebookPlan) -> bool:
    """Whether codes and codebooks are worth their bytes."""
    numbers, bytes_of_codes = plan.codes * plan.width, plan.ids * plan.parts
    return plan.ids >= SMALL and shrinks(declared, reader, numbers, extra_bytes=bytes_of_codes)


def largest_codes(declared: Declared, ids: int) -> tuple[int, int]:
    """Parts and entries per part that tell the most vectors apart within the declared share.

    Entries cost memory once and parts cost it per id, so what is lowered first depends on the ids.
    Where nothing fits it is the smallest there is.
    """
    width, found = declared.table.width, {}
    allowed = declared.option("share") * FP32_BYTES * ids * width
    for parts in range(1, min(width, declared.whole("parts")) + 1):
        left = int(allowed - ids * parts) // (FP32_BYTES * width)
        if width % parts == 0 and left >= FEWEST:
            codes = min(declared.whole("codes"), left)
            found[parts * math.log2(codes)] = parts, codes
    return found[max(found)] if found else (1, FEWEST)


def _frozen(
    declared: Declared,
    reader: FeatureSpec,
    *,
    rows: Arrays,
    combines: Mapping[str, nn.Module],
) -> Lowered | None:
    quantiser = combines.get(reader.name)
    if not isinstance(quantiser, Quantiser):
        return None
    quantiser, plan = quantiser.cpu(), quantiser.plan
    lowered = lower_codes(
        declared, reader, plan, quantiser.all_codes(rows[declared.name_of(reader)])
    )
    codebook = quantiser.codebook.detach().flatten(0, 1)
    return replace(lowered, values={lowered.tables[0].name: codebook})


def lower_codes(
    declared: Declared, reader: FeatureSpec, plan: CodebookPlan, codes: Tensor
) -> Lowered:
    """The served form: codes, uint8 ``[n, P]``, into one array of all codebooks."""
    name = declared.name_of(reader, "codebook")
    table = declared.physical(name, plan.parts * plan.codes, plan.width // plan.parts)
    reads = tuple(
        Read(reader.name, part, name, MapAddress(own.contiguous(), offset=part * plan.codes))
        for part, own in enumerate(codes.unbind(1))
    )
    return Lowered(
        (table,),
        reads,
        widths={reader.name: plan.width},
        known={reader.name: declared.known(reader)},
    )


def _key(reader: FeatureSpec) -> str:
    return f"{reader.name}.codebook"
