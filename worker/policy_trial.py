"""``surefoot-worker policy test``: what the policies of this code would have said of jobs that there were.

It reads and writes nothing. What a policy itself asks of the world it asks now, not as it was then.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from tasks import ActionSpec, Asked, Rule
from tasks._rules import Allow, Deny, RequireApproval

BATCH = 1_000
POLICY_SECONDS = 5.0

# By the primary key, the newest first: its ids are time-ordered.
JOBS = text("""
SELECT j.id, j.tenant, j.action, j.action_version, j.state, j.attempt, j.accepted_at, d.user_id, d.agent_id,
  d.request_id, d.params,
  (SELECT json_agg(json_build_object('rule', s.rule, 'verdict', s.verdict)) FROM (
     SELECT DISTINCT ON (e.data ->> 'rule') e.data ->> 'rule' AS rule, e.data ->> 'verdict' AS verdict
     FROM events e WHERE e.job_id = j.id AND e.kind = 'policy' ORDER BY e.data ->> 'rule', e.seq DESC
   ) s) AS said
FROM jobs j JOIN decisions d ON d.job_id = j.id
WHERE j.tenant = :tenant AND j.id < :before AND (CAST(:action AS text) IS NULL OR j.action = :action)
ORDER BY j.id DESC LIMIT :batch
""")
LAST = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What would be said of one job.

    Attributes:
        verdict: The strictest of all: ``error`` above ``deny`` above ``require_approval`` above ``allow``.
        rule: Whose it is; None where no policy has a say.
        reason: In its words.
        was: The strictest that was said when the job was performed; None where no policy had a say then.
    """

    job_id: UUID
    action: str
    state: str
    accepted_at: datetime
    verdict: str
    rule: str | None
    reason: str
    was: str | None


STRICTNESS = ("allow", "require_approval", "deny", "error")


def try_policies(
    engine: Engine,
    actions: Mapping[str, ActionSpec],
    rules: Sequence[Rule],
    *,
    tenant: str,
    since: timedelta,
    action: str | None = None,
    most: int = 100_000,
) -> Iterator[Tried]:
    """Yield what the policies say of a tenant's jobs, the newest first, back to `since`; of others they say nothing.

    Args:
        engine: The ledger; only read.
        actions: By name, for their effect classes.
        rules: In order.
        tenant: Whose jobs.
        since: How far back.
        action: Only this one.
        most: After so many jobs it ends.
    """
    until, before, seen = datetime.now(UTC) - since, LAST, 0
    while seen < most:
        with engine.connect() as connection:
            asked = {"tenant": tenant, "before": before, "action": action, "batch": min(BATCH, most - seen)}
            rows = connection.execute(JOBS, asked).all()
        for row in rows:
            if row.accepted_at < until:
                return
            matching = [rule for rule in rules if rule.matches(row.action)]
            if matching:
                yield _tried(row, actions.get(row.action), matching)
        if len(rows) < BATCH:
            return
        seen, before = seen + len(rows), rows[-1].id


def counts(tried: Sequence[Tried]) -> Counter[tuple[str, str, str]]:
    """Count by action, what was said, and what would be."""
    return Counter((each.action, each.was or "nothing", each.verdict) for each in tried)


def _tried(row: Any, spec: ActionSpec | None, rules: Sequence[Rule]) -> Tried:
    verdict, chosen, reason = "allow", None, ""
    for rule in rules:
        said, why = _said(rule, _asked(row, spec))
        if chosen is None or STRICTNESS.index(said) > STRICTNESS.index(verdict):
            verdict, chosen, reason = said, rule.name, why
        if said == "deny":  # as in a worker, where no later one is asked
            break
    was = max((each["verdict"] for each in row.said or ()), key=STRICTNESS.index, default=None)
    return Tried(
        job_id=row.id,
        action=row.action,
        state=row.state,
        accepted_at=row.accepted_at,
        verdict=verdict,
        rule=chosen,
        reason=reason,
        was=was,
    )


def _said(rule: Rule, asked: Asked) -> tuple[str, str]:
    try:
        said: Any = rule.function(asked)
        if inspect.isawaitable(said):
            said = asyncio.run(_bounded(said))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "error", f"{type(error).__name__}: {error}"
    match said:
        case Allow():
            return "allow", said.reason
        case Deny():
            return "deny", said.reason
        case RequireApproval():
            return "require_approval", said.reason
    return "error", f"it returned {type(said).__name__}"


async def _bounded(awaitable: Any) -> Any:
    async with asyncio.timeout(POLICY_SECONDS):
        return await awaitable


def _asked(row: Any, spec: ActionSpec | None) -> Asked:
    params = copy.deepcopy(row.params)
    return Asked(
        action=row.action,
        version=row.action_version,
        params=params,
        tenant=row.tenant,
        user_id=row.user_id,
        agent_id=row.agent_id,
        request_id=row.request_id,
        job_id=row.id,
        attempt=1,
        effect=_effect(spec, params),
        now=datetime.now(UTC),
    )


def _effect(spec: ActionSpec | None, params: Mapping[str, Any]) -> str:
    try:
        return "unknown" if spec is None else str(spec.effect_of(params))
    except Exception:  # noqa: BLE001  params of an older version, perhaps
        return "unknown"
