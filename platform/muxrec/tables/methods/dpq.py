"""``dpq``: product quantisation that is learned with the task."""

from __future__ import annotations

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.clustering import largest_divisor
from muxrec.tables.methods.codebooks import CodebookMethod
from muxrec.tables.methods.protocol import Declared
from muxrec.tables.methods.quantiser import CodebookPlan


class Dpq(CodebookMethod):
    """Every id may use all ``codes`` entries of each part's codebook.

    ``parts`` is lowered to a divisor of the width. Training takes more memory than a full table.
    """

    title = "one byte per id and part; codebooks learned with the task, full queries in training"
    source = "Chen, Li and Sun, ICML 2020 (DPQ-VQ)"

    def plan_of(self, declared: Declared, reader: FeatureSpec) -> CodebookPlan:
        """Sizes of the reader's codebooks."""
        ids, width, codes = (
            declared.known(reader).size,
            declared.table.width,
            declared.whole("codes"),
        )
        parts = largest_divisor(width, declared.whole("parts"))
        return CodebookPlan(ids, width, parts, codes, tail_codes=codes, frequent=ids)
