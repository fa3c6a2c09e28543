"""Budgets over HTTP. A tenant sees its own shares; ceilings are the whole installation's, so they take ``admin``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from producer.api.access import Admin, Reader
from producer.api.budget_shapes import BudgetBody, Budgets, BudgetView, CeilingsBody, ResetBody, Shares, ShareView
from producer.api.document import PROBLEMS
from producer.api.problems import Problem
from producer.api.strict import StrictRoute
from producer.budget_words import UNITS

router = APIRouter(prefix="/v1", route_class=StrictRoute, responses=PROBLEMS, tags=["budgets"])


@router.get("/budget-shares")
def budget_shares(
    caller: Reader,
    name: Annotated[str | None, Query(description="Of one budget.")] = None,
    everybody: Annotated[bool, Query(description="Every tenant's; takes the scope admin.")] = False,  # noqa: FBT002
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
) -> Shares:
    """Return how shares stand: spent, reserved, left; of days, today's."""
    if everybody and "admin" not in caller.scopes:
        raise Problem("forbidden", "other tenants' shares take a key with the scope admin", scope="admin")
    found = caller.producer.budgets(name, everybody=everybody, limit=limit)
    return Shares(shares=[ShareView.model_validate(each) for each in found])


@router.get("/budgets")
def budgets(caller: Reader) -> Budgets:
    """List every budget, by name."""
    return Budgets(budgets=[BudgetView.model_validate(each) for each in caller.producer.budgets.list()])


@router.post("/budgets", status_code=201)
def add_budget(body: BudgetBody, caller: Admin) -> BudgetView:
    """Add a budget; every worker keeps it within five seconds."""
    return BudgetView.model_validate(caller.producer.budgets.add(**body.model_dump(), who=caller.who))


@router.get("/budgets/{name}")
def budget(name: str, caller: Reader) -> BudgetView:
    """Return one of them."""
    return BudgetView.model_validate(caller.producer.budgets.get(name))


@router.post("/budgets/{name}/set")
def set_budget(name: str, body: CeilingsBody, caller: Admin) -> BudgetView:
    """Put other ceilings in force, at once; whoever waits for the budget tries anew."""
    given = body.model_dump(include=body.model_fields_set & set(UNITS))
    return BudgetView.model_validate(caller.producer.budgets.set(name, reason=body.reason, who=caller.who, **given))


@router.post("/budgets/{name}/reset")
def reset_budget(name: str, body: ResetBody, caller: Admin) -> BudgetView:
    """Put the declared ceilings in force again."""
    return BudgetView.model_validate(caller.producer.budgets.reset(name, reason=body.reason, who=caller.who))


@router.delete("/budgets/{name}")
def remove_budget(
    name: str, caller: Admin, reason: Annotated[str | None, Query(description="For the record.")] = None
) -> BudgetView:
    """Remove a budget, and return it as it stood; what was spent stays on record."""
    found = caller.producer.budgets.get(name)
    caller.producer.budgets.remove(name, reason=reason, who=caller.who)
    return BudgetView.model_validate(found)
