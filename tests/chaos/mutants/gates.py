"""Defects in the gates: approvals that are not asked for or not used up, and reservations that are lost or doubled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import text

import worker.policy_statements
import worker.writer
from tests.chaos.agent import Agent
from tests.chaos.mutants.patching import part, put, replaced, rewrite
from worker.budget_statements import SPEND
from worker.policies import Policies


def approval_forgone(_: Agent) -> None:
    """What people have to approve is let through without."""

    async def let_through(*_: Any) -> None:
        return None

    put(Policies, "_approved", let_through)


def approval_not_used_up(_: Agent) -> None:
    """An approval is looked for by the intent that rests on it, and is as good as new after that."""
    used_up = "consumed_at = coalesce(p.consumed_at, clock_timestamp())"
    consume = replaced(worker.policy_statements.CONSUME.text, used_up, "consumed_at = p.consumed_at")
    put(worker.policy_statements, "CONSUME", text(consume))


def reservation_forgotten(_: Agent) -> None:
    """An outcome is written, and what its attempt had reserved stays reserved."""
    settle = part(worker.writer, "settle")

    def settle_alone(connection: Any, owner: str, settlements: Any) -> Any:
        return settle(connection, owner, [replace(each, spent=None) for each in settlements])

    put(worker.writer, "settle_spending", settle_alone)


def spent_twice(_: Agent) -> None:
    """What an attempt had reserved is settled as often as its outcome is brought, which is twice."""
    rewrite(SPEND, r"AND coalesce\(r\.settled_at, '-infinity'\) = '-infinity'", "")
    settle_spending = part(worker.writer, "settle_spending")

    def settle_twice(*args: Any) -> Any:
        settle_spending(*args)
        return settle_spending(*args)

    put(worker.writer, "settle_spending", settle_twice)


DEFECTS: Mapping[str, Callable[[Agent], None]] = {
    each.__name__: each for each in (approval_forgone, approval_not_used_up, reservation_forgotten, spent_twice)
}
