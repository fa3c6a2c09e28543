"""Defects in a process that asks. It loads no worker's code, as no producer does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import text

from producer.ledger import cancel as cancelling
from producer.ledger import single
from producer.ledger.accept import ACCEPT, ACCEPT_NEW
from tests.chaos.mutants.patching import part, put, replaced, rewrite

RING_AT = r"CASE WHEN due_at <= clock_timestamp\(\) AND .+? THEN due_at \+ .+? ELSE due_at END"
NOTED = text("UPDATE jobs SET ring_at = clock_timestamp() WHERE id = ANY(:ids)")


def mutate(name: str) -> None:
    """Break the product in the named way, in this process; one of a worker's leaves a process that asks whole."""
    if name in DEFECTS:
        DEFECTS[name]()


def outbox_apart() -> None:
    """A job is accepted first, and then, by another transaction, noted as one that is to be rung for."""
    for statement in (ACCEPT, ACCEPT_NEW):
        rewrite(statement, RING_AT, "clock_timestamp() + interval '1 year'")
    accept = part(single, "accept")  # which parks once the job is accepted

    def accept_and_note(connection: Any, envelopes: Any, **how: Any) -> Any:
        answers = accept(connection, envelopes, **how)
        created = [answer.job_id for answer in answers if answer.outcome == "created"]
        connection.execute(NOTED, {"ids": created})
        return answers

    put(single, "accept", accept_and_note)


def accepted_anew() -> None:
    """A request that is sent again makes another job."""
    rewrite(ACCEPT, r"l\.id IS NULL\s+OR", "true OR l.id IS NULL OR")


def cancel_overwrites() -> None:
    """Whoever cancels has it so, whatever has come of the job by then."""
    changed = cancelling.CANCEL.text
    changed = changed.replace(changed[changed.index("AND state IN (") : changed.index("), moved AS")], "")
    start, end = changed.index("CASE WHEN state IN ("), changed.index("END AS becomes")
    changed = replaced(changed, changed[start:end], "CASE WHEN true THEN 'cancelled' ")
    put(cancelling, "CANCEL", text(changed))


DEFECTS: Mapping[str, Callable[[], None]] = {
    "outbox_apart": outbox_apart,
    "accepted_anew": accepted_anew,
    "cancel_overwrites": cancel_overwrites,
}
