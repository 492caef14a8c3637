"""What a recipe may say about each table method: its options, its free size, what it needs.

The arithmetic of the methods lives in ``muxrec.tables.methods``; this page is what a recipe is
checked against, without torch.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Option:
    """One number that a method can be given in ``tables[].options``.

    Attributes:
        default: Value where none is given.
        low: Smallest value.
        high: Largest value.
        what: What it is.
        is_whole: Whether it is an integer.
    """

    default: float
    low: float
    high: float
    what: str
    is_whole: bool = True


@dataclass(frozen=True)
class MethodSpec:
    """What a recipe may say about a method.

    Attributes:
        free: What a byte budget sets: ``rows``, an option, or None for a method that has no size of
            its own or finds it in training.
        is_shared: Whether all readers read one array; otherwise each has arrays of its own.
        needs_vocabulary: Whether it works on the ids of the training data only.
        has_probes: Whether features may read several rows per id by ``probes``.
        options: Its options by name.
    """

    free: str | None
    is_shared: bool = False
    needs_vocabulary: bool = True
    has_probes: bool = False
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])

    @property
    def takes_rows(self) -> bool:
        """Whether ``tables[].rows`` is declared (or set by a budget)."""
        return self.free == "rows"

    @property
    def deals_rows(self) -> bool:
        """Whether the declared rows are shared out to the readers, by how many ids each knows."""
        return self.takes_rows and not self.is_shared


def _share(default: float, what: str, *, low: float = 0.0, high: float = 1.0) -> Option:
    return Option(default, low, high, what, is_whole=False)


METHOD_SPECS: dict[str, MethodSpec] = {
    "full": MethodSpec(None),
    "hashed": MethodSpec("rows", needs_vocabulary=False, has_probes=True),
    "unified": MethodSpec("rows", is_shared=True, needs_vocabulary=False, has_probes=True),
    "narrow": MethodSpec(
        "dim", options={"dim": Option(4, 1, 4096, "numbers kept per id before the projection")}
    ),
    "mde": MethodSpec(
        "alpha",
        options={"alpha": _share(0.3, "how fast widths fall with a feature's ids", high=8.0)},
    ),
    "qr": MethodSpec(
        "buckets",
        options={"buckets": Option(64, 1, 2**31 - 1, "rows of the remainder table, per feature")},
    ),
    "tt": MethodSpec("rank", options={"rank": Option(8, 1, 1000, "rank of the tensor train")}),
    "dhe": MethodSpec(
        "hidden",
        needs_vocabulary=False,
        options={
            "hidden": Option(64, 1, 65536, "width of the hidden layers"),
            "layers": Option(2, 1, 16, "hidden layers"),
            "hashes": Option(128, 1, 4096, "hash functions"),
        },
    ),
    "robe": MethodSpec(
        "rows",
        is_shared=True,
        needs_vocabulary=False,
        options={"block": Option(4, 1, 4096, "numbers read in one piece")},
    ),
    "hash_embedding": MethodSpec(
        "rows",
        is_shared=True,
        needs_vocabulary=False,
        options={
            "hashes": Option(2, 1, 16, "rows summed per id"),
            "weight_share": _share(0.25, "share of the numbers that are weights", high=0.9),
        },
    ),
    "memcom": MethodSpec(
        "rows", options={"bias": Option(0, 0, 1, "whether ids also have a number that is added")}
    ),
    "adapt": MethodSpec(
        "rows",
        options={"hot": _share(0.5, "share of the rows that belong to the most frequent ids")},
    ),
    "dedup": MethodSpec(
        "kept",
        options={
            "kept": _share(0.5, "largest share of the blocks that is kept", low=0.001),
            "block": Option(2, 1, 2**20, "rows of a block"),
            "distance": _share(0.01, "numbers this close count as equal", high=100.0),
        },
    ),
    "dpq": MethodSpec(
        "share",
        options={
            "share": _share(0.5, "share of full rows' bytes that codes and codebooks may take"),
            "parts": Option(8, 1, 256, "most codes per id, lowered to a divisor of the width"),
            "codes": Option(256, 2, 256, "most entries of each part's codebook"),
        },
    ),
    "mgqe": MethodSpec(
        "share",
        options={
            "share": _share(0.5, "share of full rows' bytes that codes and codebooks may take"),
            "parts": Option(8, 1, 256, "most codes per id, lowered to a divisor of the width"),
            "codes": Option(256, 2, 256, "most entries of a codebook, for frequent ids"),
            "tail_codes": Option(64, 1, 256, "most entries that rare ids use, half at the most"),
            "frequent": _share(0.1, "share of the ids that count as frequent"),
        },
    ),
    "cce": MethodSpec(
        "rows",
        options={
            "columns": Option(4, 1, 64, "pieces of a vector with pointers of their own, as parts"),
            "rounds": Option(3, 0, 64, "clusterings, one after each part of the training"),
        },
    ),
    "int8": MethodSpec(
        None,
        options={"scale": _share(0.002, "size of a step of the stored integers", low=1e-8)},
    ),
    "int16": MethodSpec(
        None,
        options={"scale": _share(0.00005, "size of a step of the stored integers", low=1e-8)},
    ),
    "alpt": MethodSpec(
        None,
        options={
            "scale": _share(0.002, "size of a row's first step", low=1e-8),
            "scale_lr": _share(2e-5, "learning rate of the step sizes", high=1.0),
        },
    ),
    "autodim": MethodSpec(
        None, options={"alpha_lr": _share(0.01, "learning rate of the width weights", high=10.0)}
    ),
    "optembed": MethodSpec(
        None,
        options={
            "sparsity": _share(1e-4, "weight of the loss term that raises thresholds", high=10.0),
            "rounds": Option(10, 1, 1000, "rounds of the evolutionary search for widths"),
        },
    ),
    "deeplight": MethodSpec(
        "density", options={"density": _share(0.3, "share of the numbers kept", low=1e-4)}
    ),
    "autosrh": MethodSpec(
        "density",
        options={
            "density": _share(0.3, "share of the numbers kept", low=1e-4),
            "groups": Option(6, 1, 1024, "groups of ids of like frequency"),
            "alpha_lr": _share(0.01, "learning rate of the gates", high=10.0),
        },
    ),
    "pep": MethodSpec(
        "density", options={"density": _share(0.3, "share of the numbers kept", low=1e-4)}
    ),
    "cafe": MethodSpec(
        "rows",
        needs_vocabulary=False,
        options={
            "hot": _share(0.5, "share of the rows that belong to hot ids"),
            "decay": _share(0.99, "factor of all scores after every round"),
            "every": Option(50, 1, 10**9, "steps between rounds of admission and eviction"),
            "threshold": _share(
                2.0, "score that an id needs for a row; a read scores 1 on average", high=1e9
            ),
        },
    ),
}


def option_faults(method: str, options: Mapping[str, float]) -> list[str]:
    """Faults of ``options`` as ``options.<name>: what`` lines; empty when they are sound."""
    found = faults_of_options(method, METHOD_SPECS[method].options, options)
    return [f"options.{name}: {what}" for name, what in found]


def faults_of_options(
    owner: str, known: Mapping[str, Option], given: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Faults of the options ``given`` to ``owner`` as ``(name, what)``; empty when sound."""
    faults: list[tuple[str, str]] = []
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean {near[0]}" if near else ""
            names = ", ".join(known) or "none"
            faults.append((name, f"{owner} has no such option (known: {names}){hint}"))
            continue
        option = known[name]
        fits = math.isfinite(value) and option.low <= value <= option.high
        if not fits or (option.is_whole and value != int(value)):
            kind = "an integer" if option.is_whole else "a number"
            expected = f"expected {kind} from {option.low:g} to {option.high:g}"
            faults.append((name, f"{expected} ({option.what}), got {value:g}"))
    return faults
