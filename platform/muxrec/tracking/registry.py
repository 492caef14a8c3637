"""Publishing: a verified bundle becomes a version of a registered model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muxrec.bundle import Bundle
from muxrec.log import event
from muxrec.recipe.load import output_folder
from muxrec.recipe.model import Recipe
from muxrec.tracking.aliases import CHALLENGER, model_name
from muxrec.tracking.failures import is_missing, registry_errors
from muxrec.tracking.records import dataset_input, dataset_record
from muxrec.tracking.server import connect, experiment_id, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DIGEST_TAG = "muxrec.bundle_digest"
ARTIFACT = "bundle"
MODEL_CODE = Path(__file__).parent.parent / "export" / "pyfunc_model.py"

log = logging.getLogger("muxrec.tracking")


@dataclass(frozen=True)
class Published:
    """A registered version.

    Attributes:
        name: Registered model.
        version: Its number.
        digest: Digest of its bundle.
        uri: MLflow server.
        is_new: Whether this call registered it; the same bundle is registered once.
    """

    name: str
    version: str
    digest: str
    uri: str
    is_new: bool


def publish(recipe: Recipe, folder: Path) -> Published:
    """Register the bundle in ``folder`` and point ``challenger`` to its version.

    The version's artifact is the bundle folder itself, loaded by code. Its tags name the digests of
    bundle and dataset, the recipe hash, the git commit and the hash spec; the dataset snapshot is
    the run's input, and the bundle's metrics belong to the model.

    Args:
        recipe: Names the server, the experiment and the model.
        folder: A bundle, or a folder of bundles with a current one.

    Raises:
        BundleError: The bundle does not verify.
        RegistryError: The server is away or refuses; the bundle stays where it is.
    """
    bundle = Bundle.open(folder)
    uri, name = tracking_uri(recipe), model_name(recipe)
    advice = f"The bundle is whole in {bundle.folder}: publish it when the server is back"
    with registry_errors(uri, doing="publishing", advice=advice):
        client = connect(recipe)
        # The first question is a cheap one, so that a server that is down is known in seconds.
        experiment = experiment_id(recipe, client)
        version = _registered(client, name, bundle.digest)
        is_new = version is None
        if version is None:
            run_id, is_own = _run_of(client, bundle, experiment)
            model = _log_model(recipe, bundle, run_id=run_id)
            _log_lineage(recipe, client, bundle, run_id=run_id, model_id=model.model_id)
            version = _register(client, name, bundle, model)
            if is_own:
                client.set_terminated(run_id)
        client.set_registered_model_alias(name, CHALLENGER, version)
    log.info(event("published", model=name, version=version, digest=bundle.digest, new=is_new))
    return Published(name, str(version), bundle.digest, uri, is_new)


def flat_metrics(metrics: Mapping[str, Any], *, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of nested metrics with their names joined by dots, in MLflow's alphabet."""
    for key, value in metrics.items():
        name = f"{prefix}{key}".replace("@", "_at_")
        if isinstance(value, Mapping):
            yield from flat_metrics(value, prefix=f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def version_tags(bundle: Bundle) -> dict[str, str]:
    """What a version says about its bundle."""
    manifest = bundle.manifest
    tags = {
        DIGEST_TAG: bundle.digest,
        "muxrec.dataset_digest": manifest.get("data_digest"),
        "muxrec.recipe_hash": manifest.get("recipe_hash"),
        "muxrec.hash_version": manifest["hash_version"],
        "muxrec.space": manifest["space"],
        "muxrec.format_version": manifest["format_version"],
        "muxrec.git_commit": manifest.get("lineage", {}).get("git_commit"),
    }
    return {key: str(value) for key, value in tags.items() if value is not None}


def _registered(client: MlflowClient, name: str, digest: str) -> str | None:
    """The version of ``name`` with this bundle, or None."""
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get(DIGEST_TAG) == digest:
            return str(version.version)
    return None


def _run_of(client: MlflowClient, bundle: Bundle, experiment: str) -> tuple[str, bool]:
    """The run that the model is logged to: the training's own, or a new one of this publication."""
    from mlflow.exceptions import MlflowException

    run_id = bundle.manifest.get("lineage", {}).get("run_id")
    try:
        if run_id is not None:
            return client.get_run(run_id).info.run_id, False
    except MlflowException as error:
        if not is_missing(error):
            raise
    run = client.create_run(experiment, run_name=f"publish {bundle.folder.name}")
    return run.info.run_id, True


def _log_model(recipe: Recipe, bundle: Bundle, *, run_id: str) -> Any:
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(tracking_uri(recipe))
    mlflow.set_registry_uri(tracking_uri(recipe))
    with mlflow.start_run(run_id=run_id):
        return mlflow.pyfunc.log_model(
            name=ARTIFACT,
            python_model=str(MODEL_CODE),
            artifacts={ARTIFACT: str(bundle.folder.resolve())},
            signature=_signature(default_k=min(10, bundle.neighbours.shape[1])),
            input_example=pd.DataFrame({"item_id": bundle.item_ids[:3].tolist()}),
            pip_requirements=[f"muxrec[serving,cpu]=={bundle.manifest['versions']['muxrec']}"],
        )


def _signature(*, default_k: int) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, DataType

    outputs = [
        ColSpec("string", "item_id"),
        ColSpec(Array(DataType.string), "neighbours"),
        ColSpec(Array(DataType.double), "scores"),
    ]
    return ModelSignature(
        inputs=Schema([ColSpec("string", "item_id")]),
        outputs=Schema([*outputs]),
        params=ParamSchema([ParamSpec("k", DataType.long, default_k)]),
    )


def _log_lineage(
    recipe: Recipe, client: MlflowClient, bundle: Bundle, *, run_id: str, model_id: str
) -> None:
    import time

    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [
        Metric(key, value, now, 0, model_id=model_id)
        for key, value in flat_metrics(bundle.manifest.get("metrics", {}))
    ]
    if metrics:
        client.log_batch(run_id, metrics=metrics, synchronous=True)
    snapshot = bundle.manifest.get("lineage", {}).get("dataset", "")
    record = dataset_record(
        digest=bundle.manifest["data_digest"],
        folder=str(output_folder(recipe) / "dataset" / snapshot),
        context="training",
    )
    client.log_inputs(run_id, datasets=[dataset_input(record["dataset"])])


def _register(client: MlflowClient, name: str, bundle: Bundle, model: Any) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version: ModelVersion = client.create_model_version(
        name,
        source=model.model_uri,
        run_id=model.run_id,
        model_id=model.model_id,
        tags=version_tags(bundle),
    )
    return str(version.version)
