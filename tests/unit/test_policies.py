"""Policies as they are declared and asked: what cannot work is refused, and who has none pays nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from tasks import Asked, InvalidAction, Said, allow, deny, policy, require_approval, rule
from tasks import _rules as rules
from tasks._rules import Allow, rules_for
from worker.policies import Policies, doubts
from worker.published import Published


@pytest.fixture(autouse=True)
def _rules_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_rules", {})


def asked(**fields: Any) -> Asked:
    given: dict[str, Any] = {"action": "pay.out", "version": 1, "params": {"amount": 5, "to": {"bank": "a"}}}
    given |= {"tenant": "default", "user_id": "ada", "agent_id": None, "request_id": "r", "job_id": UUID(int=1)}
    return Asked(**given | {"attempt": 1, "effect": "keyed", "now": datetime.now(UTC)} | fields)


def said(name: str, **fields: Any) -> Said:
    found: Any = rules.declared_rules()[name].function(asked(**fields))
    return found  # type: ignore[no-any-return]  # a rule's is sync


def test_policies_are_asked_in_the_order_in_which_they_were_declared_for_what_they_match() -> None:
    @policy("pay.*", version=3)
    def second_name(asked: Asked) -> Said:
        return allow(asked.action)

    rule("first", "*", deny("no"))

    @policy("pay.out", name="third")
    async def other(asked: Asked) -> Said:
        return allow(asked.action)

    assert [(each.name, each.version, each.is_async) for each in rules_for("pay.out")] == [
        ("second_name", 3, False),
        ("first", 1, False),
        ("third", 1, True),
    ]
    assert [each.name for each in rules_for("mail.send")] == ["first"]
    assert second_name(asked()) == Allow("pay.out")


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({}, True),
        ({"params.amount": 5}, True),
        ({"params.amount": 6}, False),
        ({"params.amount": {">": 4, "<=": 5}}, True),
        ({"params.amount": {">=": 6}}, False),
        ({"params.to.bank": {"in": ["a", "b"]}}, True),
        ({"params.to.bank": {"not in": ["a"]}}, False),
        ({"user_id": {"like": "a*"}}, True),
        ({"agent_id": None}, True),
        ({"params.nothing": None}, True),
        ({"params.nothing.within": None}, True),
        ({"effect": {"!=": "pure"}, "attempt": {"<": 2}}, True),
    ],
)
def test_a_rule_holds_where_all_that_it_looks_at_is_so(when: dict[str, Any], holds: bool) -> None:  # noqa: FBT001  a row of the table
    rule("r", "pay.*", deny("no"), when=when)
    assert said("r") == (deny("no") if holds else allow())


@pytest.mark.parametrize(
    "when", [{"params.nothing": {">": 4}}, {"params.amount.within": 1}, {"agent_id": {"like": "a*"}}]
)
def test_what_cannot_be_compared_raises_and_does_not_pass(when: dict[str, Any]) -> None:
    rule("r", "pay.*", deny("no"), when=when)
    with pytest.raises(TypeError):
        said("r")


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda: rule("r", "a.*", deny("no"), when={"amount": 1}), "nothing that can be looked at"),
        (lambda: rule("r", "a.*", deny("no"), when={"params.a": {"=>": 1}}), "is compared by '=>'"),
        (lambda: rule("r", "a.*", deny("no"), when={"params.a": {}}), "is compared by nothing"),
        (lambda: rule("r", "a.*", True), "is not deny"),  # type: ignore[arg-type]  # the point
        (lambda: rule("", "a.*", deny("no")), "needs a name"),
        (lambda: rule("r", "", deny("no")), "no pattern of actions"),
        (lambda: rule("r", "a.*", deny("no"), version=0), "must be 1 or more"),
        (lambda: policy("a.*")(lambda: allow("x")), "must take one parameter"),
        (lambda: policy("a.*", name="p")(print), "must take one parameter"),
        (lambda: policy("a.*", name="p")(7), "must be a function"),  # type: ignore[type-var]  # the point
    ],
)
def test_a_declaration_that_cannot_work_is_refused_with_what_is_wrong(declare: Any, words: str) -> None:
    with pytest.raises(InvalidAction, match=words):
        declare()


def test_a_name_stands_for_one_policy() -> None:
    @policy("a.*", name="p")
    def one(asked: Asked) -> Said:
        return allow(asked.action)

    policy("a.*", name="p")(one)  # its module, loaded anew
    with pytest.raises(InvalidAction, match="declared twice"):
        rule("p", "a.*", deny("no"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 2_000}, "reason"),
        ({"approvers": "ben"}, "approvers"),
        ({"approvers": [""]}, "approvers"),
        ({"approvers": ["a\nb"]}, "approvers"),
        ({"roles": [7]}, "roles"),
        ({"quorum": 0}, "quorum"),
        ({"quorum": True}, "quorum"),
        ({"approvers": ["ben", "BEN"], "quorum": 2}, "more than the 1 people"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": float("nan")}, "expires_in"),
        ({"valid_for": "9"}, "valid_for"),
        ({"escalate_to": ["eve"]}, "escalate_after"),
    ],
)
def test_what_nobody_could_ever_approve_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        require_approval(**({"reason": "why"} | fields))


def test_a_refusal_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="reason"):
        deny(" ")


def test_an_action_that_no_policy_matches_costs_no_statement_and_no_thread() -> None:
    nothing: Any = None  # whatever is used of it raises
    policies = Policies({"other.action": ()}, Published(["pay.out"], {}), nothing, nothing, nothing, nothing)
    performance: Any = SimpleNamespace(spec=SimpleNamespace(name="pay.out"), attempt=SimpleNamespace(policies=None))
    assert asyncio.run(policies.leaves("pay.out")) is False
    assert asyncio.run(policies.review(performance)) is None


def test_a_policy_about_actions_that_are_not_there_is_doubted_since_a_misspelt_name_guards_nothing() -> None:
    rule("r", "payment.*", deny("no"))
    rule("s", "pay.*", deny("no"))
    (doubt,) = doubts({"pay.out": None}, rules.declared_rules().values())  # type: ignore[dict-item]  # only names count
    assert "policy r (" in doubt
    assert "'payment.*', and no action here has such a name" in doubt
