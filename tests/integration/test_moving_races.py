"""A job that is moved while somebody else has it locked: whoever waited goes by how it is then, and is never refused.

A statement that waits for a row sees it as it is afterwards where it locks it, and as it was before where it changes
it, until the database notices. (Those that look for one state alone, as a retry does, do not wait for others.) What a
move leaves out of the columns that hang together with the state is then a
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
from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection

from producer import Producer, Settings, State
from producer.acting import Actor
from producer.ledger.cancel import cancel
from producer.ledger.engine import open_engine
from producer.ledger.resolve import resolve
from producer.ledger.retry import retry
from producer.ledger.states import LEASED, MOVES, RINGABLE
from tests.houses import until
from tests.locks import waiting_for_locks
from worker.doubt_statements import WantedLook, take_up
from worker.statements import Wanted, claim

ADA = Actor("ada", "cli")
# A job as it is in each state; a lease, what it waits for and the looks hang on that.
PUT = text("""
UPDATE jobs SET state = :state, waiting_for = CASE WHEN :state = 'waiting' THEN 'retry' END,
  lease_owner = CASE WHEN :leased THEN 'somebody' END,
  lease_expires_at = CASE WHEN :leased THEN clock_timestamp() + interval '1 hour' END,
  effect = CASE WHEN :state IN ('queued', 'awaiting_approval') THEN NULL ELSE 'verifiable' END,
  due_at = clock_timestamp(), quiet_at = clock_timestamp(), looks_left = CASE WHEN :state = 'in_doubt' THEN 5 END,
  cancel_requested_at = CASE WHEN :asked THEN cancel_requested_at END
WHERE id = :id
""")
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
    """Of who has the job, and of who wants to move it."""
    engine = open_engine(settings.database_url, connections=2, name="tests")
    with ExitStack() as stack:
        yield {name: stack.enter_context(engine.connect()) for name in ("has", "wants")}
    engine.dispose()


def put(connection: Connection, job_id: UUID, state: State, *, asked: bool = False) -> None:
    """Have a job be in a state; `asked` is whether somebody who asked to cancel it still has."""
    connection.execute(PUT, {"id": job_id, "state": state, "leased": state in LEASED, "asked": asked})


def to_be_answered(mover: str, after: State) -> object:
    """What whoever waited is told, where that tells that he went by the later state; else None."""
    if mover == "cancel":
        cancelled = State.CANCELLED in MOVES[after] and after not in LEASED
        return "cancelled" if cancelled else "requested" if after in LEASED else "too_late"
    if mover in ("claim", "take up"):
        return 1 if after in (RINGABLE if mover == "claim" else {State.IN_DOUBT}) else 0
    return None


def waits_or_has_ended(moving: threading.Thread, engine: Engine) -> bool:
    return not moving.is_alive() or waiting_for_locks(engine) > 0


@pytest.mark.parametrize("mover", MOVERS)
def test_whoever_waited_for_a_job_that_moved_meanwhile_goes_by_how_it_is_then(
    hands: dict[str, Connection], lone_producer: Producer, engine: Engine, mover: str
) -> None:
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 1})
    wrong: dict[str, Any] = {}
    for before, after in MOVED:
        put(hands["has"], job.id, before)
        answers: list[object] = []

        def move(answers: list[object] = answers) -> None:
            try:
                answer = MOVERS[mover](hands["wants"], job.id)
                answers.append(len(answer) if isinstance(answer, list) else answer)
            except Exception as error:  # noqa: BLE001  told below
                answers.append(error)

        hands["has"].exec_driver_sql("BEGIN")
        put(hands["has"], job.id, after)
        moving = threading.Thread(target=move)
        moving.start()
        until(partial(waits_or_has_ended, moving, engine))
        hands["has"].exec_driver_sql("COMMIT")
        moving.join()
        (answer,), found, awaited = answers, job.refresh().state, to_be_answered(mover, after)
        if isinstance(answer, Exception) or awaited not in (None, answer):
            wrong[f"{before} → {after}"] = str(answer)[:160]
        elif not (found is after or found in MOVES[after]):
            wrong[f"{before} → {after}"] = found
    assert wrong == {}


@pytest.mark.parametrize("back", [State.WAITING, State.QUEUED])
def test_whoever_asks_again_to_cancel_what_its_worker_gave_back_has_it_cancelled(
    hands: dict[str, Connection], lone_producer: Producer, back: State
) -> None:
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 1})
    put(hands["has"], job.id, State.RUNNING)
    assert (job.cancel(), job.cancel()) == ("requested", "requested")
    put(hands["has"], job.id, back, asked=True)
    assert (job.cancel(), job.cancel()) == ("cancelled", "cancelled")
