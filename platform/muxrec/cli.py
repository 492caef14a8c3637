"""The ``muxrec`` command: names, exit codes and error lines. Every command lives in its room."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from muxrec import __version__
from muxrec.errors import MuxrecError, RecipeError
from muxrec.lazy_group import LazyCommand, LazyGroup, missing_extra
from muxrec.log import install_handler

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done, failed, bad usage or recipe, stopped by the user."""

QUIET_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # OpenMP's threads wait in a loop for each other; on a machine with other work that loop takes
    # the core from the thread that is waited for. Measured beside three busy processes on 2 cores:
    # a training step waits 2 to 6 times shorter in sleep.
    "OMP_WAIT_POLICY": "passive",
}
"""Libraries that would call home, warn after a fork, or spin, unless they are told otherwise."""

COMMANDS = {
    "doctor": LazyCommand("muxrec.doctor.command:doctor", "Versions, devices and every mismatch."),
    "demo": LazyCommand(
        "muxrec.demo.command:demo",
        "The whole road on a small made-up world.",
        "train,jobs,serving,cpu",
    ),
    "methods": LazyCommand(
        "muxrec.tables.command:methods", "Table methods: papers, stages, bytes per id.", "train,cpu"
    ),
    "run": LazyCommand(
        "muxrec.run_command:run", "All stages of a recipe, data to published bundle."
    ),
    "data": LazyCommand(
        "muxrec_jobs.commands:data", "Build and check a dataset with Spark.", "jobs"
    ),
    "train": LazyCommand("muxrec.training.command:train", "Train the item towers.", "train,cpu"),
    "eval": LazyCommand(
        "muxrec.evaluation.command:evaluate", "Rank the catalogue, write the report.", "train,cpu"
    ),
    "compare": LazyCommand(
        "muxrec.evaluation.command:compare", "Compare the results of runs.", "train,cpu"
    ),
    "export": LazyCommand("muxrec.export.command:export", "Make the bundle.", "train,cpu"),
    "index": LazyCommand(
        "muxrec.export.command:index", "Build a bundle's index again.", "train,cpu"
    ),
    "publish": LazyCommand(
        "muxrec.export.publish_command:publish", "Register the bundle with MLflow.", "train,cpu"
    ),
    "promote": LazyCommand(
        "muxrec.export.publish_command:promote", "Point an alias at a version.", "train,cpu"
    ),
    "rollback": LazyCommand(
        "muxrec.export.publish_command:rollback",
        "Point the alias at the version before.",
        "train,cpu",
    ),
    "serve": LazyCommand("muxrec_serving.command:serve", "Answer over HTTP.", "serving,cpu"),
    "bench": LazyCommand("muxrec.bench.command:bench", "Measurements behind the tables in docs/."),
}


@click.command(
    cls=LazyGroup,
    lazy=COMMANDS,
    name="muxrec",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--debug", is_flag=True, help="Show tracebacks and debug log lines.")
@click.option("--quiet", is_flag=True, help="Log warnings and errors only.")
@click.version_option(__version__, prog_name="muxrec")
def cli(*, debug: bool, quiet: bool) -> None:
    """Feature embeddings for recommendation: logs and a catalogue in, served neighbours out."""
    level = logging.WARNING if quiet else logging.INFO
    install_handler(level=logging.DEBUG if debug else level)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code and prints errors as one line each on stderr."""
    context: click.Context | None = None
    try:
        context = cli.make_context("muxrec", list(arguments))
        with context:
            cli.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return USAGE
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into exit codes
        return _report(error, context)
    return DONE


def main() -> None:
    """Entry point of ``muxrec`` and ``python -m muxrec.cli``."""
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    end(run(sys.argv[1:]))


def end(code: int) -> NoReturn:
    """End the process with an exit code.

    One of several that trained together ends without the interpreter's last steps: there gloo's
    threads are sometimes still running when their objects go, which aborts a process that was done.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _report(error: Exception, context: click.Context | None) -> int:
    if isinstance(error, BrokenPipeError):
        # The reader has gone (`muxrec doctor | head`): point stdout elsewhere, or the flush at exit
        # would fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if context is not None and context.params.get("debug"):
        traceback.print_exception(error)
        return USAGE if isinstance(error, RecipeError) else FAILED
    if isinstance(error, ModuleNotFoundError):
        extras = context.meta.get("muxrec.extras", "") if context is not None else ""
        error = missing_extra(error, extras=extras)
    if isinstance(error, RecipeError):
        click.echo(str(error), err=True)
        return USAGE
    if isinstance(error, MuxrecError):
        click.echo(f"error: {error}", err=True)
        return FAILED
    what = " ".join(f"{type(error).__name__}: {error}".split())
    click.echo(f"error: {what} (muxrec --debug shows the traceback)", err=True)
    return FAILED


if __name__ == "__main__":
    main()
