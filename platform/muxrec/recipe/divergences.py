"""What a recipe may say about each divergence: its options, and whether it has a temperature.

The arithmetic lives in ``muxrec.losses``; this page is what a recipe is checked against, without
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from muxrec.spec.table_methods import Option

DivergenceName = Literal[
    "cross_entropy", "sigmoid", "similarity_distribution", "triplet", "angular_margin"
]


@dataclass(frozen=True)
class DivergenceSpec:
    """What a recipe may say about a divergence.

    Attributes:
        has_temperature: Whether it compares cosines divided by the temperature; otherwise it
            compares plain cosines, and neither the temperature nor logQ means anything to it.
        options: Its options by name.
    """

    has_temperature: bool = True
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])


def _number(default: float, low: float, high: float, what: str) -> Option:
    return Option(default, low, high, what, is_whole=False)


DIVERGENCE_SPECS: dict[DivergenceName, DivergenceSpec] = {
    "cross_entropy": DivergenceSpec(),
    "sigmoid": DivergenceSpec(
        options={
            "bias": _number(-10.0, -100.0, 100.0, "start value of what is added to every score"),
            "learn_bias": Option(1, 0, 1, "whether the bias is trained"),
        },
    ),
    "similarity_distribution": DivergenceSpec(
        options={"epsilon": _number(1e-8, 1e-30, 0.1, "added to every share")},
    ),
    "triplet": DivergenceSpec(
        has_temperature=False,
        options={"margin": _number(0.2, 1e-6, 4.0, "margin between squared distances")},
    ),
    "angular_margin": DivergenceSpec(
        options={"margin": _number(0.5, 0.0, 1.5, "radians added to the angle of a positive")},
    ),
}
"""Name -> what the recipe may say of it; the names are those of ``muxrec.losses.divergences``."""
