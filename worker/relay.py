"""The relay: rings every due job that nobody rang, in every worker, without a leader.

An accepted job is safe once it is in the ledger; this is what makes it happen all the same when the producer died
before ringing, when Redis lost the ring, or when the worker that would have rung a retry is gone. It also expires
jobs whose deadline has passed, and those for which people were asked in vain (worker/approval_sweep.py), makes the jobs
of schedules that are due (worker/schedule.py), and does beside that what its worker has for it to do (worker/duty.py).

Whether a ring got lost shows where its queue is empty, and where jobs are served that became due later
(worker/served.py). It may have been taken by a worker that does not know the job's version, as while a deploy is under
way; the next one might be, too. So a worker that knows it performs a few of these itself, and the others leave them to
such a one: they do not even look, unless nobody else has for a while.
"""

from __future__ import annotations

import select
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection

from producer.ledger.accept import RING_PATIENCE_SECONDS
from producer.ledger.conversations import put_off_turns, wake_turns
from producer.ledger.engine import WAKE_CHANNEL
from producer.ledger.states import RINGABLE, State, in_sql, looks_left
from producer.ring import Bell, Ring, ahead
from worker.duty import Duty
from worker.log import log
from worker.meter import meter
from worker.served import Served

BATCH = 500
# A ring that waits behind others is not lost. Where nothing tells that it does not, it is repeated after this long.
CROWDED_SECONDS = 900.0
LONGEST_LOOK_SECONDS = 60.0
# What was rung in vain, or this worker does not know, is looked at again after so long, and then ever later.
SOON_SECONDS, SOON_SHARE = 1.0, 1 / 8
# What this worker does not know those who do have looked at by then, by several looks of each.
THEIRS_LOOKS = 3
# So few rings are soon served: a job's own is among them, or will be known to be lost. But a ring may be for a hundred
# jobs, and where more than so few of a queue are late at one look, workers do not keep up with it.
SHALLOW, FEW = 100, 50
# Whether the ring for what a dead worker left got lost is asked so much sooner, once a worker has had its time to come.
LEFT_SHARE = 1 / 4
# A ring may get lost. What was rung again and is due for so long was taken by somebody who does not know it.
VAIN_SECONDS = 8.0
# How many of those a worker takes at a look: where all rings got lost, others have places for them, too.
HERE = 20
AWAY_LOOK_SECONDS = 1.0
AWAY_PAUSE_SECONDS = 1.0

# Due for a worker, or in doubt while there is somebody to ask.
TO_RING = f"(state IN ({in_sql(RINGABLE)}) OR looks_left > 0)"

# What this worker may look at: what nobody has promised to ring, what it knows, and what those who know it have left.
OURS = """(
  ring_at <= due_at OR ring_at <= clock_timestamp() - make_interval(secs => :theirs)
  OR (action, action_version) IN (SELECT * FROM unnest(CAST(:actions AS text[]), CAST(:versions AS int[])))
)"""

# ring_at is when to look at a job next. At or before due_at: nobody has promised to ring it. After that somebody did.
DUE = text(f"""
SELECT j.id, j.action, j.action_version, j.queue, j.priority, j.traceparent, d.request_id,
  j.ring_at <= j.due_at AS fresh,
  j.ring_at, j.waiting_for, j.crashes, coalesce(CAST(a.policy ->> 'ring_size' AS int), 1) AS together,
  extract(epoch FROM clock_timestamp() - j.due_at) AS late
FROM (
  (SELECT * FROM jobs
   WHERE state IN ({in_sql(RINGABLE)}) AND ring_at <= clock_timestamp() AND {OURS} ORDER BY ring_at LIMIT :batch)
  UNION ALL
  (SELECT * FROM jobs WHERE looks_left > 0 AND ring_at <= clock_timestamp() AND {OURS} ORDER BY ring_at LIMIT :batch)
) j JOIN decisions d ON d.job_id = j.id LEFT JOIN actions a ON a.name = d.action
""")

# Of several relays that saw the same jobs one gets each: the others find ring_at moved, or the row locked.
LOOKED_AT = text(f"""
WITH seen AS (
  SELECT j.id, s.seconds FROM unnest(CAST(:ids AS uuid[]), CAST(:seconds AS double precision[])) AS s(id, seconds)
  JOIN jobs j ON j.id = s.id
  WHERE {TO_RING} AND j.ring_at <= clock_timestamp()
  ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
)
UPDATE jobs j SET ring_at = clock_timestamp() + make_interval(secs => seen.seconds)
FROM seen WHERE j.id = seen.id
RETURNING j.id
""")

SOON = text(f"""
UPDATE jobs SET ring_at = least(ring_at, clock_timestamp() + make_interval(secs => :patience))
WHERE id = ANY(:ids) AND {TO_RING}
""")

EXPIRE = text(f"""
WITH due AS (
  SELECT id, CASE WHEN maybe_happened THEN '{State.IN_DOUBT}' ELSE '{State.EXPIRED}' END AS becomes FROM jobs
  WHERE state IN ({in_sql(RINGABLE)}) AND deadline_at IS NOT NULL AND deadline_at <= clock_timestamp()
  ORDER BY deadline_at LIMIT :batch FOR UPDATE SKIP LOCKED
), expired AS (
  UPDATE jobs j SET state = d.becomes, waiting_for = NULL, waiting_on = NULL,
    looks_left = {looks_left("d.becomes")},
    due_at = CASE WHEN d.becomes = '{State.IN_DOUBT}' THEN statement_timestamp() ELSE j.due_at END,
    ring_at = statement_timestamp(), last_seq = last_seq + 1,
    finished_at = CASE WHEN d.becomes = '{State.EXPIRED}' THEN clock_timestamp() END
  FROM due d WHERE j.id = d.id
  RETURNING j.id, j.last_seq, j.state, j.deadline_at
)
INSERT INTO events (job_id, seq, kind, worker, data)
SELECT id, last_seq, state, :worker, json_build_object('why', 'deadline passed', 'deadline', deadline_at) FROM expired
RETURNING job_id
""")


class Relay:
    """One thread of a worker's main process. It wakes once a second, and at once when the database says so."""

    def __init__(
        self,
        engine: Engine,
        bell: Bell,
        *,
        worker: str,
        every_seconds: float,
        rescue: Callable[[Connection], int],
        approvals: Callable[[Connection], int] = lambda _connection: 0,
        tick: Callable[[Connection], float],
        announce: Callable[[list[UUID]], None],
        first: Sequence[Duty] = (),
        last: Sequence[Duty] = (),
        known: Callable[[], Mapping[str, int]],
        served: Served | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            engine: One connection of it is held for good, to be woken over.
            bell: Rings what is due.
            worker: Named in the events.
            every_seconds: The longest time between two looks.
            rescue: Takes over expired leases; returns how many jobs it moved.
            approvals: Expires and escalates what waits for people; returns how much it moved.
            tick: Makes the jobs of schedules that are due; returns the seconds until there is more of that to do.
            announce: Told which jobs have expired.
            first: What may let go jobs, which are then rung.
            last: What nothing waits for.
            known: The actions that this worker can perform, with their versions.
            served: How far this worker has served its queues; None is not at all.
        """
        self._engine, self._bell, self._worker = engine, bell, worker
        self._every, self._rescue, self._tick = every_seconds, rescue, tick
        self._approvals, self._announce = approvals, announce
        self._first, self._last, self._known = first, last, known
        self._served = served or Served()
        self._serve: Callable[[Sequence[Ring]], object] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def serve_here(self, serve: Callable[[Sequence[Ring]], object]) -> None:
        """Have some of the jobs that were rung in vain performed by this process; `serve` must not block."""
        self._serve = serve

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop within one look; safe to call twice, and before `start`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._every + AWAY_PAUSE_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._engine.connect() as connection:
                    self._look_until_lost(connection)
            except Exception as error:  # noqa: BLE001  a relay that died of anything would be missed by nobody
                # Not SQLAlchemy's errors alone: the driver's own come up while it listens.
                log.warning("relay.ledger_unreachable", error=str(error), pause_seconds=AWAY_PAUSE_SECONDS)
                self._stopping.wait(AWAY_PAUSE_SECONDS)

    def _look_until_lost(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"LISTEN {WAKE_CHANNEL}")
        while not self._stopping.is_set():
            _wait_for_wake(connection, self._look(connection))

    def _look(self, connection: Connection) -> float:
        """Do one round of each duty, in bounded batches; return the seconds until the next, 0 where one has more."""
        expired = list(connection.execute(EXPIRE, {"batch": BATCH, "worker": self._worker}).scalars())
        self._announce(expired)
        wake_turns(connection, expired)
        rescued = self._rescue(connection)
        asked = self._approvals(connection)
        until_tick = self._tick(connection)  # before the ringing, which includes its jobs
        more = [duty.look(connection) for duty in self._first]  # as above: of those that they let go
        moved = max(len(expired), rescued, asked, self._ring_due(connection))
        for duty in self._last:
            duty.look(connection)
        return 0.0 if moved >= BATCH or any(more) else min(self._every, until_tick)

    def _ring_due(self, connection: Connection) -> int:
        known = self._known()
        asked = {"actions": list(known), "versions": list(known.values()), "theirs": self._every * THEIRS_LOOKS}
        found = connection.execute(DUE, {"batch": BATCH, **asked}).all()
        put_off = put_off_turns(
            connection, [(row.id, row.ring_at) for row in found if row.waiting_for == "conversation"]
        )
        due = [row for row in found if row.id not in put_off]
        if not due:
            return len(found)
        depths = self._depths(sorted({row.queue for row in due if not row.fresh}))
        empty = {queue for queue, depth in (depths or {}).items() if depth == 0}
        silent = {row.id for row in due if row.fresh or row.queue in empty or self._is_overdue(row)}
        strange = {
            row.id for row in due if row.id in silent and not row.fresh and known.get(row.action) != row.action_version
        }
        late = {row.id for row in due if not row.fresh and float(row.late) > VAIN_SECONDS}
        vain, to_come = late & silent, late - silent
        if depths is None:  # the broker is away: what was meant to be rung meanwhile was not
            seconds = [AWAY_LOOK_SECONDS] * len(due)
        else:
            # One that performs it itself need not come again; who can only ring has others come.
            soon = strange | (vain if self._serve is None else set())
            waits = [row for row in due if row.id in to_come and depths[row.queue] <= SHALLOW]
            crowds = Counter(row.queue for row in waits)
            soon |= {row.id for row in waits if crowds[row.queue] <= FEW}
            seconds = [
                _soon_again(float(row.late)) if row.id in soon else _next_look(row, rings=row.id in silent)
                for row in due
            ]
        ids = [row.id for row in due]
        ours = set(connection.execute(LOOKED_AT, {"ids": ids, "seconds": seconds}).scalars()) - strange
        mine = [row for row in due if row.id in silent and row.id in ours]
        rings = self._keep_some([_ring(row) for row in mine if row.id in vain])
        rings += [_ring(row) for row in mine if row.id not in vain]
        if rings:
            unrung = [ring.job_id for ring in self._bell.ring_now(rings)]
            meter().rang(len(rings) - len(unrung))
            log.info("relay.rang", jobs=len(rings) - len(unrung), of=len(rings))
            connection.execute(SOON, {"ids": unrung, "patience": RING_PATIENCE_SECONDS})
        return len(found)

    def _is_overdue(self, row: Any) -> bool:
        """Whether the ring of a job is no longer among those that wait in its queue, as far as can be told."""
        late = float(row.late)
        return self._served.is_past(row.queue, row.priority, late) or _overlong(row)

    def _keep_some(self, rings: list[Ring]) -> list[Ring]:
        """Have this process perform some of the jobs that were rung in vain; return the others."""
        if self._serve is None or not rings:
            return rings
        self._serve(rings[:HERE])
        log.info("relay.kept", jobs=len(rings[:HERE]), of=len(rings))
        return rings[HERE:]

    def _depths(self, queues: list[str]) -> dict[str, int] | None:
        """Return how many rings wait in each queue; None where the broker cannot say.

        Where nothing waits, what should have been rung there by now got lost.
        """
        try:
            return {queue: self._bell.depth(queue) for queue in queues}
        except Exception as error:  # noqa: BLE001  a broker that is away: the next look asks again
            log.warning("relay.broker_unreachable", error=str(error))
            return None


def _wait_for_wake(connection: Connection, seconds: float) -> None:
    raw: Any = connection.connection.dbapi_connection
    poller = select.poll()  # select() knows only the first 1,024 files of a process
    poller.register(raw.fileno(), select.POLLIN)
    # One may have come with the answer to a look, which may have been too early for what it tells of.
    if not raw.notifies and poller.poll(seconds * 1000):
        raw.poll()  # raises if the connection is gone
    raw.notifies.clear()


def _soon_again(late: float) -> float:
    """Return the seconds until another worker should look: soon, for it may know the job, and perform it itself."""
    return min(LONGEST_LOOK_SECONDS, max(SOON_SECONDS, late * SOON_SHARE))


def _next_look(row: Any, *, rings: bool) -> float:
    """Return the seconds until a job is looked at again: it backs off, so that a backlog is not gone over and over.

    What a dead worker left is no backlog, and has waited for a lease already. But what is rung for now may be a
    worker's that has taken the ring, and has not come to it yet: an empty queue would have it look lost.

    Args:
        row: The job.
        rings: Whether it is rung for at this look.
    """
    seconds = min(LONGEST_LOOK_SECONDS, max(RING_PATIENCE_SECONDS, float(row.late)))
    if not _is_left(row):
        return seconds
    return max(RING_PATIENCE_SECONDS if rings else 0.0, seconds * LEFT_SHARE)


def _overlong(row: Any) -> bool:
    """Whether a job in a queue that never empties is rung again at this look: about once in a quarter of an hour."""
    late = float(row.late)
    return late > CROWDED_SECONDS and late % CROWDED_SECONDS < _next_look(row, rings=False)


def _is_left(row: Any) -> bool:
    """Whether a dead worker left it; once, or who takes down workers would get at the next as soon as there is one."""
    return bool(row.waiting_for == "worker" and row.crashes == 1)


def _ring(row: Any) -> Ring:
    priority = ahead(row.priority) if _is_left(row) or row.waiting_for == "conversation" else row.priority
    return Ring(row.id, row.action, row.queue, priority, row.traceparent, row.request_id, row.together)
