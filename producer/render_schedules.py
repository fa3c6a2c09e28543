"""Schedules as people read them on a terminal, and as plain JSON for programs. Secrets are redacted in both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from producer.ledger.schedules import ScheduleRecord
from producer.redact import redact
from producer.render import MOMENT, short


def schedule_facts(record: ScheduleRecord) -> dict[str, Any]:
    """Return a schedule as plain JSON, secrets redacted."""
    facts = asdict(record)
    rule: dict[str, Any] = facts.pop("rule")
    return facts | rule | {name: redact(facts[name]) for name in ("params", "reasoning", "last_error")}


def schedules(records: Iterable[ScheduleRecord]) -> RenderableType:
    """Draw a table of schedules, a line each."""
    table = Table(box=None, pad_edge=False)
    for name in ("name", "action", "due", "next in its zone", "next in UTC", "last tick", "last job", ""):
        table.add_column(name, no_wrap=name in ("next in its zone", "next in UTC", "last tick", "last job"))
    for record in records:
        paused = record.paused_at is not None
        error = short(redact(record.last_error) or "")
        standing = Text.assemble((_pause(record), "yellow"), " " if paused and error else "", (error, "red"))
        table.add_row(
            record.name,
            record.action,
            _due(record),
            "" if paused else _local(record, record.next_tick),
            "" if paused else f"{record.next_tick.astimezone(UTC):{MOMENT}}",
            "" if record.last_tick is None else f"{record.last_tick.astimezone(UTC):{MOMENT}}",
            str(record.last_job_id or ""),
            standing,
        )
    return table


def schedule(record: ScheduleRecord, ticks: Sequence[datetime]) -> RenderableType:
    """Draw one schedule with the ticks ahead of it."""
    rows = Table(box=None, show_header=False, pad_edge=False)
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    code = f"code, {record.declared_in}" if record.declared_in else "code that does not any more"
    facts = {
        "action": record.action,
        "params": redact(record.params),
        "due": _due(record),
        "missed": record.missed,
        "stands": coming(record),
        "reasoning": redact(record.reasoning),
        "request": record.request_id,
        "agent": record.agent_id,
        "user": record.user_id,
        "queue": f"{record.queue or 'as the action has it'}, priority {record.priority}",
        "declared by": code if record.declared_by == "code" else "a person",
        "last tick": record.last_tick and f"{_local(record, record.last_tick)}, job {record.last_job_id}",
        "refused": redact(record.last_error),
    }
    for name, fact in facts.items():
        if fact is not None:
            rows.add_row(name, Text(short(fact)))
    ahead = Table("next in its zone", "in UTC", box=None, pad_edge=False)
    for tick in ticks:
        ahead.add_row(_local(record, tick), f"{tick.astimezone(UTC):{MOMENT}}")
    return Group(Text.assemble(("Schedule ", "bold"), record.name), rows, *([ahead] if ticks else []))


def coming(record: ScheduleRecord) -> str:
    """Say when a schedule is due next, or that it is paused and by whom."""
    utc = f"{record.next_tick.astimezone(UTC):{MOMENT}} UTC"
    there = "" if record.rule.zone == "UTC" else f"{_local(record, record.next_tick)} {record.rule.zone}, "
    return _pause(record) or f"next {there}{utc}"


def _pause(record: ScheduleRecord) -> str:
    if record.paused_at is None:
        return ""
    by = "by a person" if record.paused_by == "person" else "for its code declares it no more"
    return f"paused {by} since {record.paused_at.astimezone(UTC):{MOMENT}} UTC"


def _due(record: ScheduleRecord) -> str:
    rule = record.rule
    return f"every {rule.every} s" if rule.cron is None else f"{rule.cron} {rule.zone}"


def _local(record: ScheduleRecord, tick: datetime) -> str:
    try:
        return f"{tick.astimezone(ZoneInfo(record.rule.zone)):{MOMENT} %z}"
    except (ZoneInfoNotFoundError, OSError):  # added where there are more zones
        return f"no zone {record.rule.zone} here"
