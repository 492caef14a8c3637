"""A click group whose commands are imported only when one of them is called.

Importing every room at once would cost seconds and would break on a machine that has one room's
packages only, so names, targets and help lines stand in literal dicts.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import click

from muxrec.errors import MissingExtraError


@dataclass(frozen=True)
class LazyCommand:
    """Where a command is found.

    Attributes:
        target: ``module:attribute`` of a click command.
        help: One line for the list of commands.
        extras: Extras of the distribution that its room needs, comma separated.
    """

    target: str
    help: str
    extras: str = ""


class LazyGroup(click.Group):
    """A group over a literal dict of ``LazyCommand``."""

    def __init__(
        self,
        name: str | None = None,
        *,
        lazy: Mapping[str, LazyCommand],
        **attributes: object,
    ) -> None:
        super().__init__(name, **attributes)  # type: ignore[arg-type]
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The command names, in the order of the dict: the order in which a run uses them."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command called ``cmd_name``, imported now; None when there is none.

        Raises:
            MissingExtraError: A package that the command's room needs is not installed.
        """
        entry = self.lazy.get(cmd_name)
        if entry is None:
            return None
        module, attribute = entry.target.split(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise missing_extra(error, extras=entry.extras) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command and its arguments; remembers the extras for imports made while it runs."""
        if args and args[0] in self.lazy:
            ctx.meta["muxrec.extras"] = self.lazy[args[0]].extras
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the list of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.lazy.items()])


def missing_extra(error: ModuleNotFoundError, *, extras: str) -> MissingExtraError:
    """What to say when an import failed: the package, and the extra that brings it."""
    package = error.name or str(error)
    if package.split(".")[0].startswith("muxrec"):
        return MissingExtraError(
            f"{package} is not part of this installation: install muxrec again"
        )
    wanted = f"muxrec[{extras}]" if extras else "muxrec"
    return MissingExtraError(f"{package} is not installed: pip install '{wanted}'")
