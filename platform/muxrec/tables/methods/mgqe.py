"""``mgqe``: learned product quantisation in which rare ids choose among fewer entries."""

from __future__ import annotations

import math
from dataclasses import replace

from muxrec.spec.features import FeatureSpec
from muxrec.tables.methods.codebooks import CodebookMethod
from muxrec.tables.methods.protocol import Declared
from muxrec.tables.methods.quantiser import CodebookPlan


class Mgqe(CodebookMethod):
    """The most frequent ids use all entries of each part's codebook, the others the first few.

    Indices fall with frequency, so that an id is frequent needs no flag. Codes take a byte each
    whatever ``tail_codes`` is: the restriction is there for quality, rare ids share what they
    cannot learn alone. Sizes are lowered to ``share`` as ``dpq`` does it.
    """

    title = "one byte per id and part; rare ids share few codebook entries, frequent ids use all"
    source = "Kang et al., WWW Companion 2020"

    def plan_of(self, declared: Declared, reader: FeatureSpec) -> CodebookPlan:
        """Sizes of the reader's codebooks, of which rare ids use half at the most."""
        plan = super().plan_of(declared, reader)
        return replace(
            plan,
            tail_codes=min(declared.whole("tail_codes"), max(1, plan.codes // 2)),
            frequent=math.ceil(declared.option("frequent") * plan.ids),
        )
