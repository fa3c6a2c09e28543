"""Follow-ups are sealed by what workers have published, as it is remembered, or as it is by now."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from producer.catalogue import Actions
from producer.envelope import Envelope
from producer.errors import InvalidRequest, UnknownAction
from producer.ledger.reads import PublishedAction
from producer.ring import Ring
from tasks import Context
from tests.loops import on_a_loop
from worker import follow_ups
from worker.follow_ups import FollowUps

JOB = UUID(int=7)
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}


def published(name: str, **policy: Any) -> PublishedAction:
    return PublishedAction(name, 3, "pure", None, "", NUMBER, {}, policy, datetime.now(UTC))


class Ledger:
    """What is published, and how often it was read."""

    def __init__(self, *actions: PublishedAction) -> None:
        self.actions = {action.name: action for action in actions}
        self.reads = 0

    async def read(self) -> Actions:
        self.reads += 1
        return dict(self.actions)


@pytest.fixture
def context() -> Context:
    return Context(
        job_id=JOB,
        action="a.parent",
        tenant="acme",
        attempt=1,
        request_id="r",
        user_id=None,
        agent_id=None,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        deadline=time.monotonic() + 60,
        log=None,
    )


def sealer(rung: list[Ring] | None = None) -> FollowUps:
    rings: list[Ring] = [] if rung is None else rung
    return FollowUps(queue="actions", ring=rings.extend)


@on_a_loop
async def test_a_follow_up_is_its_tenant_s_and_names_its_parent(context: Context) -> None:
    context.enqueue("a.child", {"n": 1})
    (envelope,) = await sealer().seal(context, Ledger(published("a.child")).read)
    assert (envelope.tenant, envelope.parent_job_id, envelope.action_version) == ("acme", JOB, 3)
    assert envelope.queue == "actions"


@on_a_loop
async def test_keys_that_are_not_given_are_numbered_as_the_follow_ups_were_asked_for(context: Context) -> None:
    for key in (None, "own", None):
        context.enqueue("a.child", idempotency_key=key)
    ledger = Ledger(published("a.child"))
    first, again = [await sealer().seal(context, ledger.read) for _ in range(2)]
    assert _keys(first) == _keys(again) == [f"{JOB}:0", "own", f"{JOB}:2"]


@on_a_loop
async def test_what_is_published_is_read_once_for_many(context: Context) -> None:
    ledger, follow = Ledger(published("a.child")), sealer()
    for _ in range(50):
        context.enqueue("a.child")
    for _ in range(5):
        assert len(await follow.seal(context, ledger.read)) == 50
    assert ledger.reads == 1


@on_a_loop
async def test_an_action_that_came_after_the_last_look_is_looked_for_again(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_ups, "ASK_AGAIN_SECONDS", 0.0)
    ledger, follow = Ledger(published("a.child")), sealer()
    context.enqueue("a.child")
    await follow.seal(context, ledger.read)
    ledger.actions["a.new"] = published("a.new")
    context.enqueue("a.new")
    assert [envelope.action for envelope in await follow.seal(context, ledger.read)] == ["a.child", "a.new"]
    assert ledger.reads == 2


@on_a_loop
async def test_an_unknown_action_is_looked_for_at_most_once_a_second(context: Context) -> None:
    ledger, follow = Ledger(published("a.child")), sealer()
    context.enqueue("a.chidl")
    for _ in range(5):
        with pytest.raises(UnknownAction, match=r"did you mean 'a\.child'"):
            await follow.seal(context, ledger.read)
    assert ledger.reads == 1


@on_a_loop
async def test_a_refusal_says_which_follow_up_it_is_about(context: Context) -> None:
    context.enqueue("a.child", {"n": 1})
    context.enqueue("a.child", {"n": "two"})
    with pytest.raises(InvalidRequest) as refused:
        await sealer().seal(context, Ledger(published("a.child")).read)
    assert (refused.value.where, refused.value.index) == ("follow_ups[1].params.n", 1)


@on_a_loop
async def test_follow_ups_that_are_too_large_for_one_statement_are_refused(context: Context) -> None:
    for _ in range(17):
        context.enqueue("a.child", input="x" * (1_000_000))
    with pytest.raises(InvalidRequest, match="16,777,216 characters") as refused:
        await sealer().seal(context, Ledger(published("a.child")).read)
    assert (refused.value.where, refused.value.index) == ("follow_ups[16]", 16)


@on_a_loop
async def test_rings_name_as_many_jobs_at_once_as_their_action_s_workers_take(context: Context) -> None:
    rung: list[Ring] = []
    follow = sealer(rung)
    for action in ("a.child", "a.alone"):
        context.enqueue(action, priority=2)
    sealed = await follow.seal(context, Ledger(published("a.child", ring_size=100), published("a.alone")).read)
    follow.ring(sealed)
    assert [(ring.job_id, ring.together, ring.priority) for ring in rung] == [
        (sealed[0].id, 100, 2),
        (sealed[1].id, 1, 2),
    ]


@on_a_loop
async def test_an_attempt_without_follow_ups_reads_nothing(context: Context) -> None:
    ledger = Ledger()
    assert await sealer().seal(replace(context), ledger.read) == ()
    assert ledger.reads == 0


def _keys(envelopes: tuple[Envelope, ...]) -> list[str]:
    return [envelope.idempotency_key for envelope in envelopes]
