"""Asking the policies about an attempt, and seeing to what they say: refuse, have people asked, or let through.

Nothing gets past a policy that cannot be asked: where one raises, hangs or answers nonsense, the job is held and asked
for again. It is not refused, since nobody has refused it, and a policy that was mended lets it go on.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from producer.canonical import canonical_json
from producer.ledger.deciding import Asked as AskedOfPeople
from producer.ledger.policies import PublishedPolicy
from producer.ledger.states import State
from producer.sealing import new_id
from tasks import ActionSpec, Asked, Rule, Said
from tasks._outcomes import InvalidAnswer, describe
from tasks._preview import PREVIEW_SECONDS
from tasks._rules import Allow, Deny, RequireApproval
from worker.costs import cost_of
from worker.cut_offs import reason_of_cut_off
from worker.json_text import as_json
from worker.leases import LeaseLost, Leases
from worker.log import log
from worker.perform import Performer, Work
from worker.performance import Performance
from worker.policy_statements import Approved, Review, Reviewed
from worker.published import Published
from worker.retry import Verdict
from worker.writer import Writer

POLICY_SECONDS = 5.0
# A policy that cannot be asked is asked again after so long, then after twice as long, up to the last.
FIRST_HOLD_SECONDS, LONGEST_HOLD_SECONDS = 2.0, 300.0
# A request that is not what it was a moment ago is looked at anew.
CHANGED_SECONDS = 1.0
# What a policy guards that this process has not loaded is soon another's: this one claims no more of it.
NOT_LOADED_SECONDS = 1.0


VERDICTS: Mapping[type[Said], str] = {Allow: "allow", Deny: "deny", RequireApproval: "require_approval"}


@dataclass(frozen=True, slots=True)
class Judged:
    """What one policy said; None with an `error` where it could not be asked."""

    rule: Rule
    said: Said | None
    error: Mapping[str, Any] | None = None

    def note(self) -> dict[str, Any]:
        """Return it as its event says it."""
        told = {"rule": self.rule.name, "version": self.rule.version, "verdict": self.verdict}
        reason = self.error["message"] if self.error is not None else self.said.reason if self.said is not None else ""
        return told | ({"reason": reason} if reason else {})

    @property
    def verdict(self) -> str:
        """Its word: ``allow``, ``deny``, ``require_approval`` or ``error``."""
        return "error" if self.said is None else VERDICTS[type(self.said)]


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies of one worker process, on its loop. `jitter` draws from [0, 1).

    Attributes:
        rules: By action; one that no policy is asked about is not there.
        published: What the fleet's code declares, and this process may not have loaded.
    """

    rules: Mapping[str, tuple[Rule, ...]]
    published: Published
    writer: Writer
    leases: Leases
    performer: Performer
    jitter: Callable[[], float]

    async def leaves(self, action: str) -> bool:
        """Whether this process takes no job of an action, since it has not loaded a policy that has to be asked.

        Raises:
            OperationalError: If the ledger is away.
        """
        if self.published.lacking(action) is None:
            return False
        if self.published.is_old:  # whoever claims nothing learns nothing by it, and it may have been retired
            self.published.learn(await self.writer.policies())
        return self.published.lacking(action) is not None

    async def review(self, performance: Performance) -> Verdict | None:
        """Let an attempt through, or say what becomes of its job instead.

        Where it rests on approvals, these are named in the performance, for the intent to use up.

        Raises:
            LeaseLost: If the job has another owner by now.
        """
        if performance.attempt.policies != self.published.changed:
            left = partial(self.leases.seconds_left, *performance.attempt.lease)
            self.published.learn(await self.writer.policies(seconds_left=left))
        lacking = self.published.lacking(performance.spec.name)
        if lacking is not None:
            return self._not_loaded(performance, lacking)
        rules = self.rules.get(performance.spec.name)
        if rules is None:
            return None
        judged = []
        for each in rules:
            judged.append(await self._judged(each, performance))
            if reason_of_cut_off() is not None:
                return performance.verdict(State.WAITING, "returned", waiting_for="worker", delay=0.0)
            if judged[-1].verdict == "deny":
                break
        reviewed = await self._reviewed(performance, judged)
        return self._refused(performance, judged, reviewed) or await self._approved(performance, judged, reviewed)

    def _not_loaded(self, performance: Performance, policy: PublishedPolicy) -> Verdict:
        """Leave the job to a process that has loaded the policy; this one claims no more of them."""
        here = self.published.here(policy)
        message = (
            f"{policy.name} (version {policy.version}) has to be asked, and the worker that had the job has {here}"
        )
        return performance.verdict(
            State.WAITING,
            "policy not loaded",
            waiting_for="policy",
            delay=round(NOT_LOADED_SECONDS * (1 + self.jitter()), 3),
            rule=policy.name,
            error={"type": "PolicyNotLoaded", "message": message, "traceback": ""},
        )

    async def _judged(self, rule: Rule, performance: Performance) -> Judged:
        try:
            said = await self._say(rule, _asked(performance))
            if not isinstance(said, (Allow, Deny, RequireApproval)):
                kind = type(said).__name__
                raise InvalidAnswer(f"it returned {kind}, which is not allow(), deny(…) or require_approval(…)")  # noqa: TRY301  as an error of its own
        except BaseException as error:  # noqa: BLE001  it is somebody's code, and whatever it raises lets nothing pass
            described = describe(error)
            log.error("policy.failed", rule=rule.name, version=rule.version, error_type=described["type"])
            return Judged(rule, None, described)
        return Judged(rule, said)

    async def _say(self, rule: Rule, asked: Asked) -> Any:
        if rule.is_data:
            return rule.function(asked)
        work = Work(partial(rule.function, asked), is_async=rule.is_async)
        async with self.performer.room_beside(work):
            return await self.performer.perform(work, {}, seconds=POLICY_SECONDS)

    async def _reviewed(self, performance: Performance, judged: list[Judged]) -> Reviewed:
        attempt = performance.attempt
        notes = [each.note() for each in judged]
        asked = Review(job_id=attempt.job_id, fence=attempt.fence, attempt=attempt.number, notes=notes)
        reviewed = await self.writer.review(asked, seconds_left=partial(self.leases.seconds_left, *attempt.lease))
        if reviewed is None:
            raise LeaseLost(f"job {attempt.job_id} was taken over, or its lease ran out, before its policies had a say")
        return reviewed

    def _refused(self, performance: Performance, judged: list[Judged], reviewed: Reviewed) -> Verdict | None:
        last = judged[-1]
        if isinstance(last.said, Deny):
            message = f"{last.rule.name} (version {last.rule.version}): {last.said.reason}"
            error = {"type": "PolicyDenied", "message": message, "traceback": ""}
            return performance.verdict(State.FAILED, "denied", rule=last.rule.name, error=error)
        unasked = next((each for each in judged if each.said is None), None)
        if unasked is not None:
            return self._held(performance, "policy failed", rule=unasked.rule.name, error=unasked.error)
        if reviewed.params != performance.attempt.params:
            return performance.verdict(State.WAITING, "request changed", waiting_for="policy", delay=CHANGED_SECONDS)
        return None

    def _held(self, performance: Performance, why: str, **more: Any) -> Verdict:
        # The fence counts how often the job was claimed.
        seconds = min(LONGEST_HOLD_SECONDS, FIRST_HOLD_SECONDS * 2 ** min(performance.attempt.fence - 1, 16))
        delay = round(seconds * (1 + self.jitter() / 4), 3)
        return performance.verdict(State.WAITING, why, waiting_for="policy", delay=delay, **more)

    async def _approved(self, performance: Performance, judged: list[Judged], reviewed: Reviewed) -> Verdict | None:
        found: list[Approved] = []
        for each in judged:
            if not isinstance(each.said, RequireApproval):
                continue
            approved = _approval_of(each.rule, reviewed)
            if approved is None:
                return await self._ask(performance, each.rule, each.said)
            found.append(approved)
        performance.approvals = tuple(each.id for each in found)
        return None

    async def _ask(self, performance: Performance, rule: Rule, wanted: RequireApproval) -> Verdict:
        if performance.attempt.maybe_happened:  # it is in doubt, and nobody can approve what may be there already
            return performance.verdict(State.AWAITING_APPROVAL, "approval required", rule=rule.name)
        preview, preview_error = await self._preview(performance)
        if reason_of_cut_off() is not None:
            return performance.verdict(State.WAITING, "returned", waiting_for="worker", delay=0.0)
        asks = AskedOfPeople(
            id=new_id(),
            job_id=performance.attempt.job_id,
            rule=rule.name,
            rule_version=rule.version,
            reason=wanted.reason,
            approvers=tuple(wanted.approvers),
            roles=tuple(wanted.roles),
            quorum=wanted.quorum,
            expires_seconds=wanted.expires_in,
            valid_seconds=wanted.valid_for,
            escalate_seconds=wanted.escalate_after,
            escalate_to=tuple(wanted.escalate_to),
            escalate_roles=tuple(wanted.escalate_roles),
            preview=preview,
            preview_error=preview_error,
            effect=str(performance.effect),
            cost=_cost(performance),
        )
        return performance.verdict(State.AWAITING_APPROVAL, "approval required", rule=rule.name, asks=asks)

    async def _preview(self, performance: Performance) -> tuple[str | None, str | None]:
        """Return what the action says that it will change, as JSON text; or why it cannot say."""
        preview = performance.spec.preview
        if preview is None:
            return None, None
        context = replace(performance.context, follow_ups=[], conversation=None)
        arguments = preview.arguments(performance.arguments, context)
        try:
            async with self.performer.room_beside(preview):
                made = await self.performer.perform(preview, arguments, seconds=PREVIEW_SECONDS)
            canonical_json(made, where="preview")
            return json.dumps(made, ensure_ascii=False), None
        except BaseException as error:  # noqa: BLE001  as above; people may still be asked
            described = describe(error)
            log.warning("preview.failed", error_type=described["type"])
            return None, f"{described['type']}: {described['message']}"


def doubts(actions: Mapping[str, ActionSpec], rules: Iterable[Rule]) -> list[str]:
    """Return what will surprise about these policies, in a sentence each: a name that is misspelt guards nothing."""
    return [
        f"policy {rule.name} ({rule.place}) is asked about {rule.pattern!r}, and no action here has such a name"
        for rule in rules
        if not any(rule.matches(name) for name in actions)
    ]


def _cost(performance: Performance) -> str | None:
    """Return what the attempt may cost at most, as JSON text: what is not known is null, which is not nothing."""
    cost = cost_of(performance)
    if cost is None:
        return None
    usd = None if cost.usd is None else f"{cost.usd.normalize():f}"
    return as_json({"usd": usd, "tokens": cost.tokens, "calls": cost.calls})


def _asked(performance: Performance) -> Asked:
    attempt = performance.attempt
    return Asked(
        action=attempt.action,
        version=performance.spec.version,
        params=copy.deepcopy(attempt.params),
        tenant=attempt.tenant,
        user_id=attempt.user_id,
        agent_id=attempt.agent_id,
        request_id=attempt.request_id,
        job_id=attempt.job_id,
        attempt=attempt.number,
        effect=str(performance.effect),
        now=datetime.now(UTC),
    )


def _approval_of(rule: Rule, reviewed: Reviewed) -> Approved | None:
    """Return the approval that answers this version of this rule, for the request as it is; None where none does."""
    return next(
        (
            each
            for each in reversed(reviewed.approved)
            if (each.rule, each.version, each.digest, each.usable) == (rule.name, rule.version, reviewed.digest, True)
        ),
        None,
    )
