"""The producer: asks for actions and looks at what became of them. It never performs one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from producer.catalogue import Actions
from producer.envelope import BATCH_CHARACTERS, DEFAULT_PRIORITY, Envelope, OnClosed, Request, batch_of
from producer.errors import InvalidRequest, RequestRefused, UnknownAction
from producer.job import Job
from producer.jobs import Jobs, checked_act
from producer.ledger.accept import Answer, accept, note_replays, refuse_conflicts, refuse_late
from producer.ledger.engine import WAKE_CHANNEL, in_a_transaction, in_transaction, retrying
from producer.ledger.single import SingleAccepts
from producer.ring import Bell, Ring
from producer.sealing import seal_by
from producer.settings import Settings
from producer.spans import asking, tracer
from producer.waiting import LOOK_SECONDS

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from producer.approvals import Approvals
    from producer.breakers import Breakers
    from producer.budgets import Budgets
    from producer.keys import Keys
    from producer.policies import Policies
    from producer.roles import Roles
    from producer.schedules import Schedules

# More than all tries to accept take together.
LONGEST_ACCEPT = timedelta(minutes=5)

# In a caller's transaction, too, a key that another one is accepting is waited for only so long.
BOUND_WAIT = text(
    "SELECT set_config('surefoot.lock_timeout', current_setting('lock_timeout'), true),"
    " set_config('lock_timeout', '5s', true)"
)
UNBOUND_WAIT = text("SELECT set_config('lock_timeout', current_setting('surefoot.lock_timeout'), true)")


class Producer(Jobs):
    """Asks, decides and looks. Safe to share between threads, and usable after a fork.

    Example:
        >>> producer = Producer()                       # SUREFOOT_DATABASE_URL, SUREFOOT_REDIS_URL
        >>> job = producer.enqueue("email.send", {"to": "a@example.com", "subject": "Hi", "body": "…"},
        ...                        idempotency_key="invoice-7")
        >>> job.outcome, job.wait(30).state
        ('created', <State.SUCCEEDED: 'succeeded'>)
    """

    def __init__(
        self, settings: Settings | None = None, *, bell: Bell | None = None, look_seconds: float = LOOK_SECONDS
    ) -> None:
        """Connect nothing yet.

        Args:
            settings: By default the environment's.
            bell: By default one of its own.
            look_seconds: How late whoever waits for a job may learn of its end, where the announcement got lost.

        Raises:
            SettingsError: If a setting is missing or malformed.
        """
        super().__init__(settings, look_seconds=look_seconds)
        self._single = SingleAccepts(self._engine)
        self._bell = bell or Bell(self.settings.redis_url, timeout_seconds=self.settings.ring_timeout_seconds)

    def enqueue(
        self,
        action: str,
        params: Any = None,
        *,
        idempotency_key: str | None = None,
        user_id: str | None = None,
        request_id: str | None = None,
        agent_id: str | None = None,
        input: Any = None,  # noqa: A002  the word of the decision record
        reasoning: str | None = None,
        trace: str | None = None,
        run_at: datetime | None = None,
        deadline: datetime | None = None,
        priority: int = DEFAULT_PRIORITY,
        queue: str | None = None,
        on_closed: OnClosed = "replay",
        connection: Connection | Session | None = None,
    ) -> Job:
        """Have an action performed; return once that is durable, before it is performed.

        The arguments are `Request`'s. With `connection` the job belongs to that transaction: it exists if and when
        the transaction commits, and is rung by a worker then. A replay is not counted in its job's ``replays``: its row
        would be locked until the commit.

        Returns:
            A handle whose ``outcome`` is ``created``, or ``replayed`` where the key already stands for this request.

        Raises:
            InvalidRequest: If something cannot be accepted; nothing was written.
            UnknownAction: If no worker has published the action.
            IdempotencyConflict: If the key stands for another request.
            LedgerUnavailable: If Postgres is away. Asking again with the same key is safe.
        """
        request = Request(
            action=action,
            params={} if params is None else params,
            idempotency_key=idempotency_key,
            user_id=user_id,
            request_id=request_id,
            agent_id=agent_id,
            input=input,
            reasoning=reasoning,
            trace=trace,
            run_at=run_at,
            deadline=deadline,
            priority=priority,
            queue=queue,
            on_closed=on_closed,
        )
        return self.enqueue_many([request], connection=connection)[0]

    def enqueue_many(
        self,
        requests: Iterable[Request | Mapping[str, Any]],
        *,
        connection: Connection | Session | None = None,
        conflicts: Literal["raise", "return"] = "raise",
    ) -> list[Job]:
        """Accept up to 10,000 requests in one statement, under the same rules as one.

        Together, their params, input and reasoning have up to 33,554,432 characters.

        Args:
            requests: Each a `Request`, or a mapping of its fields.
            connection: As for `enqueue`.
            conflicts: ``raise`` refuses the whole batch if any key stands for another request; ``return`` accepts
                the others and answers such a request with a handle whose outcome is ``conflict``.

        Raises:
            InvalidRequest: For the first request that cannot be accepted, with its ``index``; nothing was written.
            IdempotencyConflict: With every conflict of the batch; nothing was written.
        """
        batch = batch_of(requests)
        if (exporting := tracer()) is None:
            return self._enqueue(batch, connection, conflicts)
        asked = [request if isinstance(request, Request) else _request_of(request) for request in batch]
        with asking(exporting, asked) as traced:
            return self._enqueue(traced, connection, conflicts)

    def _enqueue(
        self,
        requests: Sequence[Request | Mapping[str, Any]],
        connection: Connection | Session | None,
        conflicts: Literal["raise", "return"],
    ) -> list[Job]:
        envelopes = self._seal_batch(requests)
        if not envelopes:
            return []
        if connection is not None:
            return self._handles(_accept_within(connection, envelopes, conflicts))
        answers = self._accept(envelopes, conflicts)
        self._bell.ring(self._rings(envelopes, answers))
        self._note_replays(answers)
        return self._handles(answers)

    def undo(self, job_id: UUID | str, *, reason: str, who: str | None = None) -> Job:
        """Have what a job did taken back, by the action that its own declares with ``undo=``.

        That is a job like any other: policies, approvals and budgets are asked, it is tried again, and may fail. It is
        asked for by who wants it, follows the first in its chain, and is the only one: asking again returns it, unless
        it came to nothing.

        Args:
            job_id: The job that is to be undone.
            reason: Why; kept in the history of both.
            who: Who wants it; by default the user that this process runs as.

        Returns:
            A handle to the job that undoes.

        Raises:
            InvalidRequest: If the reason is missing, or the undoing action does not take what the job left.
            JobNotUndoable: If it has not succeeded, was erased, or its action declares no way.
            UnknownAction: If no worker has published the undoing action.
            JobNotFound: If this tenant has no such job.
            LedgerUnavailable: If Postgres is away. Asking again is safe.
        """
        from producer.undoing import accept_undo, seal_undo  # noqa: PLC0415  for this alone

        actor = checked_act(reason, who)
        record = self.job(job_id).record
        envelope = seal_undo(self.actions(), record, actor, reason, queue=self.settings.queue)
        answer = self._read(lambda c: accept_undo(c, envelope, record.id, actor, reason))
        self._bell.ring(self._rings([envelope], [answer]))
        return self._handles([answer])[0]

    def flush(self, seconds: float | None = None) -> bool:
        """Wait until what was accepted so far has been rung, or left to the relay; return whether that is so.

        A process that ends does this by itself. One that is killed leaves its last rings to the relay.

        Args:
            seconds: The longest wait; None waits as long as rings go out, for each somewhat longer than it can take.
        """
        return self._bell.flush(seconds)

    def close(self) -> None:
        """Ring what was accepted, and close every connection.

        Using the producer again opens new ones, as does whoever goes on waiting.
        """
        self._bell.close()
        super().close()

    @cached_property
    def breakers(self) -> Breakers:
        """The whole fleet's breakers: ``list``, ``get``, ``history``, and ``force`` for operators."""
        from producer.breakers import Breakers  # noqa: PLC0415  Redis's scripts, for this alone

        return Breakers(self.settings, self._catalogue, self._read)

    @cached_property
    def budgets(self) -> Budgets:
        """The budgets: calling it lists how shares stand; ``list``, ``get``, ``add``, ``set``, ``reset`` and more."""
        from producer.budgets import Budgets  # noqa: PLC0415  for operators and consoles alone

        return Budgets(self.settings, self._read)

    @cached_property
    def schedules(self) -> Schedules:
        """This tenant's schedules: ``add``, ``list``, ``get``, ``pause``, ``resume``, ``remove``, ``next_ticks``."""
        from producer.schedules import Schedules  # noqa: PLC0415  time zones and cron, for this alone

        return Schedules(self.settings, self._catalogue, self._read)

    @cached_property
    def keys(self) -> Keys:
        """This tenant's keys for the HTTP API: ``create``, ``list``, ``revoke``."""
        from producer.keys import Keys  # noqa: PLC0415  most producers make none

        return Keys(self.settings.tenant, self._read)

    @cached_property
    def approvals(self) -> Approvals:
        """This tenant's approvals: ``list``, ``get``, ``approve``, ``reject``, ``withdraw``, ``edit``, ``token``."""
        from producer.approvals import Approvals  # noqa: PLC0415  most producers decide nothing

        return Approvals(self.settings, self._catalogue, self._read, self._ended)

    @cached_property
    def policies(self) -> Policies:
        """The policies that workers have published: ``list``, and ``retire`` for what no code declares any more."""
        from producer.policies import Policies  # noqa: PLC0415  as above

        return Policies(self.settings.tenant, self._read)

    @cached_property
    def roles(self) -> Roles:
        """Who has which role for this tenant: ``grant``, ``revoke``, ``list``."""
        from producer.roles import Roles  # noqa: PLC0415  as above

        return Roles(self.settings.tenant, self._read)

    # ---- accepting ---------------------------------------------------------------------------------------------

    def _seal_batch(self, requests: Sequence[Request | Mapping[str, Any]]) -> list[Envelope]:
        envelopes: list[Envelope] = []
        characters = 0
        for index, request in enumerate(requests):
            envelopes.append(self._seal(request, index))
            characters += envelopes[-1].characters
            if characters > BATCH_CHARACTERS:
                limit = f"the limit of a batch is {BATCH_CHARACTERS:,}"
                raise InvalidRequest(
                    "requests", f"up to this one have {characters:,} characters; {limit}; pass them in several", index
                )
        return envelopes

    def _seal(self, request: Request | Mapping[str, Any], index: int) -> Envelope:
        refusal: RequestRefused | None = None
        for known in self._catalogue.looks():
            try:
                return self._seal_by(known, request)
            except RequestRefused as error:  # by old news, perhaps: the next look is at what there is now
                refusal = error
        if isinstance(refusal, InvalidRequest):
            raise InvalidRequest(refusal.where, refusal.problem, index) from refusal.__cause__
        if isinstance(refusal, UnknownAction):
            raise UnknownAction(refusal.action, refusal.known, refusal.hint, index)
        raise refusal or AssertionError("unreachable: there is always one look")

    def _seal_by(self, known: Actions, request: Request | Mapping[str, Any]) -> Envelope:
        request = request if isinstance(request, Request) else _request_of(request)
        return seal_by(known, request, tenant=self.settings.tenant, queue=self.settings.queue, may_be_late=True)

    def _accept(self, envelopes: Sequence[Envelope], conflicts: str) -> list[Answer]:
        may_be_late = any(map(_may_be_late, envelopes))
        if len(envelopes) == 1 and not may_be_late:
            return _refusing([self._single.accept(envelopes[0])], envelopes, conflicts)
        return retrying(lambda: self._accept_batch(envelopes, conflicts, may_be_late=may_be_late))

    def _accept_batch(self, envelopes: Sequence[Envelope], conflicts: str, *, may_be_late: bool) -> list[Answer]:
        if conflicts == "return" and not may_be_late:
            # One statement is one transaction, and a conflict leaves nothing to take back.
            with self._engine.connect() as connection:
                return accept(connection, envelopes, rings=True)
        return in_transaction(self._engine, lambda c: _accept_whole(c, envelopes, conflicts, rings=True))

    def _rings(self, envelopes: Sequence[Envelope], answers: Sequence[Answer]) -> list[Ring]:
        together = self._catalogue.ring_size
        return [
            Ring(a.job_id, e.action, e.queue, e.priority, e.traceparent, e.request_id, together(e.action))
            for e, a in zip(envelopes, answers, strict=True)
            if a.due
        ]

    def _note_replays(self, answers: Sequence[Answer]) -> None:
        replayed = [answer.job_id for answer in answers if answer.outcome == "replayed"]
        if replayed:
            # The requests are answered; a count that is missing must not turn that into an error.
            with suppress(SQLAlchemyError), self._engine.connect() as connection:
                note_replays(connection, replayed)

    def _handles(self, answers: Sequence[Answer]) -> list[Job]:
        return [Job(self, a.job_id, outcome=a.outcome, conflict_paths=a.paths) for a in answers]


def _accept_within(target: Connection | Session, envelopes: Sequence[Envelope], conflicts: str) -> list[Answer]:
    """Accept in the caller's transaction, and have the database wake the relays when, and only when, it commits."""
    connection = _connection_of(target)
    if not in_a_transaction(connection):
        raise InvalidRequest("connection", "is in autocommit, so there is no transaction that the job could belong to")
    with connection.begin_nested():  # a refused batch takes only itself back, not the caller's own work
        connection.execute(BOUND_WAIT)
        answers = _accept_whole(connection, envelopes, conflicts, rings=False)
    connection.execute(UNBOUND_WAIT)
    if any(answer.due for answer in answers):
        connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": WAKE_CHANNEL})
    return answers


def _connection_of(target: Connection | Session) -> Connection:
    if isinstance(target, Connection):
        return target
    # Who has a session has loaded it; for everybody else the ORM is a sixth of what a start takes.
    from sqlalchemy.orm import Session  # noqa: PLC0415

    if isinstance(target, Session):
        return target.connection()
    kind = type(target).__name__
    raise InvalidRequest("connection", f"must be a SQLAlchemy Connection or Session, not {kind}")


def _may_be_late(envelope: Envelope) -> bool:
    """Whether a deadline may be over before all tries to accept are, so that an accept may have to be taken back."""
    return envelope.deadline is not None and envelope.deadline <= datetime.now(UTC) + LONGEST_ACCEPT


def _accept_whole(
    connection: Connection, envelopes: Sequence[Envelope], conflicts: str, *, rings: bool
) -> list[Answer]:
    """Accept in a transaction, which is taken back where this raises."""
    answers = accept(connection, envelopes, rings=rings)
    refuse_late(connection, answers, envelopes)
    return _refusing(answers, envelopes, conflicts)


def _refusing(answers: list[Answer], envelopes: Sequence[Envelope], conflicts: str) -> list[Answer]:
    if conflicts == "raise":
        refuse_conflicts(answers, envelopes)
    return answers


def _request_of(fields: Mapping[str, Any]) -> Request:
    if not isinstance(fields, Mapping):
        raise InvalidRequest("request", f"must be a Request or a mapping of its fields, not {type(fields).__name__}")
    unknown = sorted(set(fields) - set(Request.__dataclass_fields__))
    if unknown:
        raise InvalidRequest(str(unknown[0]), "is not a field of a request")
    if "action" not in fields:
        raise InvalidRequest("action", "is missing")
    return Request(**fields)
