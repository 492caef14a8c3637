"""One connection to MLflow: short waits, no telemetry, artifacts beside the database.

By default the client blocks for 248 s when nothing listens, so retries and timeouts are set before
mlflow is used; whoever sets the same variables in the environment wins. mlflow takes seconds to
import and is therefore imported inside functions.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from muxrec.recipe.load import output_folder
from muxrec.recipe.model import Recipe

if TYPE_CHECKING:
    from mlflow import MlflowClient

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Environment that muxrec gives mlflow, where the caller has not set it."""


def tracking_uri(recipe: Recipe) -> str:
    """The recipe's server, or SQLite inside its output folder."""
    if recipe.tracking.uri is not None:
        return recipe.tracking.uri
    return f"sqlite:///{output_folder(recipe).resolve()}/mlflow.db"


def connect(recipe: Recipe) -> MlflowClient:
    """A client of the recipe's tracking server and registry; creates a SQLite file's folder."""
    prepare_environment()
    from mlflow import MlflowClient

    uri = tracking_uri(recipe)
    if (folder := _database_folder(uri)) is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def prepare_environment() -> None:
    """Set ``SETTINGS`` where the environment does not, and keep its own news out of the log."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def experiment_id(recipe: Recipe, client: MlflowClient) -> str:
    """Id of the recipe's experiment, created when it is not there yet.

    With SQLite its artifacts lie in ``mlartifacts`` beside the database: mlflow's own default is
    the process's working folder.
    """
    name = recipe.tracking.experiment or recipe.name
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    folder = _database_folder(tracking_uri(recipe))
    location = None if folder is None else (folder / "mlartifacts").as_uri()
    return client.create_experiment(name, artifact_location=location)


def server_failures() -> tuple[type[Exception], ...]:
    """Every exception by which mlflow tells that a server or its database does not answer."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def _database_folder(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:///") else None
