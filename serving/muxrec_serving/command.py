"""``muxrec serve``."""

from __future__ import annotations

import re
from pathlib import Path

import click

from muxrec_serving.config import ServeConfig, default_cache


@click.command()
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="A bundle, or a run's bundles folder."
)
@click.option("--model", help="Registered model and alias: NAME@ALIAS.")
@click.option(
    "--registry", envvar="MLFLOW_TRACKING_URI", help="MLflow registry, e.g. http://host:5000."
)
@click.option("--cache", type=click.Path(path_type=Path), default=default_cache, help="Downloads.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--admin-port", type=click.IntRange(1, 65535), help="Loopback administration.")
@click.option("--journal", type=click.Path(path_type=Path), help="File that keeps live writes.")
@click.option("--poll-s", type=click.FloatRange(0.05), default=5.0, show_default=True)
@click.option("--settle-s", type=click.FloatRange(0), default=1.0, show_default=True)
@click.option("--drain-s", type=click.FloatRange(0, 60), default=0.5, show_default=True)
@click.option("--allow-digest", multiple=True, help="Digest, or a file of digests; repeatable.")
@click.option("--access-log", is_flag=True, help="Log every request.")
def serve(
    *,
    bundle: Path | None,
    model: str | None,
    registry: str | None,
    cache: Path,
    host: str,
    port: int,
    workers: int,
    admin_port: int | None,
    journal: Path | None,
    poll_s: float,
    settle_s: float,
    drain_s: float,
    allow_digest: tuple[str, ...],
    access_log: bool,
) -> None:
    """Answer item-to-item queries over HTTP from a bundle or from a registered model.

    A new bundle behind the alias or the CURRENT file is taken into service without a restart.
    """
    if (bundle is None) == (model is None):
        raise click.UsageError("give either --bundle or --model NAME@ALIAS")
    if workers > 1 and (journal is not None or admin_port is not None):
        raise click.UsageError("--journal and --admin-port need --workers 1")
    name, _, alias = (model or "").partition("@")
    if model is not None and not (name and alias):
        raise click.UsageError(f"--model reads NAME@ALIAS, e.g. movies@champion; got {model}")
    from muxrec_serving.process.server import run_server

    run_server(
        ServeConfig(
            bundle=bundle,
            model=name or None,
            alias=alias,
            registry=registry,
            cache=cache,
            host=host,
            port=port,
            workers=workers,
            admin_port=admin_port,
            journal=journal,
            poll_s=poll_s,
            settle_s=settle_s,
            drain_s=drain_s,
            allowed=read_digests(allow_digest),
            access_log=access_log,
        )
    )


def read_digests(given: tuple[str, ...]) -> tuple[str, ...]:
    """Bundle digests given as they are, or one per line in a file.

    Raises:
        UsageError: One is neither a file nor at least twelve hex digits.
    """
    digests: list[str] = []
    for entry in given:
        path = Path(entry)
        digests += path.read_text(encoding="utf-8").split() if path.is_file() else [entry]
    for digest in digests:
        if not re.fullmatch(r"[0-9a-f]{12,64}", digest):
            raise click.UsageError(f"--allow-digest: {digest[:80]!r} is no digest and no file")
    if given and not digests:
        raise click.UsageError("--allow-digest names an empty list: nothing could be served")
    return tuple(digests)
