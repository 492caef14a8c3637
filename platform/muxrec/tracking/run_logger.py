"""A training run's line to MLflow that can break without stopping the training.

Records go through a queue to one thread, which sends them in batches. While the server is away they
are kept in ``mlflow_spool.jsonl`` in the run's folder and sent when it answers again, in this
process or by the next one that opens the same folder.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from muxrec.log import event
from muxrec.manifest import write_text_atomically
from muxrec.recipe.model import Recipe
from muxrec.tracking import records, server
from muxrec.tracking.spool import Spool

RUN_FILE = "mlflow_run.json"
SPOOL_FILE = "mlflow_spool.jsonl"
BATCH_S = 2.0
RETRY_S = 30.0

log = logging.getLogger("muxrec.tracking")


def run_id_of(folder: Path) -> str | None:
    """The MLflow run that was opened for ``folder``, or None where there is none."""
    path = folder / RUN_FILE
    return json.loads(path.read_text())["run_id"] if path.is_file() else None


class RunLogger:
    """Context manager around one MLflow run; every call returns at once.

    Opening the same folder again continues the same run, so a training that was killed and resumed
    is one run. A server that is down costs a few seconds at the start, one warning, and nothing
    else.

    Attributes:
        run_id: MLflow's id of the run; None while no server has answered.
        folder: Where the spool and the run's id are kept.
    """

    def __init__(
        self, recipe: Recipe, *, folder: Path, name: str, tags: dict[str, str] | None = None
    ) -> None:
        self.run_id: str | None = None
        self.folder = folder
        self._recipe, self._name, self._tags = recipe, name, dict(tags or {})
        self._client: Any = None
        self._spool = Spool(folder / SPOOL_FILE)
        self._queue: queue.SimpleQueue[records.Record | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._warned = False
        self._retry_at = 0.0

    def __enter__(self) -> RunLogger:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._deliver([])
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        self._retry_at = 0.0
        self._deliver([{"status": "FINISHED" if kind is None else "FAILED"}])

    def params(self, values: dict[str, Any]) -> None:
        """Record parameters; each is written once and never changes."""
        self._queue.put(records.params_record(values))

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Record the metrics of one step."""
        time_ms = int(time.time() * 1000)
        self._queue.put(records.metrics_record(step, values, time_ms=time_ms))

    def artifact(self, path: Path) -> None:
        """Upload a file; it must stay where it is until the run ends."""
        self._queue.put({"artifact": str(path.resolve())})

    def dataset(self, *, digest: str, folder: Path, context: str = "training") -> None:
        """Name the dataset snapshot that the run reads."""
        self._queue.put(
            records.dataset_record(digest=digest, folder=str(folder.resolve()), context=context)
        )

    def _work(self) -> None:
        open_queue = True
        while open_queue:
            batch, open_queue = self._next_batch()
            if batch:
                self._deliver(batch)

    def _next_batch(self) -> tuple[list[records.Record], bool]:
        """The records of the next ``BATCH_S`` seconds, and whether more may follow."""
        batch: list[records.Record] = []
        deadline = float("inf")
        while len(batch) < records.MAX_METRICS:
            wait = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
            try:
                record = self._queue.get(timeout=wait)
            except queue.Empty:
                break
            if record is None:
                return batch, False
            batch.append(record)
            deadline = min(deadline, time.monotonic() + BATCH_S)
        return batch, True

    def _deliver(self, batch: list[records.Record]) -> None:
        """Send what waits in the spool and then ``batch``; on failure the spool keeps all of it."""
        try:
            self._spool.keep(batch)
            if time.monotonic() < self._retry_at:
                return
            self._open()
            self._send(self._spool.waiting())
            self._spool.clear()
        except server.server_failures() as error:
            self._retry_at = time.monotonic() + RETRY_S
            self._warn(error)

    def _open(self) -> None:
        if self.run_id is not None:
            return
        client = self._client = self._client or server.connect(self._recipe)
        known = run_id_of(self.folder)
        if known is not None and self._exists(known):
            client.update_run(known, status="RUNNING")
        else:
            experiment = server.experiment_id(self._recipe, client)
            run = client.create_run(experiment, run_name=self._name, tags=self._tags)
            known = run.info.run_id
            write_text_atomically(self.folder / RUN_FILE, json.dumps({"run_id": known}))
        self.run_id = known

    def _exists(self, run_id: str) -> bool:
        """Whether the server knows the run; the folder may have moved to another server."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _send(self, waiting: list[records.Record]) -> None:
        try:
            records.send(self._client, self.run_id or "", waiting)
        except server.server_failures() as error:
            if not _is_refusal(error):
                raise
            self._send_one_by_one(waiting)

    def _send_one_by_one(self, batch: list[records.Record]) -> None:
        """Send each record alone, so that one that the server refuses costs only itself."""
        for record in batch:
            try:
                records.send(self._client, self.run_id or "", [record])
            except server.server_failures() as error:
                if not _is_refusal(error):
                    raise
                log.warning(event("record_refused", record=record, reason=first_line(error)))

    def _warn(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        uri, kept = server.tracking_uri(self._recipe), self._spool.path
        effect = "training goes on, metrics are sent when the server answers"
        reason = first_line(error)
        log.warning(event("mlflow_away", uri=uri, kept_in=kept, effect=effect, reason=reason))


def first_line(error: Exception) -> str:
    """An error's first line, at most 200 characters: client libraries put whole pages into one."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _is_refusal(error: Exception) -> bool:
    """Whether the record itself is wrong: the server said so, or its file is not there."""
    if isinstance(error, FileNotFoundError):
        return True
    codes = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")
    return getattr(error, "error_code", None) in codes
