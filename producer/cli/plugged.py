"""Commands that other packages bring along, found by their entry points.

`surefoot up` is one: it starts workers, of which this side knows nothing. A command is loaded when it is run, or told
of in the list of all; one whose package is not whole says so instead of breaking the others.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import click

from producer.cli.speaking import refuse

GROUP = "surefoot.commands"


class Plugged(click.Group):
    """A group that has its own commands, and those."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all."""
        return sorted({*super().list_commands(ctx), *_found()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one; our own come first, so that none is replaced unseen."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in (found := _found()):
            return own
        try:
            command: click.Command = found[cmd_name].load()
        except ModuleNotFoundError as error:
            said = f"{error.name} is not installed; {cmd_name} needs the extras: surefoot[worker,api,dev]"
            return click.Command(
                cmd_name, callback=lambda: refuse(said), short_help=f"Not here: {error.name} is missing."
            )
        return command


def _found() -> dict[str, EntryPoint]:
    return {each.name: each for each in entry_points(group=GROUP)}
