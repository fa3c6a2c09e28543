"""Jobs that are there: looking at them, and deciding what becomes of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from sqlalchemy.engine import Connection

from producer.acting import Actor, actor, check_reason
from producer.announce import Announcer
from producer.canonical import shown
from producer.catalogue import Catalogue
from producer.conversation import Conversation
from producer.envelope import NAME_LIMIT, check_name, checked_text, in_utc
from producer.errors import (
    ConversationNotFound,
    InvalidRequest,
    JobNotDead,
    JobNotInDoubt,
    LedgerUnavailable,
)
from producer.job import Job, as_job_id, is_over
from producer.ledger import reads
from producer.ledger.acts import ActRecord, Sought, acts_of
from producer.ledger.cancel import Cancelled, cancel
from producer.ledger.conversations import HISTORY_MESSAGES, conversation, wake_turns
from producer.ledger.engine import in_transaction, open_engine, retrying
from producer.ledger.erase import erase
from producer.ledger.gate_standing import GateStanding, gate_standing
from producer.ledger.glance import Glance, Outlined, glance, outline
from producer.ledger.overview import Standing, standing
from producer.ledger.resolve import BECOMES, Verdict, resolve
from producer.ledger.retry import retry
from producer.ledger.seals import SealKey
from producer.ledger.states import State
from producer.ledger.story import jobs_of_key, read_story
from producer.schema import check_result
from producer.settings import Settings
from producer.waiting import LOOK_SECONDS, Waiting

if TYPE_CHECKING:
    from producer.explain import Explanation
    from producer.verifying import Verification

CONNECTIONS = 5
NUMBER_LIMIT = 2**63  # what a number of the ledger is below

T = TypeVar("T")


class Jobs:
    """The jobs of one tenant. What `Producer` has besides enqueueing; safe to share between threads."""

    def __init__(self, settings: Settings | None = None, *, look_seconds: float = LOOK_SECONDS) -> None:
        """Connect nothing yet.

        Args:
            settings: By default the environment's.
            look_seconds: How late whoever waits for a job may learn of its end, where the announcement got lost.

        Raises:
            SettingsError: If a setting is missing or malformed.
        """
        self.settings = settings or Settings.from_env()
        self.settings.require()
        self._engine = open_engine(self.settings.database_url, connections=CONNECTIONS, name="surefoot-producer")
        self._catalogue = Catalogue(lambda: self._read(reads.published_actions))
        self._announcer = Announcer(self.settings.redis_url)
        self.waiting = Waiting(
            self.settings.redis_url, states_of=self._states_of, over=is_over, look_seconds=look_seconds
        )

    def for_tenant(self, tenant: str) -> Self:
        """Return the same for another tenant's jobs, over the same connections: close the one that these belong to.

        Raises:
            SettingsError: If that cannot be a tenant.
        """
        other = copy(self)
        other.settings = replace(self.settings, tenant=tenant)
        other.settings.require()
        for name in ("schedules", "keys", "approvals", "roles", "budgets", "policies"):  # those are one tenant's
            other.__dict__.pop(name, None)
        return other

    def job(self, job_id: UUID | str) -> Job:
        """Return the job with this id.

        Raises:
            JobNotFound: If this tenant has none.
        """
        return Job(self, as_job_id(job_id)).refresh()

    def find(self, action: str, idempotency_key: str) -> Job | None:
        """Return the newest job that the key stands for; None where there is none.

        Raises:
            InvalidRequest: If either cannot be a name, as for the other look-ups.
        """
        check_name("action", action, NAME_LIMIT)
        check_name("idempotency_key", idempotency_key, NAME_LIMIT)
        record = self._read(lambda c: reads.job_by_key(c, self.settings.tenant, action, idempotency_key))
        return None if record is None else Job(self, record.id, record=record)

    def jobs(
        self,
        *,
        state: State | None = None,
        action: str | None = None,
        limit: int = 50,
        before: UUID | str | None = None,
    ) -> list[Job]:
        """Return at most `limit` jobs, the newest first; `before` is the id of the last one that is known already."""
        check_name("action", action, NAME_LIMIT)
        _check_limit(limit)
        tenant, known = self.settings.tenant, None if before is None else as_job_id(before)
        found = self._read(
            lambda c: reads.jobs_newest_first(c, tenant, state=state, action=action, limit=limit, before=known)
        )
        return [Job(self, record.id, record=record) for record in found]

    def chain(self, request_id: str) -> list[reads.JobRecord]:
        """Return every decision made for one request, in the order they were made; empty where there is none."""
        check_name("request_id", request_id, NAME_LIMIT)
        return self._read(lambda c: reads.jobs_of_request(c, self.settings.tenant, request_id))

    def acts(
        self,
        *,
        since: datetime | None = None,
        before: int | None = None,
        act: str | None = None,
        who: str | None = None,
        job_id: UUID | str | None = None,
        limit: int = 100,
    ) -> list[ActRecord]:
        """Return things that people did, to jobs and beside, the newest first.

        Args:
            since: Those from then on.
            before: Those older than the one of this number.
            act: Of one kind: ``cancel``, ``approve``, ``revoke key``, …
            who: Whose: the name in full, or without the key by which he came.
            job_id: Those done to this job.
            limit: So many at most.
        """
        check_name("who", who, NAME_LIMIT)
        check_name("act", act, NAME_LIMIT)
        _check_limit(limit)
        if before is not None and not (type(before) is int and 0 < before < NUMBER_LIMIT):
            raise InvalidRequest("before", f"{shown(before)} is no act's number")
        job = None if job_id is None else as_job_id(job_id)
        sought = Sought(since=in_utc("since", since), before=before, act=act, who=who, job_id=job)
        return self._read(lambda c: acts_of(c, self.settings.tenant, sought=sought, limit=limit))

    def verify(self, *, since: datetime | None = None, anchors: Sequence[Mapping[str, Any]] = ()) -> Verification:
        """Say whether anybody has changed the record since it was sealed: every tenant's. Reads all of it.

        Args:
            since: Only what was sealed since.
            anchors: What was exported of it: `producer.anchoring.read_anchors`.

        Raises:
            LedgerUnavailable: If Postgres is away.
        """
        from producer.verifying import verify  # noqa: PLC0415  for this alone

        key = SealKey.of(self.settings.signing_key)

        def read(connection: Connection) -> Verification:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0; SET LOCAL enable_hashjoin = on")
            return verify(connection, key=key, since=in_utc("since", since), anchors=anchors)

        return retrying(lambda: in_transaction(self._engine, read, isolation="REPEATABLE READ"))

    def explain(self, job_id: UUID | str) -> Explanation:
        """Say why a job ran, or why it does not, from the record alone: an answer, how it came to that, what to do.

        Raises:
            JobNotFound: If this tenant has no such job.
        """
        return self._explain(self.job(job_id).record)

    def explain_key(self, idempotency_key: str, *, action: str | None = None) -> list[Explanation]:
        """Explain the jobs that a key stands for, those of one action, the newest first; empty where there is none."""
        check_name("idempotency_key", idempotency_key, NAME_LIMIT)
        check_name("action", action, NAME_LIMIT)
        actions = self.actions() if action is None else [action]
        tenant = self.settings.tenant
        found = self._read(lambda c: jobs_of_key(c, tenant, idempotency_key, actions))
        return [self.explain(job_id) for job_id in found]

    def explain_request(self, request_id: str) -> list[Explanation]:
        """Explain every decision that was made for one request, in the order they were made."""
        return [self._explain(record) for record in self.chain(request_id)]

    def _explain(self, record: reads.JobRecord) -> Explanation:
        from producer.explain import explain  # noqa: PLC0415  sentences, for this alone

        return explain(self._read(lambda c: read_story(c, record)))

    def outline(self, request_id: str) -> list[Outlined]:
        """Return which decisions were made for a request, in order, without what was said; at most a thousand."""
        check_name("request_id", request_id, NAME_LIMIT)
        return self._read(lambda c: outline(c, self.settings.tenant, request_id))

    def conversation(self, conversation_id: str, *, limit: int = HISTORY_MESSAGES) -> Conversation:
        """Return a conversation with the newest `limit` of its messages, in order, and whose turn it is.

        Raises:
            ConversationNotFound: If this tenant has none of this id; it begins with its first turn.
        """
        check_name("conversation_id", conversation_id, NAME_LIMIT)
        _check_limit(limit)
        tenant = self.settings.tenant
        found = self._read(lambda c: conversation(c, tenant, conversation_id, limit=limit))
        if found is None:
            raise ConversationNotFound(f"there is no conversation {shown(conversation_id)} yet")
        return found

    def counts(self) -> dict[State, int]:
        """Return how many jobs stand in each state. Reads every row: for a person to look at."""
        return self._read(lambda c: reads.counts_by_state(c, self.settings.tenant))

    def standing(self) -> Standing:
        """Return how the whole ledger stands, every tenant's jobs: what is on its way, and what to look at."""
        return self._read(standing)

    def gate_standing(self) -> GateStanding:
        """Return how everybody's budgets and approvals stand, in sums."""
        return self._read(gate_standing)

    def glance(self) -> Glance:
        """Return how this tenant's jobs stand, and what came in in the last minutes."""
        return self._read(lambda c: glance(c, self.settings.tenant))

    def ping(self) -> None:
        """Ask the ledger whether it is there.

        Raises:
            LedgerUnavailable: If it is not.
        """
        self._read(lambda c: c.exec_driver_sql("SELECT 1"))

    def read(self, job_id: UUID) -> reads.JobRecord | None:
        """Return all that the ledger says of a job; None where this tenant has no such job."""
        return self._read(lambda c: reads.job_by_id(c, self.settings.tenant, job_id))

    def events(self, job_id: UUID) -> list[reads.Event]:
        """Return a job's history in order."""
        return self._read(lambda c: reads.events_of(c, job_id))

    def actions(self) -> dict[str, reads.PublishedAction]:
        """Return every action that workers have published, by name, read now."""
        return dict(self._catalogue.read())

    def cancel(self, job_id: UUID | str, *, reason: str | None = None) -> Cancelled:
        """Cancel a job; see `producer.ledger.cancel.cancel` for the answers.

        Raises:
            InvalidRequest: If the reason cannot be stored, or is longer than 4,096 characters.
            JobNotFound: If that is no id.
            LedgerUnavailable: If Postgres is away. Asking again is safe.
        """
        if reason is not None:
            check_reason(reason)
        found = as_job_id(job_id)
        who = actor()
        answer = self._read(lambda c: cancel(c, self.settings.tenant, found, reason=reason, actor=who))
        if answer in ("cancelled", "in_doubt"):
            self._ended(found)
        return answer

    def resolve(
        self, job_id: UUID | str, verdict: Verdict, *, reason: str, result: Any = None, who: str | None = None
    ) -> Job:
        """Say what became of a job in doubt; return it as it stands then.

        Args:
            job_id: The job.
            verdict: ``happened``: it ends ``succeeded`` with `result`. ``retry``: it did not happen, and is tried
                again at once; attempts that were spent stay so, and its crashes count anew. ``abandon``: nobody will
                find out, and it ends ``dead``.
            reason: What that rests on; kept in the job's history.
            result: For ``happened``: what the action would have returned, held to its published result type.
            who: Who says so; by default the user that this process runs as.

        Raises:
            InvalidRequest: If the result does not fit, or the reason is missing; nothing was written.
            JobNotInDoubt: If the job is not in doubt, or not any more.
            JobNotFound: If this tenant has no such job.
            LedgerUnavailable: If Postgres is away. Asking again is safe: it is refused where it was done.
        """
        if verdict not in BECOMES:
            raise InvalidRequest("verdict", f"{shown(verdict)} is not {', '.join(BECOMES)}")
        said_by = checked_act(reason, who)
        job = self.job(job_id)
        recorded = self._result_in_words(job, result) if verdict == "happened" else None
        if result is not None and verdict != "happened":
            raise InvalidRequest("result", f"belongs to what happened, not to {verdict}")
        tenant = self.settings.tenant
        resolved = self._read(
            lambda c: resolve(c, tenant, job.id, verdict, result=recorded, reason=reason, actor=said_by)
        )
        if not resolved:
            raise JobNotInDoubt(job.id, job.refresh().state)
        self._ended(job.id)
        return job.refresh()

    def retry(self, job_id: UUID | str, *, reason: str, who: str | None = None) -> Job:
        """Give a dead job one more attempt, due now; return it as it stands then.

        Args:
            job_id: The job.
            reason: What has changed; kept in the job's history.
            who: Who says so; by default the user that this process runs as.

        Raises:
            InvalidRequest: If the reason is missing; nothing was written.
            JobNotDead: If the job is not dead, was given up although its effect may have happened, or its key stands
                for a newer job.
            JobNotFound: If this tenant has no such job.
            LedgerUnavailable: If Postgres is away. Asking again is safe: it is refused where it was done.
        """
        said_by = checked_act(reason, who)
        job, tenant = self.job(job_id), self.settings.tenant
        if not self._read(lambda c: retry(c, tenant, job.id, reason=reason, actor=said_by)):
            raise JobNotDead(job.id, job.refresh().state)
        return job.refresh()

    def erase(self, job_id: UUID | str, *, reason: str, who: str | None = None) -> Job:
        """Erase what was said in a job that has ended: its decision's words and figures, and what its events say.

        What stays: that there was such a job, its key, request, user and agent, when which worker did what, and of each
        event's data the digest, so that the record's seals hold. It is never retried.

        Args:
            job_id: The job.
            reason: Why; kept on record.
            who: Who says so; by default the user that this process runs as.

        Raises:
            InvalidRequest: If the job has not ended, or the reason is missing; nothing was written.
            JobNotFound: If this tenant has no such job.
            DBAPIError: If this connection is not the owner's, who alone may; nothing was written.
            LedgerUnavailable: If Postgres is away. Asking again is safe.
        """
        said_by = checked_act(reason, who)
        job, tenant = self.job(job_id), self.settings.tenant
        if not self._read(lambda c: erase(c, tenant, job.id, reason=reason, actor=said_by)):
            raise InvalidRequest("job_id", f"job {job.id} is {job.refresh().state}; what has not ended needs its words")
        return job.refresh()

    def _result_in_words(self, job: Job, result: Any) -> str:
        text = checked_text(result, "result")
        action = self.actions().get(job.record.action)
        if action is not None:
            check_result(action, result)
        return text

    def close(self) -> None:
        """Close every connection. Going on opens new ones, as does whoever goes on waiting."""
        self.waiting.close()
        self._announcer.close()
        self._engine.dispose()

    def _ended(self, job_id: UUID) -> None:
        """Tell whoever waits for the job, and for its turn; both find out by themselves where this fails."""
        self._announcer.announce([job_id])
        with suppress(LedgerUnavailable):
            self._read(lambda c: wake_turns(c, [job_id]))

    def _states_of(self, job_ids: Sequence[UUID]) -> dict[UUID, State]:
        return self._read(lambda c: reads.states_of(c, job_ids))

    def _read(self, read: Callable[[Connection], T]) -> T:
        def once() -> T:
            with self._engine.connect() as connection:
                return read(connection)

        return retrying(once)


def checked_act(reason: object, who: str | None) -> Actor:
    """Check why somebody acts on a job; return who it is."""
    if not isinstance(reason, str) or not reason.strip():
        raise InvalidRequest("reason", "is missing: say what this rests on")
    check_reason(reason)
    return actor(who)


def _check_limit(limit: object) -> None:
    if type(limit) is not int or limit < 1:
        raise InvalidRequest("limit", f"{shown(limit)} is not 1 or more")
