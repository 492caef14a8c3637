"""From queries in training to codes and codebooks when served: what ``dpq`` and ``mgqe`` share.

A full table trains alone first. Then the codebooks start as k-means of its rows, so that no quality
is lost to centroids that are far from all of them, and train with it. Served are one byte per id
and part and the codebooks; the rows are gone.
"""

from __future__ import annotations

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


class CodebookMethod(Method):
    """Queries while training, codes and codebooks when served."""

    stages = (Stage("warm-up", 0.3), Stage("quantise", 0.7))

    def plan_of(self, declared: Declared, reader: FeatureSpec) -> CodebookPlan:
        """Sizes of the reader's codebooks."""
        raise NotImplementedError

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
        if not shrinks(declared, reader, plan.served_numbers):
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
            if shrinks(declared, reader, plan.served_numbers)
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
        if not shrinks(declared, reader, plan.served_numbers):
            return None
        codes = torch.zeros(plan.ids, plan.parts, dtype=torch.uint8)
        return lower_codes(declared, reader, plan, codes)


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
