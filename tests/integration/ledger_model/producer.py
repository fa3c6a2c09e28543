"""What the ledger should make of what is asked of it: accept, replays, cancel, resolve."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from producer.envelope import Envelope
from producer.ledger.accept import RING_PATIENCE_SECONDS, Answer
from producer.ledger.states import CLOSED, LEASED, MOVES, WITHOUT_RESULT, State
from tests.integration.ledger_model.rows import Row, Rows

REPLAYS_NOTED = 10


class Asked(Rows):
    """One method for each statement; it answers and moves the rows as the statement should."""

    def accept(self, asked: Sequence[Envelope], *, rings: bool) -> list[Answer]:
        """Answer each request by what stood before its round; one that loses its key within a round asks again."""
        answers: dict[int, Answer] = {}
        while len(answers) < len(asked):
            standing = {i: copy.copy(self._standing_for(e)) for i, e in enumerate(asked) if i not in answers}
            for i, row in sorted(standing.items(), key=lambda item: (asked[item[0]].idempotency_key, item[0])):
                if row is not None and not _runs_anew(asked[i], row):
                    answers[i] = _as_it_stands(asked[i], row)
                elif self._standing_for(asked[i]) == row:
                    answers[i] = self._create(asked[i], 0 if row is None else row.rerun + 1, rings=rings)
        return [answers[i] for i in range(len(asked))]

    def note_replay(self, job_id: UUID) -> None:
        """Count that a job was asked for again."""
        row = self.rows.get(job_id)
        if row is not None:
            self.committing()
            row.replays += 1
            if row.replays <= REPLAYS_NOTED:
                self.note(row, "replayed")

    def cancel(self, job_id: UUID) -> str:
        """Cancel what nobody owns; else ask its owner."""
        row = self.rows.get(job_id)
        if row is None:
            return "too_late"
        can_be = State.CANCELLED in MOVES[row.state] or row.state is State.RUNNING
        if not can_be and row.cancel_requested_at is None:
            return "too_late"
        if can_be and (row.cancel_requested_at is None or row.state not in LEASED):
            self.committing()
            row.cancel_requested_at = row.cancel_requested_at or self.now
            if row.state in LEASED:
                self.note(row, "cancel_requested")
            else:
                row.release(State.IN_DOUBT if row.maybe_happened else State.CANCELLED, self.now)
                if row.state is State.IN_DOUBT:
                    row.look_up_at(self.now)
                self.note(row, row.state)
        answers = {State.CANCELLED: "cancelled", State.IN_DOUBT: "in_doubt", **dict.fromkeys(LEASED, "requested")}
        return answers.get(row.state, "too_late")

    def resolve(self, job_id: UUID, verdict: str, result: Any) -> bool:
        """Say what became of a job in doubt; return whether it was."""
        row = self.rows.get(job_id)
        if row is None or row.state is not State.IN_DOUBT:
            return False
        self.committing()
        becomes = {"happened": State.SUCCEEDED, "retry": State.WAITING, "abandon": State.DEAD}[verdict]
        row.release(becomes, self.now)
        row.fence += 1
        row.absent_at = None
        row.result = result
        if verdict == "happened":
            row.error = None
        if verdict == "retry":
            row.waiting_for = "retry"
            row.look_up_at(self.now)
            row.maybe_happened, row.touched, row.crashes = False, False, 0
            row.effect = row.repeatable_until = row.quiet_at = row.cancel_requested_at = None
        self.note(row, "resolved", fence=row.fence, to=becomes)
        return True

    def _standing_for(self, envelope: Envelope) -> Row | None:
        """Return the job that a request is answered by: its own if it has one, else the latest under its key."""
        if envelope.id in self.rows:
            return self.rows[envelope.id]
        rows = [row for row in self.rows.values() if row.key == envelope.idempotency_key]
        return max(rows, key=lambda row: row.rerun, default=None)

    def _create(self, envelope: Envelope, rerun: int, *, rings: bool) -> Answer:
        self.committing()
        due_at = envelope.run_at or self.now
        due = due_at <= self.now
        row = self.rows[envelope.id] = Row(
            id=envelope.id,
            key=envelope.idempotency_key,
            rerun=rerun,
            fingerprint=envelope.fingerprint,
            accepted_at=self.now,
            due_at=due_at,
            ring_at=self.later(RING_PATIENCE_SECONDS) - (self.now - due_at) if due and rings else due_at,
            deadline_at=envelope.deadline,
        )
        self.note(row, "accepted")
        return Answer("created", row.id, State.QUEUED, self.now, due=due, wrote=True)


def _runs_anew(envelope: Envelope, row: Row) -> bool:
    runs = {"replay": frozenset[State](), "rerun_if_failed": WITHOUT_RESULT, "rerun": CLOSED}[envelope.on_closed]
    return row.fingerprint == envelope.fingerprint and row.id != envelope.id and row.state in runs


def _as_it_stands(envelope: Envelope, row: Row) -> Answer:
    if row.id == envelope.id:
        due = envelope.run_at is None or envelope.run_at <= row.accepted_at
        return Answer("created", row.id, row.state, row.accepted_at, due=due)
    if row.fingerprint == envelope.fingerprint:
        return Answer("replayed", row.id, row.state, row.accepted_at, due=False)
    return Answer("conflict", row.id, row.state, row.accepted_at, due=False, paths=("params.x",))
