"""What Surefoot raises, on every side, in one tree.

SurefootError
├── SettingsError            a setting is missing or wrong; the process should not start
├── RequestRefused           a request was refused before anything was written
│   ├── InvalidRequest       its params, key or another field cannot be accepted: says where and why
│   │   ├── InvalidSchedule  a schedule never fires, or its cron, zone, name or another field cannot be accepted
│   │   └── InvalidBudget    a budget cannot be kept: a ceiling, its name or another field cannot be accepted
│   ├── UnknownAction        no worker has published that action
│   ├── IdempotencyConflict  its key already stands for another request
│   ├── KeyInFlight          its key is being accepted by a transaction that does not end
│   └── ScheduleExists       a schedule of that name is there already, and says something else
├── LedgerUnavailable        Postgres cannot be reached; whether an accept landed is answered by asking again
│   ├── SchemaBehind         … or holds an older schema than this version's, or none: it has to be migrated
│   └── ApiUnavailable       … or the HTTP API before it
├── AccessRefused            a key is not valid, or may not do that
├── JobNotFound              no job with that id or key for this tenant
├── ConversationNotFound     no conversation of that id for this tenant, or nobody had a turn of it yet
├── JobNotInDoubt            the job stands otherwise, so there is nothing to resolve
├── JobNotDead               the job stands otherwise, so there is nothing to retry
├── JobNotUndoable           the job brought nothing that could be undone, or its action declares no way to
├── ApprovalNotFound         no approval of that id for this tenant
├── ApprovalClosed           an approval is decided, or its time is over: says how, and who did
├── ApprovalMismatch         the digest is another request's, or the stored request is not what it was
├── ApproverRefused          this person may not decide that, or has decided it otherwise before
├── TokenRefused             a link's token is not genuine, used up, or its time is over
├── ScheduleNotFound         no schedule of that name for this tenant
├── BudgetNotFound           no budget of that name
├── PolicyNotFound           no policy of that name is published
├── BreakerNotFound          nothing is known of a breaker of that name
├── BreakersUnavailable      Redis cannot be reached, or the broker is none, so that nobody speaks for the fleet
├── KeyNotFound              no key of that id for this tenant that could be revoked
├── JobUnfinished            the job did not end within the time that the caller would wait
└── JobFailed                the job ended without a result
    └── JobDegraded          … and its action's fallback stands in for one

Every error survives pickling, since Celery and multiprocessing carry them between processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

__all__ = [
    "AccessRefused",
    "ApiUnavailable",
    "ApprovalClosed",
    "ApprovalMismatch",
    "ApprovalNotFound",
    "ApproverRefused",
    "BreakerNotFound",
    "BreakersUnavailable",
    "BudgetNotFound",
    "Conflict",
    "ConversationNotFound",
    "IdempotencyConflict",
    "InvalidBudget",
    "InvalidRequest",
    "InvalidSchedule",
    "JobDegraded",
    "JobFailed",
    "JobNotDead",
    "JobNotFound",
    "JobNotInDoubt",
    "JobNotUndoable",
    "JobUnfinished",
    "KeyInFlight",
    "KeyNotFound",
    "LedgerUnavailable",
    "PolicyNotFound",
    "RequestRefused",
    "ScheduleExists",
    "ScheduleNotFound",
    "SchemaBehind",
    "SettingsError",
    "SurefootError",
    "TokenRefused",
    "UnknownAction",
]


PATHS_SHOWN = 10  # of a conflict, in its message; the error holds them all


class SurefootError(Exception):
    """Something that Surefoot refused or could not do."""

    def __init__(self, message: str | None = None) -> None:
        """Take the class's own first line as the message where none is given."""
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class SettingsError(SurefootError):
    """A setting is missing or wrong."""


class RequestRefused(SurefootError):
    """The request was refused and nothing was written."""


class InvalidRequest(RequestRefused):
    """A field of the request cannot be accepted.

    Attributes:
        where: Path of the offending value, such as ``params.items[2].price``.
        problem: What is wrong with it and what to do.
        index: Position in the batch; 0 for a single request.
    """

    def __init__(self, where: str, problem: str, index: int = 0) -> None:
        """Keep the facts apart from the sentence, so that an API can answer with both."""
        super().__init__(f"{where}: {problem}")
        self.where, self.problem, self.index = where, problem, index

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.where, self.problem, self.index)


class InvalidSchedule(InvalidRequest):
    """A schedule never fires, or a field of it cannot be accepted."""


class InvalidBudget(InvalidRequest):
    """A budget cannot be kept: a field of it cannot be accepted."""


class UnknownAction(RequestRefused):
    """No worker has published that action.

    Attributes:
        action: The name asked for.
        known: The names that workers have published.
        index: Position in the batch; 0 for a single request.
    """

    def __init__(self, action: str, known: Sequence[str], hint: str = "", index: int = 0) -> None:
        """Say what was asked for, what was probably meant, and what there is."""
        super().__init__(f"{action!r} is not an action{hint}")
        self.action, self.known, self.hint, self.index = action, tuple(known), hint, index

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.action, self.known, self.hint, self.index)


@dataclass(frozen=True, slots=True)
class Conflict:
    """One key that already stands for another request.

    Attributes:
        index: Position in the batch; 0 for a single request.
        action: The action asked for.
        idempotency_key: The key that both requests carry.
        job_id: The job that the key stands for; None where that is an earlier request of the same, refused batch.
        paths: Where the two requests' params differ; never the values.
    """

    index: int
    action: str
    idempotency_key: str
    job_id: UUID | None
    paths: tuple[str, ...]


class IdempotencyConflict(RequestRefused):
    """A key already stands for another request.

    Attributes:
        conflicts: Each such key of the batch, in the batch's order. None of the batch was accepted.
    """

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        """Name the first conflict in words; the rest are in ``conflicts``."""
        first, more = conflicts[0], len(conflicts) - 1
        unsaid = len(first.paths) - PATHS_SHOWN
        places = ", ".join(first.paths[:PATHS_SHOWN]) + (f" and {unsaid:,} more places" if unsaid > 0 else "")
        stands_for = f"job {first.job_id}" if first.job_id else "an earlier request of this batch"
        super().__init__(
            f"idempotency key {first.idempotency_key!r} of {first.action} already stands for {stands_for}, "
            f"which differs at {places}; use another key for another request"
            + (f" ({more} more in this batch)" if more else "")
        )
        self.conflicts = tuple(conflicts)

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.conflicts,)


class KeyInFlight(RequestRefused):
    """Another transaction is accepting the same key and does not end; ask again."""


class ScheduleExists(RequestRefused):
    """A schedule of that name is there already, and says something else.

    Attributes:
        name: The schedule's.
        fields: In what the two differ, such as ``cron``.
    """

    def __init__(self, name: str, fields: Sequence[str]) -> None:
        """Say which schedule, and in what the two differ."""
        super().__init__(
            f"schedule {name!r} is there already, with another {', '.join(fields)};"
            " remove it first, or choose another name"
        )
        self.name, self.fields = name, tuple(fields)

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.name, self.fields)


class LedgerUnavailable(SurefootError):
    """Postgres cannot be reached. Asking again with the same key is safe."""


class SchemaBehind(LedgerUnavailable):
    """The ledger's schema is older than this version's, or not there. Once it is migrated, asking again is safe."""


class ApiUnavailable(LedgerUnavailable):
    """The HTTP API cannot be reached, or does not answer. Asking again with the same key is safe."""


class AccessRefused(SurefootError):
    """The key is missing or not valid, or may not do that."""


class JobNotFound(SurefootError):
    """There is no such job for this tenant."""


class ConversationNotFound(SurefootError):
    """There is no such conversation for this tenant."""


class JobNotInDoubt(SurefootError):
    """Only a job in doubt can be resolved; this one is not, any more perhaps.

    Attributes:
        job_id: Which job.
        state: Where it stands.
    """

    def __init__(self, job_id: UUID, state: str) -> None:
        """Say how it stands."""
        super().__init__(f"job {job_id} is {state}; only a job in doubt can be resolved")
        self.job_id, self.state = job_id, state

    def __reduce__(self) -> tuple[type[Self], tuple[UUID, str]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.job_id, self.state)


class JobNotDead(SurefootError):
    """Only a dead job can be retried, where its effect cannot have happened and its key stands for it.

    Attributes:
        job_id: Which job.
        state: Where it stands.
    """

    def __init__(self, job_id: UUID, state: str) -> None:
        """Say how it stands, and what can be done instead."""
        why = (
            " and was given up in doubt, or its key stands for a newer job; ask anew under another key"
            if state == "dead"
            else "; only a dead job can be retried"
        )
        super().__init__(f"job {job_id} is {state}{why}")
        self.job_id, self.state = job_id, state

    def __reduce__(self) -> tuple[type[Self], tuple[UUID, str]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.job_id, self.state)


class JobNotUndoable(SurefootError):
    """The job brought nothing that could be undone, or its action declares no way to.

    Attributes:
        job_id: Which job.
        why: What is missing.
    """

    def __init__(self, job_id: UUID, why: str) -> None:
        """Say what is missing."""
        super().__init__(f"job {job_id} cannot be undone: {why}")
        self.job_id, self.why = job_id, why

    def __reduce__(self) -> tuple[type[Self], tuple[UUID, str]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.job_id, self.why)


class ApprovalNotFound(SurefootError):
    """There is no such approval for this tenant."""


class ApprovalClosed(SurefootError):
    """The approval is decided, or its time is over.

    Attributes:
        approval_id: Which.
        state: How it stands: ``approved``, ``rejected``, ``expired``, ``superseded`` or ``withdrawn``.
        decided_by: Whose word that was; None where it was nobody's.
        why: The reason, in words.
    """

    def __init__(
        self, approval_id: UUID | str, state: str, decided_by: str | None = None, why: str | None = None
    ) -> None:
        """Say what was decided first: a second decision gets that back."""
        by, because = f" by {decided_by}" if decided_by else "", f": {why}" if why else ""
        super().__init__(f"approval {approval_id} is {state}{by}{because}")
        self.approval_id, self.state, self.decided_by, self.why = approval_id, state, decided_by, why

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.approval_id, self.state, self.decided_by, self.why)


class ApprovalMismatch(SurefootError):
    """What would be decided is not the request that is stored.

    Attributes:
        job_id: Whose request.
        altered: Whether the stored request is not any more what people were asked about; else the digest is another's.
    """

    def __init__(self, job_id: UUID | str, *, altered: bool = False) -> None:
        """Say which of the two is wrong."""
        what = (
            "was altered since it was asked about; nobody can approve it, and it has to be withdrawn"
            if altered
            else "has another digest; look at it again, and decide what you see"
        )
        super().__init__(f"the request of job {job_id} {what}")
        self.job_id, self.altered = job_id, altered

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the constructor's own arguments."""
        return _mismatch, (self.job_id, self.altered)


def _mismatch(job_id: UUID | str, altered: bool) -> ApprovalMismatch:  # noqa: FBT001  pickle knows no keywords
    return ApprovalMismatch(job_id, altered=altered)


class ApproverRefused(SurefootError):
    """This person may not decide that.

    Attributes:
        person: Who.
        why: Why not.
    """

    def __init__(self, person: str, why: str) -> None:
        """Say who, and why not."""
        super().__init__(f"{person} {why}")
        self.person, self.why = person, why

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.person, self.why)


class TokenRefused(SurefootError):
    """The token of a link is not genuine, was used before, or its time is over."""


class ScheduleNotFound(SurefootError):
    """There is no such schedule for this tenant."""


class PolicyNotFound(SurefootError):
    """No policy of that name is published, or it is retired already."""


class BudgetNotFound(SurefootError):
    """There is no such budget."""


class BreakerNotFound(SurefootError):
    """Nothing is known of such a breaker: nobody has declared it, and none of that name ever moved."""


class BreakersUnavailable(SurefootError):
    """Redis cannot be reached, and the fleet's breakers are there. Asking again is safe."""


class KeyNotFound(SurefootError):
    """There is no such key for this tenant, or it was revoked."""


class JobUnfinished(SurefootError, TimeoutError):
    """The job did not end within the time given. It goes on; wait again or look later."""


class JobFailed(SurefootError):
    """The job ended without a result.

    Attributes:
        job_id: Which job.
        state: Where it ended, such as ``failed`` or ``cancelled``.
        error: ``{"type": …, "message": …}`` as recorded; None where it ended without an attempt.
    """

    def __init__(self, job_id: UUID | str, state: str, error: Mapping[str, Any] | None = None) -> None:
        """Say where the job ended and why."""
        why = f": {error['type']}: {error['message']}" if error else ""
        super().__init__(f"job {job_id} is {state}{why}")
        self.job_id, self.state, self.error = job_id, state, error

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.job_id, self.state, self.error)


class JobDegraded(JobFailed):
    """The job ended without a result of its own; its action's fallback stands in for one.

    Attributes:
        rule: The rule by which there is no result, such as ``out of retries``.
        fallback: What stands in, of the result's type.
    """

    def __init__(
        self, job_id: UUID | str, rule: str, fallback: Any = None, error: Mapping[str, Any] | None = None
    ) -> None:
        """Say by which rule, and what went wrong; what stands in is not in the words."""
        super().__init__(job_id, "degraded", error)
        self.rule, self.fallback = rule, fallback
        self.args = (f"{self.args[0]} ({rule}; its fallback stands in)",)

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Pickle by the constructor's own arguments."""
        return type(self), (self.job_id, self.rule, self.fallback, self.error)
