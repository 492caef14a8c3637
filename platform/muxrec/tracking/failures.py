"""What MLflow raises, said in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from muxrec.errors import RegistryError
from muxrec.tracking.run_logger import first_line
from muxrec.tracking.server import server_failures


@contextmanager
def registry_errors(uri: str, *, doing: str, advice: str) -> Iterator[None]:
    """Turn MLflow's failures inside the block into one ``RegistryError`` line.

    Args:
        uri: The server.
        doing: What was tried, e.g. ``publishing``.
        advice: What the user can do next.

    Raises:
        RegistryError: The server is away or refused.
    """
    try:
        yield
    except server_failures() as error:
        what = "does not answer" if _is_away(error) else "refused"
        raise RegistryError(
            f"{doing}: MLflow at {uri} {what}: {first_line(error)}. {advice}"
        ) from error


def is_missing(error: Exception) -> bool:
    """Whether MLflow says that something does not exist."""
    return getattr(error, "error_code", None) in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


def _is_away(error: Exception) -> bool:
    words = ("Max retries", "Connection refused", "timed out", "Failed to establish", "API request")
    return any(word in str(error) for word in words)
