"""The approvals of one tenant: what waits for a person, and saying yes, no, never mind or rather this."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.engine import Connection

from producer import tokens
from producer.acting import actor, check_reason
from producer.canonical import shown
from producer.catalogue import Catalogue
from producer.envelope import NAME_LIMIT, Envelope, Request, check_name
from producer.errors import ApprovalNotFound, InvalidRequest, JobNotFound, TokenRefused
from producer.ledger import approvals as ledger
from producer.ledger import deciding, reads
from producer.ledger import tokens as token_ledger
from producer.ledger.accept import accept, refuse_conflicts
from producer.ledger.approvals import Answer, Approval, ApprovalState
from producer.ledger.deciding import Word
from producer.ledger.engine import WAKE_CHANNEL, transaction_on
from producer.sealing import seal_by

if TYPE_CHECKING:
    from producer.settings import Settings

TOKEN_SECONDS = 900.0
LONGEST_TOKEN_SECONDS = 7 * 86_400.0
_DIGEST = re.compile(r"[0-9a-f]{64}")

Read = Callable[[Callable[[Connection], Any]], Any]


class Approvals:
    """What ``producer.approvals`` is. Safe to share between threads.

    Who decides is said by the caller, who has to know: this trusts its `by` as the ledger's own password was trusted.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue, read: Read, ended: Callable[[UUID], None]) -> None:
        """Come from a Producer, with its connections; `ended` tells whoever waits for a job that it has ended."""
        self._settings, self._catalogue, self._read, self._ended = settings, catalogue, read, ended

    def list(
        self,
        *,
        state: ApprovalState | str | None = ApprovalState.PENDING,
        action: str | None = None,
        limit: int = 50,
        before: UUID | str | None = None,
    ) -> Sequence[Approval]:
        """Return at most `limit`, the newest first: those that wait, those in another state, or, with None, all.

        Args:
            state: Which.
            action: Of one action alone.
            limit: 1 or more.
            before: The id of the last one that is known already.

        Raises:
            InvalidRequest: If any of this cannot be.
        """
        check_name("action", action, NAME_LIMIT)
        if type(limit) is not int or limit < 1:
            raise InvalidRequest("limit", f"{shown(limit)} is not 1 or more")
        if state is not None and state not in tuple(ApprovalState):
            raise InvalidRequest("state", f"{shown(state)} is none of {', '.join(ApprovalState)}")
        tenant, known = self._settings.tenant, None if before is None else _id(before)
        which = None if state is None else ApprovalState(state)
        found: Sequence[Approval] = self._read(
            lambda c: ledger.approvals_newest_first(c, tenant, state=which, action=action, limit=limit, before=known)
        )
        return found

    def get(self, approval_id: UUID | str) -> Approval:
        """Return one as it stands, with its votes.

        Raises:
            ApprovalNotFound: If this tenant has none of this id.
        """
        found: Approval | None = self._read(lambda c: ledger.approval_by_id(c, self._settings.tenant, _id(approval_id)))
        if found is None:
            raise ApprovalNotFound(f"there is no approval {shown(str(approval_id))}")
        return found

    def of_job(self, job_id: UUID | str) -> Sequence[Approval]:
        """Return what was asked of a job, the oldest first; empty where nothing was."""
        found: Sequence[Approval] = self._read(lambda c: ledger.approvals_of_job(c, self._settings.tenant, _id(job_id)))
        return found

    def approve(
        self,
        approval_id: UUID | str,
        *,
        digest: str,
        by: str,
        reason: str,
        via: str | None = None,
        address: str | None = None,
    ) -> Approval:
        """Say yes to exactly this request; return how it stands then.

        The last approval that is missing has the job queued. The same word of the same person again changes nothing.

        Args:
            approval_id: Which.
            digest: Of the request as `by` has seen it: `Approval.digest`.
            by: Who says so.
            reason: Why; kept in the job's history.
            via: From where, for the history; by default as `producer.acting` has it.
            address: The network address that it came from, for the history.

        Raises:
            ApprovalNotFound: If this tenant has no such approval.
            ApprovalClosed: If it is decided, with what was decided first, or its time is over.
            ApprovalMismatch: If the digest is another's, or the stored request was altered.
            ApproverRefused: If this person may not decide it, or has rejected it before.
            InvalidRequest: If something of it cannot be said; nothing was written.
            LedgerUnavailable: If Postgres is away. Saying it again is safe.
        """
        word = _word(by, "approve", reason, via, address)
        return self._vote(_id(approval_id), word, digest)

    def reject(
        self,
        approval_id: UUID | str,
        *,
        digest: str,
        by: str,
        reason: str,
        via: str | None = None,
        address: str | None = None,
    ) -> Approval:
        """Say no, which is enough of it: the job is ``rejected``. Everything else is as for `approve`."""
        word = _word(by, "reject", reason, via, address)
        return self._vote(_id(approval_id), word, digest)

    def decide_ahead(
        self,
        job_id: UUID | str,
        verdict: Answer,
        *,
        digest: str,
        by: str,
        reason: str,
        via: str | None = None,
        address: str | None = None,
    ) -> None:
        """Say yes or no to a job's request before anybody was asked; it is found when somebody is.

        Whether `by` may decide is looked at then; if not, it counts for nothing.

        Raises:
            JobNotFound: If this tenant has no such job.
            ApprovalMismatch: If that is not the digest of the job's request, which `digest_of` returns.
            ApproverRefused: If this person has said otherwise before.
            InvalidRequest: As for `approve`.
        """
        word, found, tenant = _word(by, verdict, reason, via, address), _id(job_id), self._settings.tenant
        _check_digest(digest)

        def cast(connection: Connection) -> None:
            if ledger.digest_of(connection, tenant, found) is None:
                raise JobNotFound(f"there is no job {shown(str(job_id))}")
            with transaction_on(connection):
                deciding.vote_ahead(connection, tenant, found, word, digest=digest)

        self._read(cast)

    def digest_of(self, job_id: UUID | str) -> str:
        """Return the digest of a job's request as it is stored now: what an approval of it would be bound to.

        Raises:
            JobNotFound: If this tenant has no such job.
        """
        found: str | None = self._read(lambda c: ledger.digest_of(c, self._settings.tenant, _id(job_id)))
        if found is None:
            raise JobNotFound(f"there is no job {shown(str(job_id))}")
        return found

    def withdraw(self, approval_id: UUID | str, *, by: str, reason: str, via: str | None = None) -> Approval:
        """Take back what waits for people: its job is cancelled. For whoever asked for it.

        Raises:
            ApprovalNotFound: If this tenant has no such approval.
            ApprovalClosed: If it is decided, or its time is over.
            InvalidRequest: As for `approve`.
        """
        found, tenant = _id(approval_id), self._settings.tenant
        via = _checked(by, reason, via)

        def take_back(connection: Connection) -> UUID:
            with transaction_on(connection):
                return deciding.withdraw(connection, tenant, found, by=by, reason=reason, via=via)

        self._ended(self._read(take_back))
        return self.get(found)

    def edit(
        self, approval_id: UUID | str, params: Any, *, digest: str, by: str, reason: str, via: str | None = None
    ) -> UUID:
        """Ask for something else instead: another job, with these params, in place of the one that waits.

        That one is cancelled, and its approval superseded. The new one goes through every gate from the start, under a
        digest of its own; who edited may not approve it.

        Returns:
            The new job's id.

        Raises:
            ApprovalNotFound: If this tenant has no such approval.
            ApprovalClosed: If it is decided, or its time is over.
            ApprovalMismatch: If the digest is another's.
            InvalidRequest: If the params do not fit the action; nothing was written.
        """
        found, tenant = _id(approval_id), self._settings.tenant
        via = _checked(by, reason, via)
        _check_digest(digest)
        job_id = self.get(found).job_id
        record = self._read(lambda c: reads.job_by_id(c, tenant, job_id))
        if record is None:
            raise JobNotFound(f"job {job_id} of that approval is gone")
        envelope = self._edited(record, params, found)

        def replace(connection: Connection) -> UUID:
            with transaction_on(connection):
                before = deciding.edited_by(connection, tenant, found, by=by, digest=digest)
                if before is not None:
                    return before
                refuse_conflicts(accept(connection, [envelope], rings=False), [envelope])
                deciding.supersede(connection, tenant, found, by=by, reason=reason, via=via, job=envelope.id)
                connection.exec_driver_sql(f"SELECT pg_notify('{WAKE_CHANNEL}', '')")
                return envelope.id

        replaced: UUID = self._read(replace)
        self._ended(job_id)
        return replaced

    def token(self, approval_id: UUID | str, verdict: Answer, *, person: str, seconds: float = TOKEN_SECONDS) -> str:
        """Make a token by which one person says one thing, once, soon: for a link that only he is sent.

        It is shown here and never again: the ledger keeps a hash. Whether he may decide is looked at when it is used.

        Args:
            approval_id: On what.
            verdict: ``approve`` or ``reject``; a token for one cannot say the other.
            person: Whose word it is.
            seconds: Its life, a week at most; it ends with the approval's own time at the latest.

        Raises:
            SettingsError: If SUREFOOT_SIGNING_KEY is not set.
            ApprovalNotFound: If this tenant has no such approval.
            InvalidRequest: If any of it cannot be.
        """
        found = _id(approval_id)
        check_name("person", person, NAME_LIMIT)
        _check_verdict(verdict)
        _check_life(seconds)
        claims = {"v": 1, "tenant": self._settings.tenant, "approval": str(found), "person": person}
        until = datetime.now(UTC).timestamp() + seconds
        token = tokens.sign(claims | {"verdict": verdict, "until": round(until)}, self._settings.signing_key)
        asked: dict[str, Any] = {
            "token_hash": tokens.hash_of(token),
            "person": person,
            "verdict": verdict,
            "seconds": seconds,
        }
        if not self._read(lambda c: token_ledger.add_token(c, self._settings.tenant, found, **asked)):
            raise ApprovalNotFound(f"there is no approval {shown(str(approval_id))}")
        return token

    def read_token(self, token: str) -> tuple[Approval, Answer, str]:
        """Return what a token is for, without using it up: the approval, the word, and whose it is.

        For the page that a link leads to: a browser that looks ahead must decide nothing.

        Raises:
            TokenRefused: If it is not genuine, was used, or its time is over.
        """
        claims = self._claims(token)
        found: Any = self._read(lambda c: token_ledger.read_token(c, self._settings.tenant, tokens.hash_of(token)))
        if found is None:
            raise TokenRefused("the token was used before, or its time is over")
        return self.get(claims["approval"]), found.verdict, found.person

    def use_token(self, token: str, *, reason: str | None = None, address: str | None = None) -> Approval:
        """Say what a token is for, and use it up; return how the approval stands then.

        Raises:
            TokenRefused: If it is not genuine, was used, or its time is over.
            ApprovalClosed: As for `approve`, as the other errors are; the token is not used up then.
        """
        claims = self._claims(token)
        word = _word(claims["person"], claims["verdict"], reason or "by the link", "link", address)
        tenant, approval_id = self._settings.tenant, UUID(claims["approval"])

        def use(connection: Connection) -> None:
            with transaction_on(connection):
                row = token_ledger.use_token(connection, tenant, tokens.hash_of(token))
                if (row.approval_id, row.person, row.verdict) != (approval_id, word.by, word.verdict):
                    raise TokenRefused("the token is not what it was when it was made")
                deciding.vote(connection, tenant, approval_id, word, digest=row.digest)

        self._read(use)
        return self._told(approval_id)

    # ---- how ---------------------------------------------------------------------------------------------------

    def _vote(self, approval_id: UUID, word: Word, digest: str) -> Approval:
        _check_digest(digest)
        tenant = self._settings.tenant

        def cast(connection: Connection) -> None:
            with transaction_on(connection):
                deciding.vote(connection, tenant, approval_id, word, digest=digest)

        self._read(cast)
        return self._told(approval_id)

    def _told(self, approval_id: UUID) -> Approval:
        approval = self.get(approval_id)
        if approval.state is ApprovalState.REJECTED:
            self._ended(approval.job_id)
        return approval

    def _claims(self, token: str) -> dict[str, Any]:
        claims = tokens.claims_of(token, self._settings.signing_key)
        if claims.get("tenant") != self._settings.tenant:
            raise TokenRefused("the token is another tenant's")
        return claims

    def _edited(self, record: reads.JobRecord, params: Any, approval_id: UUID) -> Envelope:
        deadline = record.deadline_at
        request = Request(
            action=record.action,
            params=params,
            idempotency_key=f"{approval_id}:edit",
            user_id=record.user_id,
            request_id=record.request_id,
            agent_id=record.agent_id,
            input=record.input,
            reasoning=record.reasoning,
            trace=record.traceparent,
            deadline=deadline,
            priority=record.priority,
            queue=record.queue,
        )
        known, settings = self._catalogue.read(), self._settings
        return seal_by(known, request, tenant=settings.tenant, queue=settings.queue, parent_job_id=record.id)


def _id(text: UUID | str) -> UUID:
    try:
        return text if isinstance(text, UUID) else UUID(text)
    except (ValueError, TypeError, AttributeError):
        raise ApprovalNotFound(f"{shown(text)} is no id") from None


def _word(by: str, verdict: Answer, reason: str, via: str | None, address: str | None) -> Word:
    via = _checked(by, reason, via)
    _check_verdict(verdict)
    check_name("address", address, NAME_LIMIT)
    return Word(by=by, verdict=verdict, reason=reason, via=via, address=address)


def _checked(by: object, reason: object, via: str | None) -> str:
    """Check who says something, and why; return from where."""
    _check_there("by", by)
    if not isinstance(reason, str) or not reason.strip():
        raise InvalidRequest("reason", "is missing: say what this rests on")
    check_reason(reason)
    check_name("via", via, NAME_LIMIT)
    return actor().via if via is None else via


def _check_there(name: str, value: object) -> None:
    if value is None:
        raise InvalidRequest(name, "is missing")
    check_name(name, value, NAME_LIMIT)


def _check_life(seconds: object) -> None:
    number = seconds if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) else 0
    if not 0 < number <= LONGEST_TOKEN_SECONDS:
        raise InvalidRequest("seconds", f"{shown(seconds)} is not more than 0 and at most {LONGEST_TOKEN_SECONDS:g}")


def _check_verdict(verdict: object) -> None:
    if verdict not in ("approve", "reject"):
        raise InvalidRequest("verdict", f"{shown(verdict)} is not approve or reject")


def _check_digest(digest: object) -> None:
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise InvalidRequest("digest", "must be 64 hexadecimal digits: what is approved is a request that was seen")
