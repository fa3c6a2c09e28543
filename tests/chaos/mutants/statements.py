"""Defects in the statements by which workers move jobs."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import text

import worker.leases
import worker.parts
import worker.relay
import worker.rescue
import worker.schedule
import worker.writer
from producer.ledger.states import State, may_become
from tests.chaos.agent import Agent
from tests.chaos.mutants.patching import part, put, replaced, rewrite
from worker.statements import CLAIM, INTEND, RENEW, SETTLE
from worker.turns import TAKE_TURNS

# As it is prepared, and as it is not.
LEASE = r"lease_expires_at = clock_timestamp\(\) \+ make_interval\(secs => (\$\d+|CAST\(\S+ AS double precision\))\)"
SILENT = text("SELECT id, state, lease_owner FROM jobs WHERE lease_expires_at < clock_timestamp()")
TAKE_OVER = text("""
WITH moved AS (
  UPDATE jobs SET state = 'waiting', waiting_for = 'worker', fence = fence + 1, crashes = crashes + 1,
    maybe_happened = true, lease_owner = NULL, lease_expires_at = NULL, finished_at = NULL,
    due_at = clock_timestamp(), ring_at = clock_timestamp(), last_seq = last_seq + 1
  WHERE id = :id RETURNING *
)
INSERT INTO events (job_id, seq, kind, attempt, fence, worker, data)
SELECT id, last_seq, 'rescued', attempt, fence, :worker, json_build_object(
  'from', CAST(:was AS text), 'to', state, 'silent', CAST(:silent AS text), 'crashes', crashes) FROM moved
""")


def settle_unfenced(_: Agent) -> None:
    """Whoever brings an outcome has it written, also one whose job is another's by now."""
    rewrite(SETTLE, r"coalesce\(j\.fence = a\.fence AND .+?, false\) AS mine", "true AS mine")


def outcome_unrecorded(_: Agent) -> None:
    """An outcome changes the job's row, and is no event of it."""
    rewrite(SETTLE, r"data FROM moved", "data FROM moved WHERE false")


def result_lost(_: Agent) -> None:
    """An outcome is written, but for what the action returned."""
    rewrite(SETTLE, r"FROM moved m WHERE d\.job_id = m\.id", "FROM moved m WHERE d.job_id = m.id AND false")


def late_result_written(_: Agent) -> None:
    """Whoever brings an outcome too late has its result written all the same."""
    rewrite(SETTLE, r"FROM moved m WHERE d\.job_id = m\.id", "FROM locked m WHERE d.job_id = m.id")


def rescue_requeues(_: Agent) -> None:
    """What its worker died of is tried again, whatever its effect class."""
    _rescue({"beyond_repeat OR (capped AND doubtful)": "false", "s.doubtful": "false"})


def doubt_hidden(_: Agent) -> None:
    """What its worker died of is given up for dead, although its effect may have happened."""
    _rescue({f"THEN '{State.IN_DOUBT}'": f"THEN '{State.DEAD}'"})


def rescue_is_late(_: Agent) -> None:
    """A rescue waits for longer after the end of a lease than anybody was promised."""
    _rescue({"lease_expires_at < clock_timestamp()": "lease_expires_at < clock_timestamp() - interval '12 s'"})


def rescue_of_the_living(_: Agent) -> None:
    """What somebody has is taken over, whether or not its lease has run out."""
    _rescue({"lease_expires_at < clock_timestamp()": "true"})


def crash_uncapped(_: Agent) -> None:
    """A job is tried again, however many workers it took down."""
    _rescue({"crashes + 1 >= :cap": "false AND :cap > 0"})


def rescue_by_id(agent: Agent) -> None:
    """Whose lease has run out is read first, and then taken over by its id, whatever has become of it meanwhile."""

    def rescue(connection: Any, *, worker: str, **_: Any) -> int:
        silent = connection.execute(SILENT).all()
        if silent:
            agent.park("rescue.before")
        for row in silent:
            facts = {"id": row.id, "was": row.state, "silent": row.lease_owner, "worker": worker}
            connection.execute(TAKE_OVER, facts)
        return len(silent)

    put(worker.parts, "rescue", rescue)


def lease_by_worker_clock(_: Agent) -> None:
    """When a lease ends is reckoned by whoever takes it, on its own clock."""
    for statement in (CLAIM, INTEND, RENEW):
        rewrite(statement, LEASE, r"lease_expires_at = to_timestamp(\1)")
    for module, name in ((worker.writer, "claim"), (worker.writer, "intend"), (worker.leases, "renew")):
        write = part(module, name)

        def by_own_clock(connection: Any, owner: str, lease: float, rows: Any, write: Any = write) -> Any:
            return write(connection, owner, time.time() + lease, rows)

        put(module, name, by_own_clock)


def deadline_ignored(_: Agent) -> None:
    """A job is performed whenever its turn comes."""
    rewrite(CLAIM, r"AND \(deadline_at IS NULL OR deadline_at > clock_timestamp\(\)\)", "")
    rewrite(CLAIM, r"extract\(epoch FROM c\.deadline_at - clock_timestamp\(\)\)", "CAST(NULL AS float8)")
    rewrite(INTEND, r"AND NOT m\.overdue", "")
    put(worker.relay, "EXPIRE", text(replaced(worker.relay.EXPIRE.text, "deadline_at <= clock_timestamp()", "false")))


def cancelled_goes_on(_: Agent) -> None:
    """A job that was cancelled while it waited is performed when its retry is due."""
    states = may_become(State.CLAIMED)
    rewrite(CLAIM, rf"state IN \({states}\)", f"state IN ({states}, '{State.CANCELLED}')")
    rewrite(CLAIM, r"c\.cancel_requested_at IS NOT NULL", "false")
    rewrite(CLAIM, rf"SET state = '{State.CLAIMED}',", f"SET state = '{State.CLAIMED}', finished_at = NULL,")
    rewrite(INTEND, r"AND NOT m\.cancelled", "")


def turns_interleave(_: Agent) -> None:
    """Whoever asks for the turn of a conversation has it."""
    rewrite(TAKE_TURNS, r"coalesce\(g\.holder, g\.first\) = g\.id", "true")
    rewrite(TAKE_TURNS, r"coalesce\(holder, first\)", "id")


def tick_without_key(_: Agent) -> None:
    """A tick's job has a key of its own each time, and nobody keeps others from making it, too."""
    made, request_of = itertools.count(), part(worker.schedule, "request_of")

    def unkeyed(*args: Any) -> Any:
        request = request_of(*args)
        return replace(request, idempotency_key=f"{request.idempotency_key}/{os.getpid()}/{next(made)}")

    put(worker.schedule, "request_of", unkeyed)
    put(worker.schedule, "DUE", text(replaced(part(worker.schedule, "DUE").text, "FOR UPDATE SKIP LOCKED", "")))


def _rescue(changes: Mapping[str, str]) -> None:
    changed = worker.rescue.RESCUE.text
    for right, wrong in changes.items():
        changed = replaced(changed, right, wrong)
    worker.rescue.RESCUE = text(changed)


DEFECTS: dict[str, Callable[[Agent], None]] = {
    each.__name__: each
    for each in (
        settle_unfenced,
        outcome_unrecorded,
        result_lost,
        late_result_written,
        rescue_requeues,
        doubt_hidden,
        rescue_is_late,
        rescue_of_the_living,
        crash_uncapped,
        rescue_by_id,
        lease_by_worker_clock,
        deadline_ignored,
        cancelled_goes_on,
        turns_interleave,
        tick_without_key,
    )
}
