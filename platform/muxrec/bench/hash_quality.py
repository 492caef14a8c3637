"""How random the hash looks: uniformity, pair collisions, avalanche. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muxrec.spec.hashing import hash_ids, hash_rows, probe_seed

Int64Array = npt.NDArray[np.int64]
CHUNK = 2_000


@dataclass(frozen=True)
class Uniformity:
    """One set of ids in one table.

    Attributes:
        ids: Name of the set.
        rows: Rows of the table.
        worst_z: Chi-square of the row counts as standard deviations from its expectation, the
            probe furthest off.
        occupied: Rows hit at least once over the expectation, mean of the probes.
        pair_collisions: Pairs of ids that share both of two rows, mean of the pairs of probes.
        expected_collisions: What two independent random functions would give.
    """

    ids: str
    rows: int
    worst_z: float
    occupied: float
    pair_collisions: float
    expected_collisions: float


def id_sets(count: int) -> dict[str, Int64Array]:
    """Sets of distinct ids that weak hashes fail on, int64 ``[count]`` each."""
    rng = np.random.default_rng(0)
    steps = np.arange(count, dtype=np.int64)
    random = np.unique(rng.integers(-(2**63), 2**63 - 1, size=count, endpoint=True))
    return {
        "sequential": steps,
        "stride 1024": steps * 1024,
        "high word only": steps << 32,
        "negative": -steps - 1,
        "random": random,
    }


def uniformity(name: str, ids: Int64Array, rows: int, *, probes: int = 4) -> Uniformity:
    """Measure ``ids`` in a table of ``rows`` rows over probes ``0 .. probes - 1``."""
    read = [hash_rows(ids, name="feature", probe=probe, rows=rows) for probe in range(probes)]
    counts = [np.bincount(found, minlength=rows) for found in read]
    mean = len(ids) / rows
    scores = [
        (((c - mean) ** 2).sum() / mean - (rows - 1)) / (2 * (rows - 1)) ** 0.5 for c in counts
    ]
    occupied = np.mean([np.count_nonzero(c) for c in counts])
    pairs = [_colliding_pairs(read[i] * rows + read[j]) for i in range(probes) for j in range(i)]
    return Uniformity(
        ids=name,
        rows=rows,
        worst_z=float(max(scores, key=abs)),
        occupied=float(occupied / (rows * -np.expm1(len(ids) * np.log1p(-1 / rows)))),
        pair_collisions=float(np.mean(pairs)),
        expected_collisions=len(ids) * (len(ids) - 1) / 2 / rows**2,
    )


def _colliding_pairs(keys: Int64Array) -> int:
    counts = np.unique(keys, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def avalanche_bias(samples: int) -> tuple[float, float]:
    """Worst and expected-by-chance deviation from one half of any (input bit, output bit) pair.

    Args:
        samples: Random ids; each has all of its 64 bits flipped in turn.

    Returns:
        The largest ``|P(output bit flips) - 1/2|`` over 64 x 64 pairs, and the largest that fair
        coins would show among so many pairs.
    """
    rng = np.random.default_rng(1)
    ids = rng.integers(-(2**63), 2**63 - 1, size=samples, endpoint=True)
    seed = probe_seed("feature", 0)
    flips = np.zeros((64, 64))
    for start in range(0, samples, CHUNK):
        chunk = ids[start : start + CHUNK]
        before = hash_ids(chunk, seed)
        for bit in range(64):
            flipped = chunk ^ np.array(1 << bit, dtype=np.uint64).view(np.int64)
            changed = (hash_ids(flipped, seed) ^ before).view(np.uint8)
            flips[bit] += np.unpackbits(changed.reshape(-1, 8), axis=1).sum(axis=0)
    worst = float(np.abs(flips / samples - 0.5).max())
    # Largest of n normal deviations is about sqrt(2 ln(2 n)) of their standard deviation.
    chance = 0.5 / samples**0.5 * (2 * np.log(2 * 64 * 64)) ** 0.5
    return worst, float(chance)
