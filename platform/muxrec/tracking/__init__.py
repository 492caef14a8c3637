"""MLflow: runs while training goes on, and the registry. The only room that imports mlflow."""

from muxrec.tracking.run_logger import RunLogger, run_id_of

__all__ = ["RunLogger", "run_id_of"]
