"""``surefoot``: asks for actions and looks at what became of them, from a terminal or a script."""

from __future__ import annotations

import click

from producer.acting import acting, user_here, via_host
from producer.cli import approvals, jobs
from producer.cli.api import api
from producer.cli.audit import audit
from producer.cli.breakers import breaker, breakers
from producer.cli.budgets import budget, budgets
from producer.cli.conversations import conversation
from producer.cli.enqueue import enqueue
from producer.cli.explain import explain
from producer.cli.keys import keys
from producer.cli.migrate import grant, migrate_command
from producer.cli.plugged import Plugged
from producer.cli.schedules import schedules

__all__ = ["main"]


@click.group(cls=Plugged, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Ask for actions and see what became of them.

    Where the ledger and the broker are is read from SUREFOOT_DATABASE_URL and SUREFOOT_REDIS_URL.
    """
    click.get_current_context().with_resource(acting(user_here(), via_host("cli")))


for command in (
    enqueue,
    jobs.show,
    jobs.chain,
    explain,
    audit,
    conversation,
    jobs.jobs,
    jobs.cancel,
    jobs.resolve,
    jobs.retry,
    approvals.approvals,
    approvals.approval,
    approvals.approve,
    approvals.reject,
    approvals.withdraw,
    approvals.edit,
    approvals.roles,
    jobs.undo,
    jobs.erase,
    jobs.actions,
    schedules,
    breakers,
    breaker,
    budgets,
    budget,
    keys,
    api,
    migrate_command,
    grant,
):
    main.add_command(command)
