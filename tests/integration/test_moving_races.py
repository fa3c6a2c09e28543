"""A job that is moved while somebody else has it locked: whoever waited goes by how it is then, and is never refused.

A statement that waits for a row sees it as it is afterwards where it locks it, and as it was before where it changes
it, until the database notices. What a move leaves out of the columns that hang together with the state is then a
mixture of both, which the ledger's checks refuse.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer import Producer, Settings, State
from producer.acting import Actor
from producer.ledger.cancel import cancel
from producer.ledger.engine import open_engine
from producer.ledger.resolve import resolve
from producer.ledger.retry import retry
from producer.ledger.states import LEASED, MOVES
from tests.houses import until
from worker.doubt_statements import WantedLook, take_up
from worker.statements import Wanted, claim

ADA = Actor("ada", "cli")
# A job as it is in each state; a lease, what it waits for and the looks hang on that.
PUT = text("""
UPDATE jobs SET state = :state, waiting_for = CASE WHEN :state = 'waiting' THEN 'retry' END,
  lease_owner = CASE WHEN :leased THEN 'somebody' END,
  lease_expires_at = CASE WHEN :leased THEN clock_timestamp() + interval '1 hour' END,
  effect = CASE WHEN :state IN ('queued', 'awaiting_approval') THEN NULL ELSE 'verifiable' END,
  quiet_at = clock_timestamp(), looks_left = CASE WHEN :state = 'in_doubt' THEN 5 END, cancel_requested_at = NULL
WHERE id = :id
""")
WAITS = text("SELECT count(*) FROM pg_locks WHERE NOT granted")

MOVED = [(before, after) for before, all_after in MOVES.items() for after in all_after]

Moving = Callable[[Connection, UUID], object]
MOVERS: dict[str, Moving] = {
    "cancel": lambda c, job: cancel(c, "default", job, reason=None, actor=ADA),
    "retry": lambda c, job: retry(c, "default", job, reason="why", actor=ADA),
    "resolve as happened": lambda c, job: resolve(
        c, "default", job, "happened", result='{"total": 1}', reason="why", actor=ADA
    ),
    "resolve to retry": lambda c, job: resolve(c, "default", job, "retry", result=None, reason="why", actor=ADA),
    "claim": lambda c, job: claim(c, "w", 30.0, [Wanted("test.add", 1, job)]),
    "take up": lambda c, job: take_up(c, [WantedLook("test.add", 1, job, 30.0)]),
}


@pytest.fixture
def hands(settings: Settings) -> Iterator[dict[str, Connection]]:
    """Of who has the job, of who wants to move it, and of who looks on."""
    engine = open_engine(settings.database_url, connections=3, name="tests")
    with ExitStack() as stack:
        yield {name: stack.enter_context(engine.connect()) for name in ("has", "wants", "looks")}
    engine.dispose()


def put(connection: Connection, job_id: UUID, state: State) -> None:
    connection.execute(PUT, {"id": job_id, "state": state, "leased": state in LEASED})


def waits_or_has_ended(moving: threading.Thread, looks: Connection) -> bool:
    return not moving.is_alive() or bool(looks.execute(WAITS).scalar())


@pytest.mark.parametrize("mover", MOVERS)
def test_whoever_waited_for_a_job_that_moved_meanwhile_goes_by_how_it_is_then(
    hands: dict[str, Connection], lone_producer: Producer, mover: str
) -> None:
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 1})
    wrong: dict[str, Any] = {}
    for before, after in MOVED:
        put(hands["has"], job.id, before)
        raised: list[Exception] = []

        def move(raised: list[Exception] = raised) -> None:
            try:
                MOVERS[mover](hands["wants"], job.id)
            except Exception as error:  # noqa: BLE001  told below
                raised.append(error)

        hands["has"].exec_driver_sql("BEGIN")
        put(hands["has"], job.id, after)
        moving = threading.Thread(target=move)
        moving.start()
        until(partial(waits_or_has_ended, moving, hands["looks"]))
        hands["has"].exec_driver_sql("COMMIT")
        moving.join()
        found = job.refresh().state
        if raised or not (found is after or found in MOVES[after]):
            wrong[f"{before} → {after}"] = str(raised[0])[:160] if raised else found
    assert wrong == {}
