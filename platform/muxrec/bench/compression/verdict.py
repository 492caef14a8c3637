"""What to take at each size: a sentence per budget, computed from the results."""

from __future__ import annotations

from muxrec.bench.compression.summary import Entry, Estimate, Frontier, against


def verdicts(frontier: Frontier) -> list[str]:
    """A sentence per budget, largest first: the best within its bytes, and who is level with it."""
    return [_verdict(frontier, budget) for budget in frontier.budgets]


def level_with(frontier: Frontier, budget: float) -> list[Entry]:
    """Contestants within ``budget`` that the seeds do not show behind the best, best first."""
    best, *others = frontier.within(budget)
    return [entry for entry in others if is_level(entry, best)]


def is_level(entry: Entry, best: Entry) -> bool:
    """Whether the seeds do not show that ``entry`` is behind ``best``."""
    gap = against(entry, best)
    return gap is None or not gap.is_clear


def label(entry: Entry, budget: float) -> str:
    """The contestant, with the budget that it was asked for where that is another one."""
    if entry.budget in (budget, 1.0):
        return entry.method
    return f"{entry.method} ({percent(entry.budget)})"


def span(value: Estimate, *, sign: bool = False) -> str:
    """``0.7894 ± 0.0012``; no spread for one seed."""
    text = f"{value.mean:+.4f}" if sign else f"{value.mean:.4f}"
    return text if value.half_width is None else f"{text} ± {value.half_width:.4f}"


def percent(value: float) -> str:
    """A share as people read it."""
    return f"{100 * value:.3g} %"


def _verdict(frontier: Frontier, budget: float) -> str:
    whole = frontier.whole_bytes
    at = f"At {percent(budget)} of full tables"
    at += "" if whole is None else f" ({budget * whole:,.0f} bytes)"
    found = frontier.within(budget)
    if not found:
        return f"{at} no contestant is small enough."
    best = found[0]
    first = (
        f"{at} the best is {label(best, budget)}: {frontier.first.metric} {span(best.quality)} in "
        f"{best.limited_bytes:,.0f} bytes, {best.serving_bytes:,.0f} with the dictionary of ids"
    )
    if best.quality.seeds == 1:
        return f"{first}; one seed shows no difference clearly."
    level = [label(entry, budget) for entry in level_with(frontier, budget)]
    are = "is" if len(level) == 1 else "are"
    told = f"{_listed(level)} {are} level with it" if level else "no other is level with it"
    return f"{first}; {told}."


def _listed(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
