"""Every operation of this package, by the name of its folder."""

from __future__ import annotations

OPERATIONS = (
    "multiplexed_lookup",
    "fusion_gate",
    "code_scan",
    "quantised_lookup",
    "row_update",
    "compositional_lookup",
    "contrastive_loss",
)
"""Each folder holds ``reference.py``, ``triton_kernel.py``, ``variants.py`` and ``bench.py``."""
