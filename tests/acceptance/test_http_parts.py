"""What is beside `HttpProducer`'s own methods: approvals, breakers, budgets, roles and schedules."""

from __future__ import annotations

import inspect
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest

from producer import (
    AccessRefused,
    ApprovalClosed,
    ApprovalMismatch,
    ApprovalNotFound,
    ApproverRefused,
    HttpProducer,
    JobNotUndoable,
)
from producer.approvals import Approvals
from producer.breakers import Breakers
from producer.budgets import Budgets
from producer.errors import (
    BreakerNotFound,
    BudgetNotFound,
    InvalidBudget,
    InvalidSchedule,
    PolicyNotFound,
    ScheduleExists,
    ScheduleNotFound,
)
from producer.http_approvals import HttpApprovals
from producer.http_budgets import HttpBudgets
from producer.http_operators import HttpBreakers, HttpKeys, HttpPolicies, HttpRoles, HttpSchedules
from producer.keys import Keys
from producer.policies import Policies
from producer.roles import Roles
from producer.schedules import Schedules
from tests.acceptance.asking import publish_policy
from tests.api_process import Api
from tests.houses import House, until

ADD = {"a": 1, "b": 2}
LATER = datetime(2099, 1, 1, tzinfo=UTC)
# What is beside its own methods: over HTTP, and near the ledger.
PARTS = {
    "approvals": (HttpApprovals, Approvals),
    "breakers": (HttpBreakers, Breakers),
    "budgets": (HttpBudgets, Budgets),
    "keys": (HttpKeys, Keys),
    "policies": (HttpPolicies, Policies),
    "roles": (HttpRoles, Roles),
    "schedules": (HttpSchedules, Schedules),
}


@pytest.mark.parametrize(("there", "here"), PARTS.values(), ids=PARTS)
def test_its_parts_have_the_same_methods(there: type, here: type) -> None:
    methods = {name for name, _ in inspect.getmembers(here, inspect.isfunction) if not name.startswith("_")}
    # What a page does that has no key, and what checks keys: it is the console's, and the API's own.
    for name in methods - {"read_token", "use_token", "identify", "active"} | {"__call__"} & set(vars(here)):
        remote, near = (set(inspect.signature(getattr(each, name)).parameters) for each in (there, here))
        assert near - remote <= {"by", "who", "via", "address"}, name  # which the API knows
        assert remote <= near, name


def test_what_waits_for_people_is_decided_over_http(api: Api, house: House, tmp_path: Path) -> None:
    _, bens = house.producer.keys.create("ben", ["read", "approve", "operate"], who="tests")
    _, adas = house.producer.keys.create("ada", ["read", "approve", "enqueue"], who="tests")
    ben, ada = HttpProducer(api.url, key=bens), HttpProducer(api.url, key=adas)
    with closing(ben), closing(ada):
        asked = {"book": str(tmp_path / "book"), "amount": 500.0}
        job = ada.enqueue("gated.pay", asked, user_id="ada", agent_id="bot")
        until(lambda: ben.approvals.of_job(job.id))
        (approval,) = ben.approvals.of_job(job.id)
        assert approval == house.producer.approvals.get(approval.id)
        assert (approval.state, approval.preview) == ("pending", {"account": "ada@example.com", "less": 500.0})
        assert approval in ben.approvals.list()
        assert ben.approvals.digest_of(job.id) == approval.digest
        with pytest.raises(ApproverRefused, match="ada"):
            ada.approvals.approve(approval.id, digest=approval.digest, reason="I want it")
        with pytest.raises(ApprovalMismatch):
            ben.approvals.approve(approval.id, digest="0" * 64, reason="whatever it is")
        decided = ben.approvals.approve(approval.id, digest=approval.digest, reason="agreed on the phone")
        assert [(vote.by, vote.via[:7], vote.reason) for vote in decided.votes] == [
            ("ben", "api key", "agreed on the phone")
        ]
        assert job.get(30) == 1
        with pytest.raises(ApprovalClosed) as closed:
            ben.approvals.reject(approval.id, digest=approval.digest, reason="second thoughts")
        assert (closed.value.state, closed.value.decided_by) == ("approved", "ben")
        with pytest.raises(ApprovalNotFound):
            ben.approvals.get(uuid4())
        with pytest.raises(ApprovalNotFound):
            ben.approvals.get("nonsense")


def test_what_waits_is_edited_or_taken_back_over_http(api: Api, house: House, tmp_path: Path) -> None:
    _, bens = house.producer.keys.create("ben", ["read", "approve", "operate", "enqueue"], who="tests")
    with closing(HttpProducer(api.url, key=bens)) as ben:
        asked = {"book": str(tmp_path / "book"), "amount": 500.0}
        job = ben.enqueue("gated.pay", asked, user_id="ada")
        until(lambda: ben.approvals.of_job(job.id))
        (approval,) = ben.approvals.of_job(job.id)
        new = ben.approvals.edit(approval.id, asked | {"amount": 50.0}, digest=approval.digest, reason="50 will do")
        assert ben.job(new).get(30) == 1
        assert ben.approvals.get(approval.id).superseded_by == new
        other = ben.enqueue("gated.pay", asked | {"amount": 600.0}, user_id="ada")
        until(lambda: ben.approvals.of_job(other.id))
        taken = ben.approvals.withdraw(ben.approvals.of_job(other.id)[0].id, reason="never mind")
        assert (taken.state, other.refresh().state) == ("withdrawn", "cancelled")
        with pytest.raises(AccessRefused):
            ben.approvals.token(approval.id, "approve", person="eve")


def test_what_was_done_is_taken_back_over_http_and_once(remote: HttpProducer, tmp_path: Path) -> None:
    job = remote.enqueue("note.write", {"book": str(tmp_path / "book"), "words": "a"})
    job.get(30)
    undoing = remote.undo(job.id, reason="it was wrong")
    assert (undoing.record.action, undoing.record.parent_job_id) == ("note.strike", job.id)
    assert undoing.get(30) == "struck"
    assert remote.undo(job.id, reason="to be sure").id == undoing.id
    with pytest.raises(JobNotUndoable, match="undo"):
        remote.undo(undoing.id, reason="and back")


def test_budgets_are_seen_by_readers_and_changed_by_admins(api: Api, house: House, remote: HttpProducer) -> None:
    _, key = house.producer.keys.create("ops", ["admin"], who="tests")
    with closing(HttpProducer(api.url, key=key)) as ops:
        with pytest.raises(AccessRefused):
            remote.budgets.add("llm-a-day", per=["tenant", "day"], usd="5", reason="to begin with")
        added = ops.budgets.add(
            "llm-a-day", per=["tenant", "day"], actions=["llm.*"], usd="12.50", tokens=1_000, reason="to begin with"
        )
        assert added == house.producer.budgets.get("llm-a-day") == remote.budgets.get("llm-a-day")
        assert (added.ceilings.usd, added.ceilings.tokens, added.ceilings.calls) == (Decimal("12.50"), 1_000, None)
        changed = ops.budgets.set("llm-a-day", usd=Decimal(20), tokens=None, reason="it is December")
        assert (changed.ceilings.usd, changed.ceilings.tokens) == (Decimal(20), None)
        assert str(changed.set_by).startswith("ops (key ")
        assert list(remote.budgets("llm-a-day")) == list(house.producer.budgets("llm-a-day"))
        assert added.name in {each.name for each in remote.budgets.list()}
        with pytest.raises(AccessRefused):
            remote.budgets(everybody=True)
        with pytest.raises(InvalidBudget) as refused:
            ops.budgets.set("llm-a-day", usd="-1", reason="by mistake")
        assert refused.value.where == "usd"
        assert ops.budgets.reset("llm-a-day").ceilings.usd == Decimal("12.50")
        ops.budgets.remove("llm-a-day", reason="tried out")
        with pytest.raises(BudgetNotFound):
            remote.budgets.get("llm-a-day")
        assert [act.act for act in remote.acts(limit=4)] == [
            "remove budget",
            "reset budget",
            "set budget",
            "add budget",
        ]
        assert remote.acts(limit=2) == house.producer.acts(limit=2)
        assert remote.acts(who="nobody") == remote.acts(since=LATER) == []


def test_schedules_are_the_same_over_http(remote: HttpProducer, house: House) -> None:
    near = house.producer.schedules
    added = remote.schedules.add("over-http", "test.add", ADD, every=timedelta(hours=1), reasoning="it is time")
    assert replace(added, tenant="default") == near.get("over-http")
    assert remote.schedules.add("over-http", "test.add", ADD, every=3_600, reasoning="it is time") == added
    with pytest.raises(ScheduleExists):
        remote.schedules.add("over-http", "test.add", ADD, every=60)
    with pytest.raises(InvalidSchedule):
        remote.schedules.add("never", "test.add", ADD, cron="0 0 30 2 *")
    assert [each.name for each in remote.schedules.list()] == [each.name for each in near.list()]
    assert list(remote.schedules.next_ticks("over-http", 3)) == list(near.next_ticks("over-http", 3))
    assert remote.schedules.pause("over-http", reason="a holiday").paused_by == "person"
    assert house.producer.acts(limit=1)[0].reason == "a holiday"
    assert remote.schedules.resume("over-http").paused_at is None
    assert remote.schedules.remove("over-http").name == "over-http"
    with pytest.raises(ScheduleNotFound):
        remote.schedules.get("over-http")


def test_policies_are_the_same_over_http_and_retired_by_an_admin(api: Api, house: House, remote: HttpProducer) -> None:
    publish_policy(house, "of-last-year", "last.*")
    assert list(remote.policies.list()) == list(house.producer.policies.list()) != []
    with pytest.raises(AccessRefused):
        remote.policies.retire("of-last-year", reason="gone")
    _, key = house.producer.keys.create("ops", ["admin"], who="tests")
    with closing(HttpProducer(api.url, key=key)) as ops:
        ops.policies.retire("of-last-year", reason="gone")
        with pytest.raises(PolicyNotFound, match="there is no policy 'of-last-year' in force"):
            ops.policies.retire("of-last-year", reason="gone")
    assert "of-last-year" not in [each.name for each in house.producer.policies.list()]


def test_breakers_and_roles_are_an_admin_s_over_http(api: Api, house: House, remote: HttpProducer) -> None:
    _, key = house.producer.keys.create("ops", ["admin"], who="tests")
    with pytest.raises(AccessRefused):
        remote.breakers.list()
    with pytest.raises(AccessRefused):
        remote.roles.grant("finance", "ben")
    with closing(HttpProducer(api.url, key=key)) as ops:
        assert ops.breakers.force("patience", "open", reason="maintenance", seconds=60).forced == "open"
        assert ops.breakers.get("patience") == house.producer.breakers.get("patience")
        assert ops.breakers.force("patience", "auto", reason="it is over").forced is None
        assert ops.breakers.history("patience") == house.producer.breakers.history("patience")
        with pytest.raises(BreakerNotFound, match="patience"):
            ops.breakers.get("patient")
        with pytest.raises(BreakerNotFound):
            ops.breakers.force("patient", "open", reason="by mistake")
        ops.roles.grant("desk", "kim")
        assert list(remote.roles.list()) == list(house.producer.roles.list())
        assert [ops.roles.revoke("desk", "kim") for _ in range(2)] == [True, False]
