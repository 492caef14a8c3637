"""What every quality in the report rests on, as pairs of a name and a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from muxrec.bench.compression.rates import joined
from muxrec.bench.compression.summary import Frontier
from muxrec.bench.compression.sweep import Sweep


def facts(
    frontier: Frontier, sweep: Sweep, command: str, *, task: Mapping[str, str]
) -> dict[str, str]:
    """Rules, sizes and settings of a sweep, in the order in which they are shown.

    Args:
        frontier: What was measured.
        sweep: How.
        command: The command line.
        task: The task's own facts.
    """
    first = frontier.first
    settings = first.settings
    tuning = f"one rate of the rows for all: {joined(sweep.rates)}"
    if len(sweep.rates) > 1:
        tuning = (
            f"rate of the rows out of {joined(sweep.rates)}, by validation {first.metric} of seed "
            "0; the same effort for every method and budget; nothing else is tuned per method"
        )
    return {
        "label rule": first.label_rule,
        "split rule": first.split_rule,
        "seeds": f"{sweep.seeds}; a seed changes initial rows, data order and hash (feature names "
        "get a suffix), so intervals hold the luck of collisions",
        **task,
        "tuning": tuning,
        "budget": "share of the bytes of full float32 tables over the ids of the training part; it "
        "limits the served form without the dictionary of known ids",
        "formats": "a name like full:int8 is served in that format: its bytes are of codes and "
        "scales, its quality of the numbers that they stand for; tables without a size to set are "
        "trained once for all formats, at the rate that is best for float32",
        "training bytes": "numbers, optimiser state, maps and dictionary of the largest stage",
        "serving bytes": "numbers, maps and dictionary of the served form, of real tensors; the "
        f"rest of the model is left out. {first.metric} is measured on the served form",
        "intervals": "95 %, Student's t over seeds; differences are paired by seed. Seeds share "
        "one split, so the luck of the test part's sample is not in them",
        "engine": f"{settings['engine']}, muxrec {settings['muxrec']}, hash {settings['hash']}",
        "data digest": str(settings["data_digest"])[:16],
        "command": command,
    }
