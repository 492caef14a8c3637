"""The bundle as an MLflow model, loaded from this code and never from a pickle.

MLflow copies this file beside the bundle and runs it by path, so it imports nothing of muxrec but
the bundle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from muxrec.bundle import Bundle
from muxrec.errors import DataError


class Neighbours(PythonModel):
    """Item ids in, precomputed neighbours with their scores out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle; a damaged one is refused with the file named."""
        self.bundle = Bundle.open(Path(context.artifacts["bundle"]))
        self.positions = {item: at for at, item in enumerate(self.bundle.item_ids)}

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride] - the base returns nothing
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """One row per item: ``item_id``, ``neighbours`` and ``scores``; empty for unknown items.

        Args:
            context: Given by MLflow.
            model_input: Column ``item_id``.
            params: ``k``, neighbours per item, at most as many as the bundle holds.

        Raises:
            DataError: ``k`` is out of range.
        """
        k = int((params or {}).get("k", 10))
        most = self.bundle.neighbours.shape[1]
        if not 1 <= k <= most:
            raise DataError(f"k must be in [1, {most}], got {k}")
        ids = model_input["item_id"].tolist()
        found = [self.positions.get(item) for item in ids]
        return pd.DataFrame(
            {
                "item_id": ids,
                "neighbours": [self._names(at, k) for at in found],
                "scores": [
                    [] if at is None else self.bundle.scores[at, :k].tolist() for at in found
                ],
            }
        )

    def _names(self, position: int | None, k: int) -> list[str]:
        if position is None:
            return []
        return self.bundle.item_ids[self.bundle.neighbours[position, :k]].tolist()


set_model(Neighbours())
