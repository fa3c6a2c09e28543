"""The ledger as a run leaves it: jobs, decisions, events, messages, approvals and budgets, read in one snapshot.

In `ledger.json` a column's value is plain JSON: ids as text, moments as UTC seconds, digests as hexadecimal digits,
decimals as text, JSON columns as what they hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Self
from uuid import UUID

from sqlalchemy import Table

from producer.ledger import tables
from producer.ledger.states import State
from tests.chaos.strict import UnreadableEvidence, decode

FILE = "ledger.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A row: the columns that are judged, by their names, and all of them together.

    Attributes:
        columns: Every column of the row, as it was exported.
    """

    TABLE: ClassVar[Table]

    columns: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, columns: Any, path: str) -> Self:
        """Read a row; raises `UnreadableEvidence` unless it has the table's columns and no other."""
        if not isinstance(columns, dict) or columns.keys() != set(cls.TABLE.columns.keys()):
            odd = sorted(set(cls.TABLE.columns.keys()) ^ (columns.keys() if isinstance(columns, dict) else set()))
            why = f"{path} has not exactly the columns of {cls.TABLE.name}: {', '.join(odd)}"
            raise UnreadableEvidence(FILE, None, why)
        judged = {each.name: columns[each.name] for each in fields(cls) if each.name != "columns"}
        row = decode(cls, judged, file=FILE, path=path)
        object.__setattr__(row, "columns", columns)
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow(_Row):
    """A row of `jobs`."""

    TABLE = tables.jobs

    id: str
    action: str
    idempotency_key: str
    rerun: int
    fingerprint: str
    state: State
    waiting_for: str | None
    accepted_at: float
    due_at: float
    deadline_at: float | None
    attempt: int
    crashes: int
    fence: int
    effect: str | None
    maybe_happened: bool
    lease_owner: str | None
    lease_expires_at: float | None
    cancel_requested_at: float | None
    finished_at: float | None
    replays: int
    last_seq: int
    conversation_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow(_Row):
    """A row of `decisions`."""

    TABLE = tables.decisions

    job_id: str
    parent_job_id: str | None
    action: str
    params: Mapping[str, Any]
    result: Any
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow(_Row):
    """A row of `events`."""

    TABLE = tables.events

    job_id: str
    seq: int
    at: float
    kind: str
    attempt: int | None
    fence: int | None
    worker: str | None
    data: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRow(_Row):
    """A row of `messages`."""

    TABLE = tables.messages

    tenant: str
    conversation_id: str
    seq: int
    role: str
    content: str
    job_id: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRow(_Row):
    """A row of `approvals`."""

    TABLE = tables.approval_tables.approvals

    id: str
    job_id: str
    rule: str
    rule_version: int
    state: str
    decided_at: float | None
    consumed_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationRow(_Row):
    """A row of `budget_reservations`."""

    TABLE = tables.budget_tables.budget_reservations

    job_id: str
    fence: int
    call: int
    budget: str
    key: str
    day: str
    usd: str | None
    tokens: int | None
    calls: int
    settled_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow(_Row):
    """A row of `budget_accounts`."""

    TABLE = tables.budget_tables.budget_accounts

    budget: str
    key: str
    day: str
    spent_usd: str
    spent_tokens: int
    spent_calls: int
    reserved_usd: str
    reserved_tokens: int
    reserved_calls: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """These tables in one repeatable-read transaction, which began `at`."""

    at: float
    jobs: tuple[JobRow, ...]
    decisions: tuple[DecisionRow, ...]
    events: tuple[EventRow, ...]
    messages: tuple[MessageRow, ...]
    approvals: tuple[ApprovalRow, ...]
    reservations: tuple[ReservationRow, ...]
    accounts: tuple[AccountRow, ...]

    @classmethod
    def of(cls, value: Any, path: str) -> Self:
        """Read one of the two snapshots of `ledger.json`; raises `UnreadableEvidence` if it is anything else."""
        raw = decode(_Raw, value, file=FILE, path=path)
        return cls(
            raw.at,
            tuple(JobRow.of(row, f"{path}.jobs[{i}]") for i, row in enumerate(raw.jobs)),
            tuple(DecisionRow.of(row, f"{path}.decisions[{i}]") for i, row in enumerate(raw.decisions)),
            tuple(EventRow.of(row, f"{path}.events[{i}]") for i, row in enumerate(raw.events)),
            tuple(MessageRow.of(row, f"{path}.messages[{i}]") for i, row in enumerate(raw.messages)),
            tuple(ApprovalRow.of(row, f"{path}.approvals[{i}]") for i, row in enumerate(raw.approvals)),
            tuple(ReservationRow.of(row, f"{path}.reservations[{i}]") for i, row in enumerate(raw.reservations)),
            tuple(AccountRow.of(row, f"{path}.accounts[{i}]") for i, row in enumerate(raw.accounts)),
        )

    def plain(self) -> dict[str, Any]:
        """Return what `of` reads."""
        return {"at": self.at, **{name: [row.columns for row in rows] for name, rows in self.rows.items()}}

    @property
    def rows(self) -> Mapping[str, Sequence[_Row]]:
        """Every table's rows, by its name."""
        return {
            "jobs": self.jobs,
            "decisions": self.decisions,
            "events": self.events,
            "messages": self.messages,
            "approvals": self.approvals,
            "reservations": self.reservations,
            "accounts": self.accounts,
        }


@dataclass(frozen=True, slots=True)
class _Raw:
    at: float
    jobs: tuple[Any, ...]
    decisions: tuple[Any, ...]
    events: tuple[Any, ...]
    messages: tuple[Any, ...]
    approvals: tuple[Any, ...]
    reservations: tuple[Any, ...]
    accounts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Two snapshots, taken one after the other once the run had drained: nothing may move between them."""

    first: Snapshot
    second: Snapshot


def exported(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as the driver gives it, as `ledger.json` writes it."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    match value:
        case UUID() | Decimal():
            return str(value)
        case datetime():
            return value.timestamp()
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case _:
            return value
