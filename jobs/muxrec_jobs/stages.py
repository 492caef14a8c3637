"""Progress of a build: a bar over its stages, and the seconds that each took."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from muxrec.log import event

log = logging.getLogger("muxrec_jobs.build")


class Stages:
    """Names, counts and times the stages of one build; the bar shows on a terminal only."""

    def __init__(self, total: int, *, title: str) -> None:
        self.seconds: dict[str, float] = {}
        self.current = "start"
        self._bar = tqdm(total=total, desc=title, unit="stage", disable=None, leave=False)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """One stage; its time is kept in ``seconds`` and logged."""
        self.current = name
        self._bar.set_postfix_str(name)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)
        log.info(event("stage", stage=name, seconds=self.seconds[name]))
        self._bar.update()

    def close(self) -> None:
        """Removes the bar."""
        self._bar.close()
