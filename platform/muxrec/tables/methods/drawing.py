"""Random numbers of a reader's map: a function of seed, table and feature alone."""

from __future__ import annotations

import torch

from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import BASE_SEED, hash_bytes, hash_ids
from muxrec.tables.methods.protocol import Declared


def generator_of(declared: Declared, reader: FeatureSpec, part: str = "map") -> torch.Generator:
    """A fresh generator for ``part`` of the reader's map, on the CPU.

    Its numbers depend on the run's seed, the table's name, the feature's name and ``part`` alone,
    so neither other features nor the global generator move them, and all ranks draw alike.
    """
    name = hash_bytes([declared.name_of(reader, part).encode()], BASE_SEED)[0]
    return torch.Generator().manual_seed(int(hash_ids([declared.seed], name)[0]))
