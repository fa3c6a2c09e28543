"""``surefoot``: asks for actions and looks at what became of them, from a terminal or a script."""

from __future__ import annotations

import click

from producer.cli import jobs
from producer.cli.conversations import conversation
from producer.cli.enqueue import enqueue
from producer.cli.migrate import migrate_command
from producer.cli.schedules import schedules

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Ask for actions and see what became of them.

    Where the ledger and the broker are is read from SUREFOOT_DATABASE_URL and SUREFOOT_REDIS_URL.
    """


for command in (
    enqueue,
    jobs.show,
    jobs.chain,
    conversation,
    jobs.jobs,
    jobs.cancel,
    jobs.resolve,
    jobs.actions,
    schedules,
    migrate_command,
):
    main.add_command(command)
