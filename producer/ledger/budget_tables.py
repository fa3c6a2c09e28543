"""The tables of budgets: ceilings, what is spent and reserved of each, and by whom."""

from __future__ import annotations

from sqlalchemy import ARRAY, JSON, CheckConstraint, Column, Index, Integer, Numeric, Table, Text, Uuid, text
from sqlalchemy import BigInteger as Bigint

from producer.ledger.metadata import NOW, Timestamp, metadata

Money = Numeric(18, 9)  # US dollars

budgets = Table(
    "budgets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("per", ARRAY(Text), nullable=False),
    Column("actions", ARRAY(Text)),  # patterns of names; NULL is whatever declares its cost, and every call
    Column("usd", Money),
    Column("tokens", Bigint),
    Column("calls", Bigint),
    Column("on_exhausted", Text, nullable=False),
    Column("only_for", JSON),  # whose jobs alone, as {"tenant": "acme"}
    Column("instead_of", Text),  # the budget in whose place it is for these
    Column("declared_by", Text, nullable=False),
    Column("declared_in", Text),  # the module, where code declares it
    Column("version", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    # An operator's word, which stands above the declared ceilings, all three of them, while set_at is not NULL.
    Column("set_usd", Money),
    Column("set_tokens", Bigint),
    Column("set_calls", Bigint),
    Column("set_at", Timestamp),
    Column("set_by", Text),
    Column("set_why", Text),
    CheckConstraint("on_exhausted IN ('hold', 'refuse')", name="on_exhausted"),
    CheckConstraint("declared_by IN ('code', 'person')", name="declared_by"),
    CheckConstraint("least(usd, tokens, calls, set_usd, set_tokens, set_calls) >= 0", name="ceilings"),
)

# What is spent and reserved of a budget, for each of its keys and, where it is a day's, each day. No foreign key: what
# was spent stays on record when its budget is removed.
budget_accounts = Table(
    "budget_accounts",
    metadata,
    Column("budget", Text, primary_key=True),
    Column("key", Text, primary_key=True),  # canonical JSON, as {"tenant":"acme"}
    Column("day", Text, primary_key=True),  # 2026-11-26, in UTC; empty where the budget is no day's
    Column("tenant", Text),  # whose alone it is; NULL where several share it
    Column("ends_at", Timestamp),
    Column("spent_usd", Money, nullable=False, server_default="0"),
    Column("spent_tokens", Bigint, nullable=False, server_default="0"),
    Column("spent_calls", Bigint, nullable=False, server_default="0"),
    Column("reserved_usd", Money, nullable=False, server_default="0"),
    Column("reserved_tokens", Bigint, nullable=False, server_default="0"),
    Column("reserved_calls", Bigint, nullable=False, server_default="0"),
    Index("budget_accounts_to_prune", "ends_at", postgresql_where=text("ends_at IS NOT NULL")),
)

# What an attempt has reserved, call by call: the fence names the attempt, whose number a hold gives back.
budget_reservations = Table(
    "budget_reservations",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("fence", Bigint, primary_key=True, autoincrement=False),
    Column("call", Integer, primary_key=True, autoincrement=False),
    Column("budget", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("day", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("usd", Money),  # NULL where the budget does not bind the action in money
    Column("tokens", Bigint),
    Column("calls", Bigint, nullable=False),
    Column("reserved_at", Timestamp, nullable=False, server_default=NOW),
    Column("settled_at", Timestamp),
    Index("budget_reservations_open", "budget", "key", "day", postgresql_where=text("settled_at IS NULL")),
    Index("budget_reservations_to_prune", "settled_at", postgresql_where=text("settled_at IS NOT NULL")),
)
