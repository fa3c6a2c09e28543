"""How explanations say times, spans and other people's words. Nothing here can repaint a terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from producer.controls import visible
from producer.ledger.states import State

QUOTED_LIMIT = 200
FACTS_LIMIT = 300

Topic = Literal["asked", "gate", "attempt", "effect", "model", "person", "outcome", "wait", "follow_up", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One sentence of an explanation, and what it rests on.

    Attributes:
        topic: What it is about.
        text: The sentence; one line, safe to print.
        at: When that was; None where it is so now.
        seq: Of the event that says so; None where something else of the record does.
        kind: That event's.
        attempt: The attempt that it is about.
        worker: Whose attempt that was.
        fence: Under which.
        facts: What the event says, secrets redacted.
    """

    topic: Topic
    text: str
    at: datetime | None = None
    seq: int | None = None
    kind: str | None = None
    attempt: int | None = None
    worker: str | None = None
    fence: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do next.

    Attributes:
        text: When, or what for.
        command: To be copied; what is in capitals is to be filled in. None where there is none for it.
    """

    text: str
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a job ran, or why it does not.

    Attributes:
        headline: The answer, in one sentence or two.
        lines: How it came to that, in order.
        next_steps: What to do; empty where nothing is to be done.
    """

    job_id: UUID
    action: str
    state: State
    waiting_for: str | None
    request_id: str
    idempotency_key: str
    headline: str
    lines: tuple[Line, ...]
    next_steps: tuple[Step, ...]


def explanation_facts(found: Explanation) -> dict[str, Any]:
    """Return an explanation as plain JSON."""
    return asdict(found)


def safe(text: str) -> str:
    """Write out what is not to be seen of a text, and tabs and line ends, too: a sentence is one line."""
    return visible(text).replace("\t", r"\t").replace("\n", r"\n")


def quoted(value: Any, limit: int = QUOTED_LIMIT) -> str:
    """Return somebody's words in quotation marks: their beginning, on one line."""
    return f"“{brief(value, limit)}”"


def brief(value: Any, limit: int = QUOTED_LIMIT) -> str:
    """Return the beginning of a value, on one line."""
    text = safe(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def as_argument(value: Any) -> str:
    """Return a value as a shell takes it: one word, whatever is in it."""
    return safe(shlex.quote(str(value)))


def span(seconds: float) -> str:
    """Return how long that is, as a person says it."""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:  # noqa: PLR2004  what would be rounded to 1000 ms
        return f"{seconds * 1000:.0f} ms"
    for unit, size in (("days", 86_400 * 2), ("h", 3_600 * 2), ("min", 120)):
        if seconds >= size:
            return f"{seconds / {'days': 86_400, 'h': 3_600, 'min': 60}[unit]:.0f} {unit}"
    return f"{seconds:.1f}".removesuffix(".0") + " s"


def moment(at: datetime) -> str:
    """Return a time, in UTC or wherever the reader's connection is."""
    return f"{at:%Y-%m-%d %H:%M:%S %Z}".rstrip()


def until(at: datetime, now: datetime) -> str:
    """Return a time with how far away it is: ``at 2026-01-02 03:04:05 UTC, in 5 s``."""
    away = (at - now).total_seconds()
    return f"at {moment(at)}, {f'in {span(away)}' if away > 0 else f'{span(-away)} ago'}"


def counted(number: int, noun: str) -> str:
    """Return a number of things: ``1 job``, ``2 jobs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def error_in(facts: Mapping[str, Any]) -> str:
    """Return what went wrong, as a clause: `` with Type: “message”``; empty where nothing is said of it."""
    error = facts.get("error")
    if not isinstance(error, dict):
        return ""
    return f" with {brief(error.get('type', 'an error'))}: {quoted(error.get('message', ''))}"


def plain(kind: str, facts: Mapping[str, Any]) -> str:
    """Return an event that nobody has a sentence for as one all the same."""
    told = "; ".join(f"{brief(name)} {brief(value)}" for name, value in facts.items() if value is not None)
    told = told if len(told) <= FACTS_LIMIT else f"{told[:FACTS_LIMIT]}…"
    return f"{brief(kind).replace('_', ' ').capitalize()}{f': {told}' if told else ''}."
