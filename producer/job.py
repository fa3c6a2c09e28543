"""A handle to one job: what was answered when it was asked for, and what has become of it since."""

from __future__ import annotations

import math
import time
from typing import Any, Protocol
from uuid import UUID

from producer.errors import JobDegraded, JobFailed, JobNotFound, JobUnfinished, LedgerUnavailable
from producer.ledger.accept import Outcome
from producer.ledger.cancel import Cancelled
from producer.ledger.reads import Event, JobRecord
from producer.ledger.resolve import Verdict
from producer.ledger.states import AT_REST, State

# Whoever waits for a job outwaits a Postgres that restarts.
AWAY_SECONDS, AWAY_PAUSE_SECONDS = 30.0, 0.25
JUST_ASKED_SECONDS = 0.1


class Waits(Protocol):
    """How a handle waits for its job."""

    def wait(self, job_id: UUID, *, until: float) -> None:
        """Return when there may be news of the job, and at the latest at `until` on the monotonic clock."""


class Source(Protocol):
    """Where a handle's job is: the ledger, or the API before it. What each does is said in `producer.jobs`."""

    @property
    def waiting(self) -> Waits:
        """Waits for jobs."""

    def read(self, job_id: UUID) -> JobRecord | None: ...

    def events(self, job_id: UUID) -> list[Event]: ...

    def cancel(self, job_id: UUID, *, reason: str | None) -> Cancelled: ...

    def retry(self, job_id: UUID, *, reason: str, who: str | None) -> Job: ...

    def resolve(self, job_id: UUID, verdict: Verdict, *, reason: str, result: Any, who: str | None) -> Job: ...


class Job:
    """One job, as last read. Attributes do not change until `refresh` or `wait`.

    Attributes:
        id: Also Celery's task id.
        outcome: How the request that returned this handle was answered: ``created`` | ``replayed`` | ``conflict``;
            None where the handle came from a look-up.
        conflict_paths: Where a conflicting request differs.
    """

    def __init__(
        self,
        jobs: Source,
        job_id: UUID,
        *,
        record: JobRecord | None = None,
        outcome: Outcome | None = None,
        conflict_paths: tuple[str, ...] = (),
    ) -> None:
        """Handles come from a Producer."""
        self._jobs, self._record = jobs, record
        self.id, self.outcome, self.conflict_paths = job_id, outcome, conflict_paths
        self._made_at = time.monotonic() if outcome == "created" else -math.inf

    def __repr__(self) -> str:
        return f"<Job {self.id} {self._record.state if self._record else self.outcome}>"

    def refresh(self) -> Job:
        """Read the job anew.

        Raises:
            JobNotFound: If it is not there: its transaction has not committed, or never will.
        """
        record = self._jobs.read(self.id)
        if record is None:
            raise JobNotFound(f"job {self.id} is not in the ledger; if you passed a connection, commit it first")
        self._record = record
        return self

    @property
    def record(self) -> JobRecord:
        """Everything the ledger says of the job and its decision."""
        if self._record is None:
            self.refresh()
        assert self._record is not None  # noqa: S101  for the type checker; refresh set it or raised
        return self._record

    @property
    def state(self) -> State:
        """Where the job stood when it was last read."""
        return self.record.state

    @property
    def result(self) -> Any:
        """The recorded result; None where there is none, as where a fallback stands in. `get` tells them apart."""
        return self.record.result

    @property
    def error(self) -> dict[str, Any] | None:
        """The last failed attempt's ``{"type", "message", "traceback"}``; None where none failed."""
        return self.record.error

    @property
    def idempotency_key(self) -> str:
        """The key that stands for the job."""
        return self.record.idempotency_key

    @property
    def key_derived(self) -> bool:
        """Whether the key was made from the request because none was given."""
        return self.record.key_derived

    @property
    def events(self) -> list[Event]:
        """The job's history, read now."""
        return self._jobs.events(self.id)

    def wait(self, timeout: float | None = None) -> Job:
        """Wait until the job has ended, well or not, or is in doubt and only a person moves it; and read it.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            JobUnfinished: If it has not ended by then. It goes on.
            JobNotFound: If it is not in the ledger.
            LedgerUnavailable: If Postgres stays away for half a minute, or until then. The job goes on.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        away_since: float | None = None
        # It cannot have ended yet, or only just: it is looked at once it is listened for, and reading it before would
        # only hold up its own ring.
        just_asked = self._record is None and time.monotonic() < self._made_at + JUST_ASKED_SECONDS
        while True:
            try:
                if not just_asked and self.refresh().record.is_at_rest:
                    return self
                away_since = None
                if not just_asked and time.monotonic() >= until:
                    raise JobUnfinished(f"job {self.id} is {self.state} after {timeout} s; it goes on")
                just_asked = False
                self._jobs.waiting.wait(self.id, until=until)
            except LedgerUnavailable:
                now = time.monotonic()
                away_since = now if away_since is None else away_since
                if now + AWAY_PAUSE_SECONDS > min(until, away_since + AWAY_SECONDS):
                    raise
                time.sleep(AWAY_PAUSE_SECONDS)

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the job and return its result.

        Raises:
            JobDegraded: If its action's fallback stands in for one; the error has it.
            JobFailed: If it ended without either.
            JobUnfinished: If it has not ended within `timeout` seconds.
        """
        self.wait(timeout)
        if self.state is State.DEGRADED:
            raise JobDegraded(self.id, self.record.degraded_by or "", self.record.fallback, self.error)
        if self.state is not State.SUCCEEDED:
            raise JobFailed(self.id, self.state, self.error)
        return self.result

    def cancel(self, reason: str | None = None) -> Cancelled:
        """Cancel the job, or ask its worker to; see `producer.ledger.cancel.cancel` for the answers."""
        answer = self._jobs.cancel(self.id, reason=reason)
        self.refresh()
        return answer

    def retry(self, *, reason: str, who: str | None = None) -> Job:
        """Give the job, which is dead, one more attempt; see `Jobs.retry`."""
        self._record = self._jobs.retry(self.id, reason=reason, who=who).record
        return self

    def resolve(self, verdict: Verdict, *, reason: str, result: Any = None, who: str | None = None) -> Job:
        """Say what became of the job, which is in doubt; see `Jobs.resolve`."""
        self._record = self._jobs.resolve(self.id, verdict, reason=reason, result=result, who=who).record
        return self


def is_over(state: State | None) -> bool:
    """Whether whoever waits for a job in this state should read it now; None is a job that is not there."""
    return state is None or state in AT_REST


def as_job_id(job_id: UUID | str) -> UUID:
    """Return a job's id.

    Raises:
        JobNotFound: If that is none.
    """
    try:
        return job_id if isinstance(job_id, UUID) else UUID(job_id)
    except (ValueError, TypeError, AttributeError) as error:
        raise JobNotFound(f"{job_id!r} is not a job's id, which is a UUID") from error
