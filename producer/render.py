"""Jobs and chains as people read them on a terminal, and as plain JSON for programs. Secrets are redacted in both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any
from uuid import UUID

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from producer.as_text import as_span, as_text
from producer.controls import visible as _safe
from producer.conversation import Conversation
from producer.ledger.reads import Event, JobRecord
from producer.ledger.states import State
from producer.redact import redact
from producer.trace import trace_id_of

STYLES = {
    State.SUCCEEDED: "green",
    State.RUNNING: "cyan",
    State.CLAIMED: "cyan",
    State.WAITING: "yellow",
    State.DEGRADED: "yellow",
    State.AWAITING_APPROVAL: "yellow",
    State.IN_DOUBT: "bold red",
    State.DEAD: "bold red",
    State.FAILED: "red",
}
VALUE_WIDTH = 600
MOMENT = "%Y-%m-%d %H:%M:%S"
PIPE_WIDTH = 160


def job_facts(record: JobRecord) -> dict[str, Any]:
    """Return a job as plain JSON, with its trace id, secrets redacted."""
    facts = asdict(record)
    for name in ("input", "params", "result", "fallback", "error", "reasoning"):
        facts[name] = redact(facts[name])
    return facts | {"trace_id": trace_id_of(record.traceparent), "age": round(record.age, 3)}


def event_facts(event: Event) -> dict[str, Any]:
    """Return an event as plain JSON, secrets redacted."""
    return asdict(event) | {"data": redact(event.data)}


def chain(request_id: str, records: Sequence[JobRecord]) -> RenderableType:
    """Draw a request's decisions, one panel each, in the order they were made."""
    cost = sum((r.cost_usd for r in records if r.cost_usd is not None), Decimal(0))
    head = Text.assemble(
        ("Decision chain ", "bold"),
        _safe(request_id),
        f"  {len(records)} decision{'' if len(records) == 1 else 's'}, ${cost:.6f}",
    )
    places = {record.id: f"{number}. {record.action}" for number, record in enumerate(records, 1)}
    return Group(head, *(_decision(number, record, places) for number, record in enumerate(records, 1)))


def job(record: JobRecord, events: Sequence[Event]) -> RenderableType:
    """Draw one job with its history."""
    history = Table("", "when", "event", "try", "worker", "what", box=None, pad_edge=False)
    began = events[0].at if events else record.accepted_at
    for event in events:
        since = f"+{(event.at - began).total_seconds():.3f} s" if event.seq > 1 else f"{event.at:%H:%M:%S.%f}"[:-3]
        what = "; ".join(f"{k} {short(v)}" for k, v in (redact(event.data) or {}).items())
        number = "" if event.attempt is None else str(event.attempt)
        history.add_row(str(event.seq), since, event.kind, number, Text(_safe(event.worker or "")), Text(what))
    return Group(_decision(None, record, {}), _lifecycle(record), history)


def conversation_facts(found: Conversation) -> dict[str, Any]:
    """Return a conversation as plain JSON, secrets redacted."""
    facts = asdict(found)
    for message in facts["messages"]:
        message |= {"content": redact(message["content"]), "tool_calls": redact(message["tool_calls"])}
    return facts


def conversation(found: Conversation) -> RenderableType:
    """Draw a conversation, a row for each message."""
    said = Table("", "when", "role", "tokens", "what", box=None, pad_edge=False)
    for message in found.messages:
        what = [short(redact(message.content))] if message.content or message.tool_calls is None else []
        if message.tool_calls is not None:
            what.append(f"tool calls {short(redact(message.tool_calls))}")
        when = "" if message.at is None else f"{message.at:{MOMENT}}"
        tokens = "" if message.tokens is None else str(message.tokens)
        said.add_row(str(message.seq), when, message.role, tokens, Text("\n".join(what)))
    head = Text.assemble(
        ("Conversation ", "bold"), _safe(found.id), f"  {found.length} message{'' if found.length == 1 else 's'}"
    )
    turns = [] if found.turn_of is None else [f"turn of job {found.turn_of}, {found.turn_state}"]
    turns += [f"waiting job {job_id}" for job_id in found.waiting]
    return Group(head, said, *(Text(line, "yellow") for line in turns))


def jobs(records: Iterable[JobRecord]) -> RenderableType:
    """Draw a table of jobs, a line each."""
    table = Table(box=None, pad_edge=False)
    for name in ("id", "action", "key", "state", "waits for", "tries", "age"):
        table.add_column(name, no_wrap=name in ("id", "state"))
    for record in records:
        waits = "" if record.waiting_for is None else _waits(record, " until", "%H:%M:%S")
        state = Text(record.state, STYLES.get(record.state, ""))
        tries, age = str(record.attempt), as_span(record.age)
        key = Text(_safe(record.idempotency_key))
        table.add_row(str(record.id), record.action, key, state, waits, tries, age)
    return table


def console(*, error: bool = False) -> Console:
    """Return a console as wide as the terminal; wide enough for whole ids where there is none."""
    shown = Console(stderr=error, highlight=False)
    return shown if shown.is_terminal else Console(stderr=error, highlight=False, width=PIPE_WIDTH)


def _decision(number: int | None, record: JobRecord, places: Mapping[UUID, str]) -> RenderableType:
    rows = Table(box=None, show_header=False, pad_edge=False)
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    rows.add_row("time", f"{record.accepted_at:%Y-%m-%d %H:%M:%S.%f}"[:-3])
    parent = record.parent_job_id
    for name, value in (
        ("follows", None if parent is None else places.get(parent, f"job {parent}")),
        ("agent", record.agent_id),
        ("user", record.user_id),
        ("input", redact(record.input)),
        ("reasoning", redact(record.reasoning)),
        ("params", redact(record.params)),
        ("result", redact(record.result)),
        ("degraded", _degraded(record)),
        ("fallback", redact(record.fallback)),
    ):
        if value is not None:
            rows.add_row(name, Text(short(value)))  # Text: what looks like markup is somebody's words
    if record.error is not None:
        error = redact(record.error)
        rows.add_row("error", Text(short(f"{error['type']}: {error['message']}"), "red"))
    rows.add_row("spent", _spent(record))
    title = Text.assemble(
        f"{number}. " if number else "", (record.action, "bold"), "  ", (record.state, STYLES.get(record.state, ""))
    )
    return Panel(rows, title=title, title_align="left", border_style="dim")


def _degraded(record: JobRecord) -> str | None:
    if record.degraded_by is None:
        return None
    since = "a true result came since" if record.state is State.SUCCEEDED else "the fallback stands in for a result"
    return f"{record.degraded_by}: {since}"


def _spent(record: JobRecord) -> str:
    attempts = f"{record.attempt} attempt{'' if record.attempt == 1 else 's'}"
    repairs = f"{record.repairs} repair{'' if record.repairs == 1 else 's'}" if record.repairs else ""
    parts = [attempts, repairs, "" if record.latency_ms is None else f"{record.latency_ms:.0f} ms"]
    if record.tokens_in is not None:
        parts.append(f"{record.tokens_in} + {record.tokens_out} tokens")
        parts.append("cost unknown" if record.cost_usd is None else f"${record.cost_usd:.6f}")
    return ", ".join(part for part in parts if part)


def _lifecycle(record: JobRecord) -> RenderableType:
    rows = Table(box=None, show_header=False, pad_edge=False)
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    derived = " (derived: none was given)" if record.key_derived else ""
    facts = {
        "job": record.id,
        "key": f"{record.idempotency_key}{derived}, asked for again {record.replays} times",
        "request": record.request_id,
        "trace": trace_id_of(record.traceparent),
        "conversation": record.conversation_id,
        "queue": f"{record.queue}, priority {record.priority}",
        "effect": record.effect,
        "waits for": record.waiting_for and _waits(record, ", due", MOMENT),
        "worker": record.lease_owner,
        "crashes": record.crashes or None,
    }
    for name, fact in facts.items():
        if fact is not None:
            rows.add_row(name, Text(_safe(str(fact))))
    return rows


def _waits(record: JobRecord, until: str, moment: str) -> str:
    """Say for what a job waits, and until when, where somebody knows."""
    if record.waiting_for == "conversation":  # due_at is when the relays look again
        return "conversation"
    on = "" if record.waiting_on is None else f" of {_safe(record.waiting_on)}"
    return f"{record.waiting_for}{on}{until} {record.due_at:{moment}}"


def short(value: Any) -> str:
    """Return a value as one line of a terminal: its beginning, and nothing that could repaint it."""
    text = _safe(as_text(value))
    return text if len(text) <= VALUE_WIDTH else f"{text[:VALUE_WIDTH]}… ({len(text):,} characters)"


def whole(value: Any) -> str:
    """Return a value as text, all of it, and nothing that could repaint a terminal: for who has to decide on it."""
    return _safe(as_text(value))
