"""``autodim``: every feature searches the width of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.addresses import IndexAddress
from muxrec.tables.methods.drawing import generator_of
from muxrec.tables.methods.full import lower_full
from muxrec.tables.methods.joining import lower_each
from muxrec.tables.methods.projection import Projection
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
from muxrec.tables.methods.width_search import CoolingHook, WidthMix

RETRAIN = 1
"""Number of the stage that trains the chosen widths."""


class AutoDim(Method):
    """All of 2, 4, ... numbers per id train at once, and search steps weigh them.

    Then the widest weight's rows and projection train on alone. A width that would not make a
    feature smaller is no candidate. The search takes twice the memory of a full table, and it
    reaches whatever size it reaches: there is no budget to set.
    """

    title = "all widths of rows trained at once; each feature keeps the one that search steps weigh"
    source = "Zhao et al., WWW 2021"
    stages = (Stage("search", 0.5, is_search=True), Stage("retrain", 0.5))

    def lower(self, declared: Declared) -> Lowered:
        """A table per candidate, and then narrow tables with projections."""
        if declared.stage >= RETRAIN:
            return lower_each(declared, _chosen)
        lowered = lower_each(declared, _supernet)
        mixes = [one for one in lowered.combines.values() if isinstance(one, WidthMix)]
        return replace(lowered, hook=CoolingHook(mixes) if mixes else None)

    def served_shape(self, declared: Declared) -> Lowered:
        """Full tables: no search makes a table larger."""
        return lower_full(declared, declared.readers)

    def advance(
        self,
        declared: Declared,
        rows: Arrays,
        combines: Mapping[str, nn.Module],
        evaluate: Evaluate,
    ) -> Advanced:
        """The widths found, with their rows and projections."""
        del evaluate
        carried, values = {}, {}
        for reader in declared.readers:
            mix, name = combines.get(reader.name), declared.name_of(reader)
            if not isinstance(mix, WidthMix):
                values[name] = rows[name]
                continue
            at = mix.chosen()
            inner, scale = mix.widths[at], float(mix.scales()[at])
            found = rows[_table_name(declared, reader, inner)]
            carried[f"{reader.name}.width"] = torch.tensor([inner])
            if inner == declared.table.width:
                values[name] = found * scale
            else:
                values[_table_name(declared, reader, inner)] = found
                weight = mix.maps[at].state_dict()["weight"]
                carried[f"{reader.name}.projection"] = scale * weight.cpu()
        return Advanced(carried, values)


def candidate_widths(declared: Declared, reader: FeatureSpec) -> list[int]:
    """Powers of two that make the reader smaller, rising, and the full width."""
    size, width = declared.known(reader).size, declared.table.width
    powers = [2**at for at in range(1, width.bit_length()) if 2**at < width]
    return [*(w for w in powers if shrinks(declared, reader, w * (size + width))), width]


def _supernet(declared: Declared, reader: FeatureSpec) -> Lowered | None:
    widths, words = candidate_widths(declared, reader), declared.known(reader)
    if len(widths) == 1:
        return None
    tables = tuple(
        declared.physical(_table_name(declared, reader, w), words.size, w) for w in widths
    )
    mix = WidthMix(
        widths,
        first_square=max(declared.table.init**2 / 3, 1e-9),
        lr=declared.option("alpha_lr"),
        generator=generator_of(declared, reader),
    )
    return Lowered(
        tables,
        tuple(Read(reader.name, at, table.name, IndexAddress()) for at, table in enumerate(tables)),
        widths={reader.name: declared.table.width},
        combines={reader.name: mix},
        per_id=frozenset([reader.name]),
        known={reader.name: words},
    )


def _chosen(declared: Declared, reader: FeatureSpec) -> Lowered | None:
    projection = declared.carried.get(f"{reader.name}.projection")
    if projection is None:
        return None
    inner, words = projection.shape[1], declared.known(reader)
    table = declared.physical(_table_name(declared, reader, inner), words.size, inner)
    module = Projection(inner, declared.table.width, generator_of(declared, reader))
    with torch.no_grad():
        module.weight.copy_(projection)
    return Lowered(
        (table,),
        (Read(reader.name, 0, table.name, IndexAddress()),),
        widths={reader.name: declared.table.width},
        combines={reader.name: module},
        known={reader.name: words},
    )


def _table_name(declared: Declared, reader: FeatureSpec, inner: int) -> str:
    return declared.name_of(reader, f"w{inner}")
