"""What the ledger should make of what workers write: claim, intend, settle, renew; and of relay and rescue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from producer.ledger.accept import RING_PATIENCE_SECONDS
from producer.ledger.states import RINGABLE, State
from tests.integration.ledger_model.producer import Asked
from tests.integration.ledger_model.rows import Claimed, Row
from worker.attempt import Intent, Lease, Settlement

LEASE_SECONDS = 30.0
CRASH_CAP = 2
VERSION = 1


class Model(Asked):
    """One method for each statement; it answers and moves the rows as the statement should."""

    def claim(self, worker: str, wanted: Mapping[UUID, int]) -> dict[UUID, Claimed]:
        """Take over those of the jobs, each named with a version, that are due and nobody's."""
        claimed = {}
        for row in (self.rows[job_id] for job_id in wanted if job_id in self.rows):
            due = row.due_at <= self.now or row.waiting_for in {"concurrency", "conversation"}
            if row.state in RINGABLE and due and not row.overdue_at(self.now) and wanted[row.id] == VERSION:
                claimed[row.id] = row
        if claimed:
            self.committing(waits=False)
        return {job_id: self._claim(row, worker) for job_id, row in claimed.items()}

    def intend(self, worker: str, intents: Sequence[Intent]) -> dict[UUID, str]:
        """Grant those intents whose owners still have the jobs."""
        pure = all(intent.effect == "pure" for intent in intents)
        answers = {}
        for intent in intents:
            row = self.rows.get(intent.job_id)
            if row is not None and row.owned_by(worker, intent.fence):
                answers[row.id] = self._intend(row, worker, intent, waits=not pure)
        return answers

    def settle(self, worker: str, settlements: Sequence[Settlement], *, knows: bool) -> dict[UUID, str]:
        """Write how attempts ended; `knows` says that whoever did them knows that they had no effect."""
        rows = {s.job_id: self.rows[s.job_id] for s in settlements if s.job_id in self.rows}
        return {s.job_id: self._settle(rows[s.job_id], worker, s, knows=knows) for s in settlements if s.job_id in rows}

    def renew(self, worker: str, leases: Sequence[Lease]) -> dict[Lease, bool]:
        """Prolong those of the leases that hold."""
        answers = {}
        for job_id, fence in leases:
            if (row := self.rows.get(job_id)) is None:
                continue
            answers[job_id, fence] = ours = row.owned_by(worker, fence) and row.leased_at(self.now)
            if ours:
                self.committing()
                row.lease_expires_at = self.later(LEASE_SECONDS)
        return answers

    def look(self, seconds: float) -> dict[UUID, bool]:
        """Say which jobs are to be rung, and whether nobody has promised to; look at them again in `seconds`."""
        due = [row for row in self.rows.values() if row.rings_at(self.now)]
        fresh = {row.id: row.ring_at <= row.due_at for row in due}
        for row in due:
            self.committing()
            row.ring_at = self.later(seconds)
        return fresh

    def expire(self, worker: str) -> set[UUID]:
        """End what waits past its deadline; return it."""
        late = [row for row in self.rows.values() if row.state in RINGABLE and row.overdue_at(self.now)]
        for row in late:
            self.committing()
            row.release(State.IN_DOUBT if row.maybe_happened else State.EXPIRED, self.now)
            row.ring_at = self.now
            if row.state is State.IN_DOUBT:
                row.look_up_at(self.now)
            self.note(row, row.state, worker=worker)
        return {row.id for row in late}

    def rescue(self, worker: str) -> dict[UUID, State]:
        """Take over the jobs whose leases ran out; return where they went."""
        ended = {row.id: row for row in self.rows.values() if row.lease_expires_at and row.lease_expires_at < self.now}
        for row in ended.values():
            self.committing()
            began = row.state is State.RUNNING
            doubtful = row.maybe_happened or (began and row.effect != "pure")
            row.fence += 1
            row.crashes += 1
            row.release(self._after_silence(row, doubtful=doubtful), self.now)
            row.maybe_happened = doubtful
            row.look_up_at(self.now)
            if row.state is State.WAITING:
                row.waiting_for = "worker"
            else:
                row.error = "WorkerLost"
            self.note(row, "rescued", attempt=row.attempt, fence=row.fence, worker=worker, to=row.state)
        return {row.id: row.state for row in ended.values()}

    # ---- one row of each ---------------------------------------------------------------------------------------

    def _claim(self, row: Row, worker: str) -> Claimed:
        row.state, row.waiting_for, row.fence = State.CLAIMED, None, row.fence + 1
        row.lease_owner, row.lease_expires_at = worker, self.later(LEASE_SECONDS)
        number = row.attempt + 1
        self.note(row, "claimed", attempt=number, fence=row.fence, worker=worker)
        return Claimed(
            row.id,
            row.fence,
            number,
            row.maybe_happened,
            row.cancel_requested_at is not None,
            self.left(row.deadline_at),
            self.left(row.repeatable_until),
            row.effect is not None,
        )

    def _intend(self, row: Row, worker: str, intent: Intent, *, waits: bool) -> str:
        if not row.leased_at(self.now):
            return "lost"
        if row.state is State.RUNNING:
            return "intended"
        if row.cancel_requested_at is not None:
            return "cancelled"
        if row.overdue_at(self.now):
            return "expired"
        self.committing(waits=waits)
        row.state, row.effect, row.attempt = State.RUNNING, intent.effect, row.attempt + 1
        if row.repeatable_until is None and intent.repeat_seconds is not None:
            row.repeatable_until = self.later(intent.repeat_seconds)
        seconds = intent.quiet_seconds
        row.quiet_at = None if seconds is None else max(row.quiet_at or self.now, self.later(seconds))
        row.lease_expires_at = self.later(LEASE_SECONDS)
        row.touched_before = row.touched
        row.touched = row.touched or intent.effect != "pure"
        self.note(row, "intended", attempt=row.attempt, fence=row.fence, worker=worker)
        return "intended"

    def _settle(self, row: Row, worker: str, s: Settlement, *, knows: bool) -> str:
        if not row.owned_by(worker, s.fence) or row.state is not s.was:
            own = {event.kind for event in row.events if (event.fence, event.worker) == (s.fence, worker)}
            released = row.fence == s.fence and row.lease_owner is None
            if s.kind in own or (released and "claimed" in own):
                return "repeated"
            if "late_result" not in own:
                self.committing()
                self.note(row, "late_result", attempt=s.attempt, fence=s.fence, worker=worker)
            return "late"
        self.committing()
        row.touched = row.touched_before if knows and s.was is State.RUNNING else row.touched
        row.release(s.becomes, self.now)
        row.waiting_for, row.maybe_happened, row.attempt = s.waiting_for, s.maybe_happened, row.attempt - s.unspent
        if s.delay is None:
            row.looks_left = None
        else:
            at_once = row.cancel_requested_at is not None
            row.due_at = self.later(0 if at_once else s.delay)
            row.ring_at = self.later(0 if at_once else s.delay + (RING_PATIENCE_SECONDS if s.rings else 0))
        row.result = s.result if s.becomes in {State.SUCCEEDED, State.DEGRADED} else None
        row.repairs += s.repair is not None
        if s.becomes is State.DEGRADED:
            row.degraded_by = s.why
        row.error = None if s.error is None else s.error["type"]
        if s.tokens_in is not None:
            row.tokens_in = (row.tokens_in or 0) + s.tokens_in
        self.note(row, s.kind, attempt=s.attempt, fence=s.fence, worker=worker)
        return "settled"

    def _after_silence(self, row: Row, *, doubtful: bool) -> State:
        began = row.state is State.RUNNING
        if began and row.repeatable_until is not None and row.repeatable_until <= self.now:
            return State.IN_DOUBT
        if row.crashes >= CRASH_CAP:
            return State.IN_DOUBT if doubtful else State.DEAD
        return State.WAITING
