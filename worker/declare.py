"""Publishing what code declares: budgets, and what is to be done at fixed times. Each worker does so at its start."""

from __future__ import annotations

from collections.abc import Container, Iterable
from uuid import uuid4

from sqlalchemy.engine import Connection

from producer.ledger import budgets as ledger_budgets
from producer.ledger.engine import transaction_on
from producer.ledger.schedules import Declared, database_now, declare_all, lock_declaring, schedules_of, withdraw
from tasks import DeclaredBudget, DeclaredSchedule
from worker.log import log


def publish_budgets(connection: Connection, declared: Iterable[DeclaredBudget]) -> None:
    """Have the ledger hold these budgets. An operator's ceilings stay, and so does a newer version's word.

    What no code declares any more stays, too, until somebody removes it: a ceiling does not go by itself.
    """
    rows = [
        ledger_budgets.Declared(budget=each.budget, declared_by="code", declared_in=each.module) for each in declared
    ]
    if not rows:
        return
    stands = ledger_budgets.declare_budgets(connection, rows)
    for name in sorted({row.budget.name for row in rows} - set(stands)):
        log.warning("budget.not_declared", budget=name)


def publish_schedules(
    connection: Connection, schedules: Iterable[DeclaredSchedule], *, tenant: str, imported: Container[str]
) -> None:
    """Have the ledger hold these schedules, in one transaction.

    An unchanged one stays as it is, a person's pause stays, and a newer version's word stands. One that its module
    declared once and does not any more is paused by its code.

    Args:
        connection: In autocommit.
        schedules: What this process declares.
        tenant: Whose schedules they are.
        imported: The modules that this process has imported: only for these does it know what they do not declare.

    Raises:
        InvalidSchedule: If one has no tick any more.
    """
    declared = list(schedules)
    with transaction_on(connection):
        lock_declaring(connection)
        now = database_now(connection)
        stands = declare_all(
            connection,
            [
                Declared(
                    declaration=each.declaration,
                    id=uuid4(),
                    tenant=tenant,
                    declared_by="code",
                    declared_in=each.module,
                    next_tick=each.declaration.rule.after(now),
                )
                for each in declared
            ],
        )
        there = schedules_of(connection, tenant)
        modules = {each.declared_in for each in there if each.declared_in is not None and each.declared_in in imported}
        names = [each.declaration.name for each in declared]
        withdrawn = withdraw(connection, tenant, modules=modules, names=names)
    for name in withdrawn:
        log.warning("schedule.withdrawn", schedule=name, tenant=tenant)
    why = {each.name: "a person's" if each.declared_by == "person" else "a newer version's" for each in there}
    for name in sorted(set(names) - set(stands)):
        log.warning("schedule.not_declared", schedule=name, tenant=tenant, stands=why[name])
