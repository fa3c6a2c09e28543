"""What goes in and out of budgets, as types."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import Field

from producer.api.shapes import Sent, Shown
from producer.budget_words import OnExhausted, Per


class CeilingsBody(Sent):
    """Ceilings to put in force: what is not named stays as it is, and null takes one away."""

    reason: str
    usd: str | float | int | None = Field(None, description="US dollars, such as '12.50'.")
    tokens: int | None = Field(None, description="In and out together.")
    calls: int | None = Field(None, description="Attempts, and what they reserve beside.")


class BudgetBody(CeilingsBody):
    """A budget to add."""

    name: str
    per: list[Per] = Field(description="What has a share of its own.")
    actions: list[str] | None = Field(None, description="Names, or patterns such as llm.*; null is all.")
    on_exhausted: OnExhausted = "hold"
    only_for: dict[str, str] | None = Field(None, description="Whose jobs alone: tenant, agent, user; null is all.")
    instead_of: str | None = Field(None, description="The budget in whose place it is for these.")


class ResetBody(Sent):
    """Why the declared ceilings are put in force again."""

    reason: str | None = None


class CeilingsView(Shown):
    """The most that may be spent of each; null is without end."""

    usd: Decimal | None
    tokens: int | None
    calls: int | None


class BudgetView(Shown):
    """A budget as it is declared, with the ceilings in force."""

    name: str
    per: list[Per]
    actions: list[str] | None
    ceilings: CeilingsView
    on_exhausted: OnExhausted
    only_for: dict[str, str] | None
    instead_of: str | None
    version: int
    declared: CeilingsView
    declared_by: Literal["code", "person"]
    declared_in: str | None
    created_at: datetime
    set_at: datetime | None
    set_by: str | None
    set_why: str | None


class Budgets(Shown):
    """All of them, by name."""

    budgets: list[BudgetView]


class MoneyView(Shown):
    """How the money of a share stands, in US dollars."""

    ceiling: Decimal | None
    spent: Decimal
    reserved: Decimal
    unknown: Decimal
    left: Decimal | None


class CountView(Shown):
    """How a share's tokens or calls stand."""

    ceiling: int | None
    spent: int
    reserved: int
    unknown: int
    left: int | None


class ShareView(Shown):
    """How a share of a budget stands; `waiting` are this tenant's jobs that wait for the budget."""

    budget: BudgetView
    key: dict[str, str | None] | None
    day: str | None
    ends_at: datetime | None
    usd: MoneyView
    tokens: CountView
    calls: CountView
    waiting: int


class Shares(Shown):
    """Shares, those first of which most is spent and reserved."""

    shares: list[ShareView]
