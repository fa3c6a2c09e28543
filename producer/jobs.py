"""Jobs that are there: looking at them, and deciding what becomes of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from getpass import getuser
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.engine import Connection

from producer.announce import Announcer
from producer.canonical import shown
from producer.catalogue import Catalogue
from producer.conversation import Conversation
from producer.envelope import NAME_LIMIT, check_name, checked_text
from producer.errors import ConversationNotFound, InvalidRequest, JobNotFound, JobNotInDoubt, LedgerUnavailable
from producer.job import Job, is_over
from producer.ledger import reads
from producer.ledger.cancel import Cancelled, cancel
from producer.ledger.conversations import HISTORY_MESSAGES, conversation, wake_turns
from producer.ledger.engine import open_engine, retrying
from producer.ledger.resolve import BECOMES, Verdict, resolve
from producer.ledger.states import State
from producer.schema import check_result
from producer.settings import Settings
from producer.waiting import LOOK_SECONDS, Waiting

CONNECTIONS = 5
REASON_LIMIT = 4_096

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

    def job(self, job_id: UUID | str) -> Job:
        """Return the job with this id.

        Raises:
            JobNotFound: If this tenant has none.
        """
        return Job(self, _as_uuid(job_id)).refresh()

    def find(self, action: str, idempotency_key: str) -> Job | None:
        """Return the newest job that the key stands for; None where there is none.

        Raises:
            InvalidRequest: If either cannot be a name, as for the other look-ups.
        """
        check_name("action", action, NAME_LIMIT)
        check_name("idempotency_key", idempotency_key, NAME_LIMIT)
        record = self._read(lambda c: reads.job_by_key(c, self.settings.tenant, action, idempotency_key))
        return None if record is None else Job(self, record.id, record=record)

    def jobs(self, *, state: State | None = None, action: str | None = None, limit: int = 50) -> list[Job]:
        """Return at most `limit` jobs, the newest first."""
        check_name("action", action, NAME_LIMIT)
        _check_limit(limit)
        tenant = self.settings.tenant
        found = self._read(lambda c: reads.jobs_newest_first(c, tenant, state=state, action=action, limit=limit))
        return [Job(self, record.id, record=record) for record in found]

    def chain(self, request_id: str) -> list[reads.JobRecord]:
        """Return every decision made for one request, in the order they were made; empty where there is none."""
        check_name("request_id", request_id, NAME_LIMIT)
        return self._read(lambda c: reads.jobs_of_request(c, self.settings.tenant, request_id))

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
            check_name("reason", reason, REASON_LIMIT, may_span_lines=True)
        found = _as_uuid(job_id)
        answer = self._read(lambda c: cancel(c, self.settings.tenant, found, reason=reason))
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
        if not isinstance(reason, str) or not reason.strip():
            raise InvalidRequest("reason", "is missing: say what the verdict rests on")
        check_name("reason", reason, REASON_LIMIT, may_span_lines=True)
        who = who or getuser()
        check_name("who", who, NAME_LIMIT)
        job = self.job(job_id)
        recorded = self._result_in_words(job, result) if verdict == "happened" else None
        if result is not None and verdict != "happened":
            raise InvalidRequest("result", f"belongs to what happened, not to {verdict}")
        tenant = self.settings.tenant
        resolved = self._read(lambda c: resolve(c, tenant, job.id, verdict, result=recorded, reason=reason, who=who))
        if not resolved:
            raise JobNotInDoubt(job.id, job.refresh().state)
        self._ended(job.id)
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
        return self._read(lambda c: reads.states_of(c, self.settings.tenant, job_ids))

    def _read(self, read: Callable[[Connection], T]) -> T:
        def once() -> T:
            with self._engine.connect() as connection:
                return read(connection)

        return retrying(once)


def _check_limit(limit: object) -> None:
    if type(limit) is not int or limit < 1:
        raise InvalidRequest("limit", f"{shown(limit)} is not 1 or more")


def _as_uuid(job_id: UUID | str) -> UUID:
    try:
        return job_id if isinstance(job_id, UUID) else UUID(job_id)
    except (ValueError, TypeError, AttributeError) as error:
        raise JobNotFound(f"{job_id!r} is not a job's id, which is a UUID") from error
