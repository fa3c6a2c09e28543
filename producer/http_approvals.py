"""`HttpProducer.approvals`: what `Producer.approvals` is, over HTTP. Who decides is the name of the key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from producer.canonical import shown
from producer.errors import ApprovalNotFound, JobNotFound
from producer.job import as_job_id
from producer.ledger.approvals import Answer, Approval, ApprovalState, Vote
from producer.records import record_of

PAGE = 500
TOKEN_SECONDS = 900.0

Ask = Callable[..., Any]


class HttpApprovals:
    """Methods and errors are those of `producer.approvals.Approvals`, less who says so and from where."""

    def __init__(self, ask: Ask) -> None:
        """Come from an HttpProducer, which asks."""
        self._ask = ask

    def list(
        self,
        *,
        state: ApprovalState | str | None = ApprovalState.PENDING,
        action: str | None = None,
        limit: int = 50,
        before: UUID | str | None = None,
    ) -> Sequence[Approval]:
        """Return at most `limit`, the newest first: those that wait, those in another state, or, with None, all."""
        found: list[Approval] = []
        cursor = None if before is None else str(_id(before))
        which: dict[str, Any] = {"every": True} if state is None else {"state": str(state)}
        while len(found) < limit:
            query = which | {"action": action, "limit": min(PAGE, limit - len(found)), "cursor": cursor}
            page = self._ask("GET", "/v1/approvals", query=query, repeatable=True)
            found += [_approval(each) for each in page["approvals"]]
            cursor = page["next"]
            if cursor is None:
                break
        return found

    def get(self, approval_id: UUID | str) -> Approval:
        """Return one as it stands, with its votes."""
        return self._one("GET", approval_id, repeatable=True)

    def of_job(self, job_id: UUID | str) -> Sequence[Approval]:
        """Return what was asked of a job, the oldest first; empty where nothing was."""
        found = self._ask("GET", f"/v1/jobs/{as_job_id(job_id)}/approvals", repeatable=True)
        return [_approval(each) for each in found["approvals"]]

    def approve(self, approval_id: UUID | str, *, digest: str, reason: str) -> Approval:
        """Say yes to exactly this request; the same word again changes nothing, so it is said until it is heard."""
        return self._one("POST", approval_id, "/approve", {"digest": digest, "reason": reason}, repeatable=True)

    def reject(self, approval_id: UUID | str, *, digest: str, reason: str) -> Approval:
        """Say no, which is enough of it."""
        return self._one("POST", approval_id, "/reject", {"digest": digest, "reason": reason}, repeatable=True)

    def withdraw(self, approval_id: UUID | str, *, reason: str) -> Approval:
        """Take back what waits for people; its job is cancelled."""
        return self._one("POST", approval_id, "/withdraw", {"reason": reason})

    def edit(self, approval_id: UUID | str, params: Any, *, digest: str, reason: str) -> UUID:
        """Ask for something else instead; return the new job's id."""
        said = {"params": params, "digest": digest, "reason": reason}
        return UUID(self._of(approval_id, "POST", "/edit", said, repeatable=True)["job_id"])

    def token(self, approval_id: UUID | str, verdict: Answer, *, person: str, seconds: float = TOKEN_SECONDS) -> str:
        """Make a token by which one person says one thing, once, soon. It takes a key with the scope ``admin``."""
        said = {"verdict": verdict, "person": person, "seconds": seconds}
        made: str = self._of(approval_id, "POST", "/tokens", said)["token"]
        return made

    def decide_ahead(self, job_id: UUID | str, verdict: Answer, *, digest: str, reason: str) -> None:
        """Say yes or no to a job's request before anybody was asked."""
        said = {"verdict": verdict, "digest": digest, "reason": reason}
        self._ask("POST", f"/v1/jobs/{as_job_id(job_id)}/decide-ahead", said, repeatable=True)

    def digest_of(self, job_id: UUID | str) -> str:
        """Return the digest of a job's request as it is stored now."""
        found: str = self._ask("GET", f"/v1/jobs/{as_job_id(job_id)}/digest", repeatable=True)["digest"]
        return found

    def _one(self, method: str, approval_id: UUID | str, *rest: Any, repeatable: bool = False) -> Approval:
        return _approval(self._of(approval_id, method, *rest, repeatable=repeatable))

    def _of(
        self, approval_id: UUID | str, method: str, act: str = "", body: Any = None, *, repeatable: bool = False
    ) -> Any:
        try:
            return self._ask(method, f"/v1/approvals/{_id(approval_id)}{act}", body, repeatable=repeatable)
        except JobNotFound as error:
            raise ApprovalNotFound(str(error)) from None


def _id(approval_id: UUID | str) -> UUID:
    try:
        return approval_id if isinstance(approval_id, UUID) else UUID(approval_id)
    except (ValueError, TypeError, AttributeError):
        raise ApprovalNotFound(f"{shown(approval_id)} is no id") from None


def _approval(told: Mapping[str, Any]) -> Approval:
    lists = {name: tuple(told[name]) for name in ("approvers", "roles", "excluded")}
    votes = tuple(Vote(**_known(vote) | {"at": datetime.fromisoformat(vote["at"])}) for vote in told["votes"])
    return record_of(Approval, told, state=ApprovalState(told["state"]), votes=votes, **lists)


def _known(vote: Mapping[str, Any]) -> dict[str, Any]:
    return {name: vote.get(name) for name in Vote.__dataclass_fields__}
