"""``muxrec train RECIPE`` as one process of several, one of which dies where told.

Usage: train_on_ranks.py RECIPE [RANK STEP [SIGNAL]]
Run by tests/training/test_lost_ranks.py under torchrun.
"""

from __future__ import annotations

import os
import signal
import sys

from muxrec.cli import end, run
from muxrec.training.step import Stepper


def _die_at(rank: str, step: int, number: int) -> None:
    """Send this process a signal before its step number ``step``, where its rank is ``rank``."""
    real, done = Stepper.__call__, [0]

    def call(self: Stepper, epoch: int, number_in_epoch: int):
        if done[0] == step and os.environ["RANK"] == rank:
            os.kill(os.getpid(), number)
        done[0] += 1
        return real(self, epoch, number_in_epoch)

    Stepper.__call__ = call


def main() -> None:
    recipe, *death = sys.argv[1:]
    if death:
        name = death[2] if len(death) > 2 else "SIGKILL"
        _die_at(death[0], int(death[1]), signal.Signals[name])
    end(run(["train", recipe, "--variants", "main"]))


if __name__ == "__main__":
    main()
