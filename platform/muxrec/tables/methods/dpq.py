"""``dpq``: product quantisation that is learned with the task."""

from __future__ import annotations

from muxrec.tables.methods.codebooks import CodebookMethod


class Dpq(CodebookMethod):
    """Every id may use all entries of each part's codebook.

    ``parts`` and ``codes`` are lowered until codes and codebooks take no more than ``share`` of
    full rows. Training takes more memory than a full table.
    """

    title = "one byte per id and part; codebooks learned with the task, full queries in training"
    source = "Chen, Li and Sun, ICML 2020 (DPQ-VQ)"
