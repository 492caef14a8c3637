"""Which version serves: the aliases ``champion``, ``challenger`` and ``previous``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muxrec.errors import RegistryError
from muxrec.recipe.model import Recipe
from muxrec.tracking.failures import is_missing, registry_errors
from muxrec.tracking.server import connect, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"


@dataclass(frozen=True)
class Move:
    """One alias that moved.

    Attributes:
        alias: Its name.
        before: Version that it named, or None.
        after: Version that it names now, or None where it was removed.
    """

    alias: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.alias}: {self.before or 'none'} -> {self.after or 'none'}"


@dataclass(frozen=True)
class Gate:
    """The condition of a promotion: not worse than the champion.

    Attributes:
        metric: A metric of the bundle, e.g. ``recall_at_10``; higher is better.
        max_drop: Largest difference by which the new version may be worse.
    """

    metric: str
    max_drop: float = 0.0


def model_name(recipe: Recipe) -> str:
    """Name of the recipe's registered model."""
    return recipe.tracking.model or recipe.name


def promote(
    recipe: Recipe, version: str | None = None, *, gate: Gate | None = None, force: bool = False
) -> list[Move]:
    """Make a version the champion; the old champion becomes ``previous``.

    Args:
        recipe: Names the server and the model.
        version: Version to promote; None for the challenger.
        gate: Condition on a metric; None for none.
        force: Promote even where the gate says no.

    Returns:
        The aliases that moved; empty when the version is the champion already.

    Raises:
        RegistryError: The version is unknown, the gate refused, or the server is away.
    """
    with _talking(recipe, "promoting"):
        client, name = connect(recipe), model_name(recipe)
        champion = version_of(client, name, CHAMPION)
        wanted = version or version_of(client, name, CHALLENGER)
        if wanted is None:
            raise RegistryError(
                f"{name} has no challenger to promote: publish a bundle first, or name a version "
                f"(known: {_known(client, name)})"
            )
        _check_exists(client, name, wanted)
        if wanted == champion:
            return []
        if gate is not None and champion is not None and not force:
            _check_gate(client, name, gate, wanted, champion)
        moves = []
        if champion is not None:
            moves.append(_move(client, name, PREVIOUS, champion))
        moves.append(_move(client, name, CHAMPION, wanted))
        return moves


def rollback(recipe: Recipe) -> list[Move]:
    """Make the previous champion the champion again.

    ``previous`` is removed, so that a second rollback cannot bring the bad version back.

    Raises:
        RegistryError: There is no previous champion, or the server is away.
    """
    with _talking(recipe, "rolling back"):
        client, name = connect(recipe), model_name(recipe)
        previous = version_of(client, name, PREVIOUS)
        if previous is None:
            raise RegistryError(
                f"{name} has no previous champion to go back to: promote a version by its number "
                f"(known: {_known(client, name)})"
            )
        _check_exists(client, name, previous)
        champion = _move(client, name, CHAMPION, previous)
        client.delete_registered_model_alias(name, PREVIOUS)
        return [champion, Move(PREVIOUS, previous, None)]


def version_of(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that ``alias`` of the model names, or None."""
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except Exception as error:
        # MLflow says INVALID_PARAMETER_VALUE for an alias and RESOURCE_DOES_NOT_EXIST for a model.
        if is_missing(error) or ("alias" in str(error) and "not found" in str(error)):
            return None
        raise


def version_metrics(client: MlflowClient, name: str, version: str) -> dict[str, float]:
    """Metrics of the logged model behind a version, by name; empty where it has none."""
    registered = client.get_model_version(name, version)
    # SQLite registries leave model_id empty; the source is the same logged model.
    model_id = registered.model_id or (registered.source or "").removeprefix("models:/")
    if not model_id.startswith("m-"):
        return {}
    metrics = client.get_logged_model(model_id).metrics or []
    return {entry.key: entry.value for entry in metrics}


def _talking(recipe: Recipe, doing: str) -> Any:
    uri = tracking_uri(recipe)
    return registry_errors(uri, doing=doing, advice="No alias was left half moved; try again")


def _move(client: MlflowClient, name: str, alias: str, version: str) -> Move:
    before = version_of(client, name, alias)
    client.set_registered_model_alias(name, alias, version)
    return Move(alias, before, version)


def _known(client: MlflowClient, name: str) -> str:
    versions = client.search_model_versions(f"name = '{name}'")
    return ", ".join(sorted((str(v.version) for v in versions), key=int)) or "none"


def _check_exists(client: MlflowClient, name: str, version: str) -> None:
    try:
        client.get_model_version(name, version)
    except Exception as error:
        if not is_missing(error) and "INVALID" not in str(getattr(error, "error_code", "")):
            raise
        known = _known(client, name)
        raise RegistryError(f"{name} has no version {version} (known: {known})") from error


def _check_gate(client: MlflowClient, name: str, gate: Gate, new: str, old: str) -> None:
    values = {version: _metric(client, name, version, gate.metric) for version in (new, old)}
    drop = values[old] - values[new]
    if not drop <= gate.max_drop:
        raise RegistryError(
            f"{name} version {new} has {gate.metric} {values[new]:.4g}, champion {old} has "
            f"{values[old]:.4g}: {drop:.4g} worse, at most {gate.max_drop:g} allowed. "
            "Promote with --force to override"
        )


def _metric(client: MlflowClient, name: str, version: str, metric: str) -> float:
    found = version_metrics(client, name, version)
    if metric not in found:
        known = ", ".join(sorted(found)) or "none"
        raise RegistryError(f"{name} version {version} has no metric {metric} (known: {known})")
    return found[metric]
