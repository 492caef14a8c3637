"""What every quality in the report rests on, as pairs of a name and a sentence."""

from __future__ import annotations

from muxrec.bench.compression.rates import joined
from muxrec.bench.compression.summary import Frontier
from muxrec.bench.compression.sweep import Sweep


def facts(frontier: Frontier, sweep: Sweep, command: str) -> dict[str, str]:
    """Rules, sizes and settings of a sweep, in the order in which they are shown."""
    first = frontier.first
    settings = first.settings
    schedule = settings["schedule"]
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
        "width": f"{first.width} numbers per feature",
        "model": f"{settings['head']} over the concatenated vectors, so every feature has "
        "first-layer weights of its own; rows start uniform in "
        f"[-{settings['init']:g}, {settings['init']:g}]",
        "training": f"batch {schedule['batch_size']:,}, at most {schedule['epochs']} epochs, which "
        f"a method's stages share, stop after {schedule['patience']} without a better validation "
        f"{first.metric}, best epoch kept; AdamW {schedule['dense_lr']:g} on the dense part, decay "
        f"{schedule['weight_decay']:g}; row-wise adagrad or rmsprop on the rows",
        "tuning": tuning,
        "budget": "share of the bytes of full float32 tables over the ids of the training part; it "
        "limits the served form without the dictionary of known ids",
        "training bytes": "numbers, optimiser state, maps and dictionary of the largest stage, "
        "of real tensors",
        "serving bytes": "numbers, maps and dictionary of the served form, of real tensors; the "
        f"head is left out. {first.metric} is measured on the served form",
        "time per step": "process CPU time of forward, backward and update on one thread, median",
        "intervals": "95 %, Student's t over seeds; differences are paired by seed. Seeds share "
        "one split, so the luck of the test part's sample is not in them",
        "engine": f"{settings['engine']}, muxrec {settings['muxrec']}, hash {settings['hash']}",
        "data digest": str(settings["data_digest"])[:16],
        "command": command,
    }
