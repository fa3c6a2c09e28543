"""Budgets in words and numbers: what is declared, what an attempt asks, what it spent, and what too little is."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.budget_words import BudgetRecord, Ceilings, dollars, in_force_for, key_of, make_budget, tenant_of
from producer.errors import InvalidBudget
from tasks import Context, Cost, InvalidAction
from tasks._budgets import make_cost
from tasks._context import Usage
from tasks._outcomes import Failure, InvalidResult, Outcome, Success
from worker.budget_rules import Shortage, reservations, shortage, spent

FACTS = {"action": "llm.chat", "request": "r", "agent": None, "user": "u", "tenant": "acme"}


def record(**fields: Any) -> BudgetRecord:
    ceilings = Ceilings(usd=fields.pop("usd", None), tokens=fields.pop("tokens", None), calls=fields.pop("calls", None))
    given: dict[str, Any] = {
        "name": "b",
        "per": ("tenant", "day"),
        "actions": None,
        "ceilings": ceilings,
        "declared": ceilings,
        "on_exhausted": "hold",
        "declared_by": "code",
        "declared_in": "m",
        "created_at": datetime.now(UTC),
        "set_at": None,
        "set_by": None,
        "set_why": None,
    }
    return BudgetRecord(**given | fields)


@pytest.mark.parametrize(
    ("declared", "where"),
    [
        pytest.param({"name": "Tenant Day"}, "name", id="a name with a space"),
        pytest.param({"per": "month"}, "per", id="per what there is not"),
        pytest.param({"per": 3}, "per", id="per a number"),
        pytest.param({"actions": "llm chat"}, "actions", id="no pattern"),
        pytest.param({"actions": []}, "actions", id="no actions"),
        pytest.param({"usd": None}, "usd", id="no ceiling at all"),
        pytest.param({"usd": "much"}, "usd", id="a word"),
        pytest.param({"usd": -1}, "usd", id="less than nothing"),
        pytest.param({"usd": float("nan")}, "usd", id="NaN"),
        pytest.param({"usd": True}, "usd", id="a truth"),
        pytest.param({"usd": 10**9}, "usd", id="more than there is"),
        pytest.param({"tokens": 1.5}, "tokens", id="half a token"),
        pytest.param({"calls": -1}, "calls", id="fewer calls than none"),
        pytest.param({"on_exhausted": "panic"}, "on_exhausted", id="another policy"),
        pytest.param({"version": 0}, "version", id="version 0"),
        pytest.param({"only_for": {}}, "only_for", id="only for nobody"),
        pytest.param({"only_for": "acme"}, "only_for", id="only for a word"),
        pytest.param({"only_for": {"day": "today"}}, "only_for", id="only for a day"),
        pytest.param({"only_for": {"tenant": ""}}, "only_for", id="only for who has no name"),
        pytest.param({"instead_of": "c"}, "instead_of", id="instead of another, for everybody"),
        pytest.param({"instead_of": "b", "only_for": {"tenant": "a"}}, "instead_of", id="instead of itself"),
        pytest.param({"instead_of": "C D", "only_for": {"tenant": "a"}}, "instead_of", id="instead of no name"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_field(declared: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidBudget) as caught:
        make_budget(**{"name": "b", "per": "tenant", "usd": 1} | declared)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("facts", "kept"),
    [
        ({"tenant": "acme", "agent": "desk"}, ["acme", "desk", "calls"]),
        ({"tenant": "acme", "agent": None}, ["acme", "calls"]),
        ({"tenant": "zeta", "agent": "desk"}, ["general", "calls"]),
        ({"tenant": "zeta", "agent": None}, ["general", "calls"]),
    ],
    ids=["who has both", "its tenant alone", "an agent of that name elsewhere", "everybody else"],
)
def test_a_budget_for_somebody_is_in_the_place_of_the_general_one_for_them_alone(
    facts: dict[str, str | None], kept: list[str]
) -> None:
    budgets = [
        record(name="general", usd=Decimal(50)),
        record(name="acme", usd=Decimal(500), only_for={"tenant": "acme"}, instead_of="general"),
        record(name="desk", usd=Decimal(5), only_for={"tenant": "acme", "agent": "desk"}),
        record(name="calls", calls=3),
    ]
    everything = {"action": "a.b", "request": "r", "user": None} | facts
    assert [each.name for each in in_force_for(budgets, everything)] == kept
    asked = reservations(budgets, everything, Cost(usd="1"))
    assert isinstance(asked, list)
    assert [each.budget for each in asked] == kept


def test_a_budget_is_per_what_it_names_in_one_order() -> None:
    assert make_budget("b", per=("day", "tenant", "day"), usd=0.1).per == ("tenant", "day")
    assert make_budget("b", per=(), usd="0.10").ceilings.usd == Decimal("0.1")


@given(st.decimals(0, 10**6, allow_nan=False, allow_infinity=False))
def test_money_is_never_rounded_down(amount: Decimal) -> None:
    assert 0 <= dollars(amount, "usd") - amount < Decimal("1e-9")


@pytest.mark.parametrize(
    ("per", "key", "tenant"),
    [
        pytest.param(["day"], "{}", None, id="everybody's"),
        pytest.param(["action"], '{"action":"llm.chat"}', None, id="an action's, of every tenant"),
        pytest.param(["tenant", "day"], '{"tenant":"acme"}', "acme", id="a tenant's"),
        pytest.param(["user"], '{"tenant":"acme","user":"u"}', "acme", id="a user's, who is his tenant's"),
        pytest.param(["agent"], '{"agent":null,"tenant":"acme"}', "acme", id="of all that named no agent"),
    ],
)
def test_whose_share_a_job_spends(per: list[Any], key: str, tenant: str | None) -> None:
    assert (key_of(per, FACTS), tenant_of(per, "acme")) == (key, tenant)


def asked(budget: BudgetRecord, cost: Cost | None) -> Any:
    found = reservations([budget], FACTS, cost)
    if isinstance(found, Shortage):
        return found.why
    return [(each.usd, each.tokens, each.calls) for each in found]


@pytest.mark.parametrize(
    ("budget", "cost", "expected"),
    [
        pytest.param(record(usd=1), Cost(usd="0.5"), [(Decimal("0.5"), 0, 1)], id="what it declares"),
        pytest.param(record(usd=1), None, [], id="money of what declares no cost: not its concern"),
        pytest.param(record(calls=1), None, [(None, None, 1)], id="calls of what declares no cost"),
        pytest.param(record(usd=1, actions=("llm.*",)), None, "price unknown", id="it is named and says nothing"),
        pytest.param(record(calls=1, actions=("llm.*",)), None, [(None, None, 1)], id="it is named, and calls count"),
        pytest.param(record(usd=1), Cost(usd=None), "price unknown", id="it has no price"),
        pytest.param(record(tokens=1), Cost(usd=None, tokens=5), [(None, 5, 1)], id="no price under tokens alone"),
        pytest.param(record(tokens=1), Cost(usd=1, tokens=None), "price unknown", id="tokens that nobody knows"),
        pytest.param(record(usd=1), Cost(usd=0, calls=3), [(Decimal(0), 0, 3)], id="nothing, which is known"),
    ],
)
def test_what_an_attempt_asks_of_a_budget(budget: BudgetRecord, cost: Cost | None, expected: Any) -> None:
    assert asked(budget, cost) == expected


NOTHING = Failure(effect="none", advice="retry", after=None, error={})
REFUSED = Failure(effect="refused", advice="refuse", after=None, error={})
UNKNOWN = Failure(effect="unknown", advice="retry", after=None, error={})
USED = Usage(tokens_in=2, tokens_out=3, cost_usd=Decimal("0.5"))


@pytest.mark.parametrize(
    ("outcome", "usage", "expected"),
    [
        pytest.param(None, Usage(), (0, 0, 0, False), id="it was not performed"),
        pytest.param(NOTHING, Usage(), (0, 0, 0, False), id="it never arrived"),
        pytest.param(REFUSED, Usage(), (0, 0, 0, False), id="it was refused"),
        pytest.param(NOTHING, USED, (Decimal("0.5"), 5, None, False), id="it never arrived, after a call that did"),
        pytest.param(Success(1), USED, (Decimal("0.5"), 5, None, False), id="it said what it used"),
        pytest.param(Success(1), Usage(), (None, None, None, False), id="it said nothing: as reserved"),
        pytest.param(Success(1), Usage(tokens_in=1), (None, 1, None, False), id="it has tokens and no price"),
        pytest.param(InvalidResult({}), USED, (Decimal("0.5"), 5, None, False), id="what cannot be used costs, too"),
        pytest.param(UNKNOWN, Usage(), (None, None, None, True), id="nobody knows: as reserved"),
        pytest.param(UNKNOWN, USED, (Decimal("0.5"), 5, None, True), id="nobody knows the rest"),
    ],
)
def test_what_an_attempt_spent(outcome: Outcome | None, usage: Usage, expected: tuple[Any, ...]) -> None:
    found = spent(outcome, usage)
    assert (found.usd, found.tokens, found.calls, found.at_least) == expected


def stands(*, most: int = 10, reserved: int = 0, unknown: int = 0, gone: int = 0, ask: int = 1, **more: Any) -> Any:
    none = {f"{word}_{unit}": 0 for word in ("spent", "reserved", "unknown", "asked") for unit in ("tokens", "calls")}
    money = {"most_usd": most, "spent_usd": gone, "reserved_usd": reserved, "unknown_usd": unknown, "asked_usd": ask}
    exact = {name: Decimal(value) for name, value in money.items()}
    rest = {"name": "b", "key": "{}", "day": None, "ends_in": None, "on_exhausted": "hold"}
    return SimpleNamespace(**none | {"most_tokens": None, "most_calls": None} | exact | rest | more)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(stands(gone=9), None, id="there is room by now"),
        pytest.param(stands(gone=10), ("budget exhausted", False, 3600.0), id="it is spent"),
        pytest.param(stands(gone=10, on_exhausted="refuse"), ("budget exhausted", True, 3600.0), id="spent: refuse"),
        pytest.param(stands(gone=10, ends_in=500), ("budget exhausted", False, 500.0), id="spent, until tomorrow"),
        pytest.param(stands(reserved=10), ("budget reserved", False, 30.0), id="others have reserved it"),
        pytest.param(stands(reserved=10, on_exhausted="refuse"), ("budget reserved", False, 30.0), id="… and may not"),
        pytest.param(stands(reserved=10, unknown=10), ("budget exhausted", False, 3600.0), id="the dead have it"),
        pytest.param(stands(ask=11), ("more than its budget", True, 0.0), id="it never will be enough"),
    ],
)
def test_what_too_little_means(row: Any, expected: Any) -> None:
    found = shortage([row], jitter=0.0)
    assert (None if found is None else (found.why, found.refuses, found.delay)) == expected


def test_of_several_the_one_that_ends_it_goes_before_and_then_the_longest_wait() -> None:
    rows = [stands(reserved=10, name="short"), stands(gone=10, name="long"), stands(gone=0, name="free")]
    found = shortage(rows, jitter=0.0)
    assert found is not None
    assert found.budget == "long"
    found = shortage([*rows, stands(gone=10, on_exhausted="refuse", ends_in=1, name="end")], jitter=0.0)
    assert found is not None
    assert found.budget == "end"


def ask(question: str, n: int = 2) -> int:
    """An action."""
    return len(question) * n


def test_a_cost_is_made_of_the_params_that_it_names() -> None:
    def price(n: int, ctx: Context) -> Cost:
        assert ctx is not None
        return Cost(usd=n)

    hook = make_cost("test.ask", ask, price)
    assert hook is not None
    context: Any = object()
    assert hook.of({"question": "?"}, context).usd == 2
    assert hook.of({"question": "?", "n": 3}, context).usd == 3


def test_what_a_cost_function_returns_must_be_one() -> None:
    hook = make_cost("test.ask", ask, lambda: 3)
    assert hook is not None
    context: Any = object()
    with pytest.raises(InvalidBudget, match="3 is no Cost"):
        hook.of({}, context)


async def _later() -> Cost:
    return Cost(usd=1)


def _of_another(m: int) -> Cost:
    return Cost(usd=m)


@pytest.mark.parametrize(
    ("cost", "says"),
    [
        pytest.param(3, "must be a Cost, or a plain function", id="a number"),
        pytest.param(_later, "must be a Cost, or a plain function", id="a coroutine"),
        pytest.param(_of_another, "'m' is none of the action's parameters", id="another's parameter"),
    ],
)
def test_what_can_be_no_cost_is_refused_when_the_module_is_imported(cost: Any, says: str) -> None:
    with pytest.raises(InvalidAction, match=says):
        make_cost("test.ask", ask, cost)


@pytest.mark.parametrize("wrong", [{"usd": -1}, {"usd": 1, "tokens": -1}, {"usd": 1, "calls": None}, {"usd": "x"}])
def test_a_cost_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidBudget):
        Cost(**wrong)
