"""``int16``: two signed bytes per number and a float32 scale per group."""

from __future__ import annotations

import torch

from muxrec.tables.rows.signed import SignedRows


class Int16Rows(SignedRows):
    """Codes of two bytes in ``[-32767, 32767]``: what ``int16`` tables were trained as.

    They take the bytes of ``fp16`` and a scale; float rows gain nothing here that ``fp16`` lacks.
    """

    dtype = torch.int16
