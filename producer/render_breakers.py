"""Breakers as people read them on a terminal, and as plain JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from producer.breaker_words import CLOSED, HALF_OPEN, OPEN, Transition
from producer.breakers import BreakerRecord
from producer.render import short

STYLES = {CLOSED: "green", HALF_OPEN: "yellow", OPEN: "bold red"}


def breaker_facts(record: BreakerRecord) -> dict[str, Any]:
    """Return a breaker as plain JSON."""
    return asdict(record)


def transition_facts(transition: Transition) -> dict[str, Any]:
    """Return a transition as plain JSON."""
    return asdict(transition) | {"at": transition.at}


def breakers(records: Sequence[BreakerRecord]) -> RenderableType:
    """Draw a table of breakers, a line each; and one of who asked for patience, where anybody did."""
    table = Table(box=None, pad_edge=False)
    for name in ("breaker", "state", "since", "until", "failures", "held jobs", "why"):
        table.add_column(name, no_wrap=name in ("state", "since", "until"))
    for record in records:
        table.add_row(
            Text(short(record.name)),
            _state(record),
            _clock(record.since),
            _until(record),
            _failures(record),
            _jobs(record.held, record.next_due),
            Text(short(record.reason)),
        )
    holds = [record for record in records if record.hold_until or record.hold_jobs]
    return Group(table, Text(), _holds(holds)) if holds else table


def breaker(record: BreakerRecord, history: Sequence[Transition]) -> RenderableType:
    """Draw one breaker with its latest transitions, the newest first."""
    rows = Table("when", "from", "to", "until", "who", "why", "job", box=None, pad_edge=False)
    for each in history:
        job = "" if each.job_id is None else str(each.job_id)
        facts = (_clock(each.at), each.was, Text(each.becomes, STYLES[each.becomes]), _clock(each.until))
        rows.add_row(*facts, Text(short(each.who)), Text(short(each.reason)), job)
    return Group(breakers([record]), Text(), rows) if history else breakers([record])


def _holds(records: Sequence[BreakerRecord]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("asked for patience", "until", "for another", "waiting jobs", "why"):
        table.add_column(name, no_wrap=name in ("until", "for another"))
    for record in records:
        table.add_row(
            Text(short(record.name)),
            _clock(record.hold_until) or "over",
            "" if record.hold_seconds is None else f"{timedelta(seconds=round(record.hold_seconds))}",
            _jobs(record.hold_jobs, record.hold_next_due),
            Text(short(record.hold_reason)),
        )
    return table


def _state(record: BreakerRecord) -> Text:
    text = Text(record.state, STYLES[record.state])
    return text.append(" (forced)") if record.forced else text


def _until(record: BreakerRecord) -> str:
    if record.forced:
        return _clock(record.forced_until) or "taken back"
    return _clock(record.until)


def _failures(record: BreakerRecord) -> str:
    slow = f", {record.slow} slow" if record.slow else ""
    return f"{record.failed} of {record.calls}{slow}, {record.failures_in_a_row} in a row" if record.calls else "none"


def _jobs(count: int, next_due: datetime | None) -> str:
    return f"{count}, next {_clock(next_due)}" if count else "0"


def _clock(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"
