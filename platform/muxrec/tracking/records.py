"""What a run reports, as JSON records: they wait in the spool in this form and are sent from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

Record = dict[str, Any]
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_PARAM_CHARACTERS = 6000


def metrics_record(step: int, values: dict[str, float], *, time_ms: int) -> Record:
    """Metrics of one step; ``@`` becomes ``_at_``, since MLflow refuses it in a name."""
    named = {name.replace("@", "_at_"): float(value) for name, value in values.items()}
    return {"metrics": named, "step": int(step), "time_ms": time_ms}


def params_record(values: dict[str, Any]) -> Record:
    """Parameters as MLflow keeps them: strings of at most 6000 characters."""
    return {"params": {k: str(v)[:MAX_PARAM_CHARACTERS] for k, v in values.items()}}


def send(client: MlflowClient, run_id: str, records: list[Record]) -> None:
    """Send ``records`` in as few calls as MLflow's batch limits allow, in order of their kind.

    Raises:
        MlflowException: The server refused a record or did not answer.
        OSError: An artifact is not there.
    """
    from mlflow.entities import Metric, Param

    metrics = [
        Metric(name, value, record["time_ms"], record["step"])
        for record in records
        for name, value in record.get("metrics", {}).items()
    ]
    params = [Param(k, v) for record in records for k, v in record.get("params", {}).items()]
    for start in range(0, len(params), MAX_PARAMS):
        client.log_batch(run_id, params=params[start : start + MAX_PARAMS], synchronous=True)
    for start in range(0, len(metrics), MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS], synchronous=True)
    for record in records:
        _send_other(client, run_id, record)


def dataset_record(*, digest: str, folder: str, context: str) -> Record:
    """The dataset snapshot that a run reads, for MLflow's lineage."""
    return {"dataset": {"digest": digest, "folder": folder, "context": context}}


def _send_other(client: MlflowClient, run_id: str, record: Record) -> None:
    if "artifact" in record:
        client.log_artifact(run_id, record["artifact"])
    if "status" in record:
        client.set_terminated(run_id, status=record["status"])
    if "dataset" in record:
        client.log_inputs(run_id, datasets=[dataset_input(record["dataset"])])


def dataset_input(dataset: dict[str, str]) -> Any:
    """MLflow's form of a dataset record. Its digest field holds 36 characters, so ours is cut."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = f'{{"uri": "{Path(dataset["folder"]).resolve().as_uri()}"}}'
    entity = Dataset(
        name="snapshot", digest=dataset["digest"][:36], source_type="local", source=source
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", dataset["context"])])
