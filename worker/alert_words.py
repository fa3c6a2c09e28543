"""What an alert says: what, since when, how many, and what to do next. Pure; secrets are redacted.

Of an error only its type is told: its message may quote what somebody sent. Of params, what a breaker is named by.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from producer.breaker_words import CLOSED, OPEN, Transition
from producer.ledger.states import State
from producer.redact import redact_text

Level = Literal["info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("info", "warning", "error")
IDS_SHOWN = 3
REASONS_SHOWN = 3
REASON_LIMIT = 200
MINUTE, HOUR = 60, 3_600

# What is said of a job that stands so.
BECAME = {
    State.DEAD: "dead",
    State.IN_DOUBT: "in doubt",
    State.FAILED: "failed, its retries exhausted",
    State.DEGRADED: "degraded, its retries exhausted",
    State.EXPIRED: "expired, since nobody decided",
}
LEVEL_OF: dict[State, Level] = {
    State.DEAD: "error",
    State.IN_DOUBT: "error",
    State.FAILED: "warning",
    State.DEGRADED: "warning",
    State.EXPIRED: "error",  # what was asked was told as a warning before, and nobody did anything
}
NEXT = {
    State.DEAD: "{env}surefoot show {id}. With the cause gone: {env}surefoot retry {id} --reason …",
    State.IN_DOUBT: (
        "find out whether it happened, then {env}surefoot resolve {id} --happened RESULT | --retry | --abandon"
        " --reason …"
    ),
    State.FAILED: "{env}surefoot show {id}",
    State.DEGRADED: "{env}surefoot show {id}",
    State.EXPIRED: "{env}surefoot explain {id}. If it is still wanted, it has to be asked for anew",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing to be told.

    Attributes:
        kind: ``breaker``, ``dead``, ``in_doubt``, ``failed``, ``degraded``, ``expired``, ``approval``, ``late``,
            ``no worker``, ``redis``, ``ledger``, ``more`` or ``test``.
        level: The least that a channel must want; a recovery has the level of what it ends.
        recovered: Whether it is good news.
        title: One line.
        body: A few lines.
        keys: What is thereby told, in the words of the memory; kept for a day once a channel took it.
    """

    kind: str
    level: Level
    title: str
    body: str
    keys: tuple[str, ...] = ()
    recovered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubled:
    """A job that somebody has to be told of.

    Attributes:
        round: How often it was begun, so that a job that is retried and dead again is told again.
        at: Since when it stands so.
        why: The rule that decided.
        error_type: What went wrong last; None where nothing did.
    """

    id: UUID
    tenant: str
    action: str
    state: State
    round: int
    at: datetime
    why: str
    error_type: str | None

    @property
    def key(self) -> str:
        """What tells it from everything else that is ever told."""
        return f"job:{self.id}:{self.state}:{self.round}"

    @property
    def group(self) -> tuple[State, str, str]:
        """With which others it is one alert."""
        return self.state, self.tenant, self.action


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Something that waits for people.

    Attributes:
        rule: The policy that asks.
        at: Since when; where it was escalated, since that.
        expires_at: Until when it can be decided.
        escalated: Whether more people are asked by now.
    """

    id: UUID
    job_id: UUID
    tenant: str
    action: str
    rule: str
    at: datetime
    expires_at: datetime
    escalated: bool

    @property
    def key(self) -> str:
        """What tells it from everything else that is ever told."""
        return f"approval:{self.id}:{'escalated' if self.escalated else 'asked'}"

    @property
    def group(self) -> tuple[str, str, bool]:
        """With which others it is one alert."""
        return self.tenant, self.action, self.escalated


def of_approvals(waiting: Sequence[Waits]) -> Alert:
    """Tell of what waits for people, of one group; the first of them is the one that ends soonest."""
    first, count = waiting[0], len(waiting)
    many = f"{count} job{'s' if count > 1 else ''} of {first.action}"
    env = "" if first.tenant == "default" else f"SUREFOOT_TENANT={shlex.quote(first.tenant)} "
    rules = "; ".join(f"{rule}: {n}" for rule, n in Counter(each.rule for each in waiting).most_common(REASONS_SHOWN))
    shown = ", ".join(str(each.job_id) for each in waiting[:IDS_SHOWN])
    more = f" and {count - IDS_SHOWN} more" if count > IDS_SHOWN else ""
    asked = "is escalated: more people may decide now" if first.escalated else "waits for people"
    asked = asked.replace("is ", "are ", 1).replace("waits", "wait", 1) if count > 1 else asked
    return _alert(
        kind="approval",
        level="error" if first.escalated else "warning",
        title=f"{many} {asked.partition(':')[0]}",
        lines=[
            f"{many} {asked}, since {moment(first.at)}, tenant {first.tenant}.",
            f"The first of them can be decided until {moment(first.expires_at)}.",
            f"Policies that ask: {rules}.",
            f"Jobs: {shown}{more}",
            f"Next: {env}surefoot approvals; {env}surefoot approval {first.id}, then approve or reject it.",
        ],
        keys=tuple(each.key for each in waiting),
    )


def of_jobs(jobs: Sequence[Troubled]) -> Alert:
    """Tell of jobs of one group, in the order in which it befell them."""
    first, last = jobs[0], jobs[-1]
    became, count = BECAME[first.state], len(jobs)
    many = f"{count} job{'s' if count > 1 else ''} of {first.action}"
    when = f"at {moment(first.at)}" if count == 1 else f"between {moment(first.at)} and {moment(last.at)}"
    env = "" if first.tenant == "default" else f"SUREFOOT_TENANT={shlex.quote(first.tenant)} "
    reasons = Counter(f"{job.why}{f' ({job.error_type})' if job.error_type else ''}" for job in jobs)
    why = "; ".join(f"{reason}: {n}" if count > 1 else reason for reason, n in reasons.most_common(REASONS_SHOWN))
    shown = ", ".join(str(job.id) for job in jobs[:IDS_SHOWN])
    more = f" and {count - IDS_SHOWN} more" if count > IDS_SHOWN else ""
    look = f"{env}surefoot jobs --state {first.state} --action {shlex.quote(first.action)}"
    return _alert(
        kind=str(first.state),
        level=LEVEL_OF[first.state],
        title=f"{many} {'are' if count > 1 else 'is'} {became}",
        lines=[
            f"{many} became {became} {when}, tenant {first.tenant}.",
            f"Why: {why}.",
            f"Jobs: {shown}{more}",
            f"Next: {look}; {NEXT[first.state].format(env=env, id=first.id)}",
        ],
        keys=tuple(job.key for job in jobs),
    )


def key_of_move(move: Transition) -> str:
    """Return what tells a transition from everything else that is ever told."""
    return f"breaker:{move.name}:{move.epoch}"


def of_breaker(move: Transition) -> Alert:
    """Tell of a transition: that a breaker opened, or closed, is a warning; what is in between is information."""
    until = f" It stays so until {moment(move.until)}." if move.until is not None else ""
    moved = move.was != move.becomes
    said = f"is {move.becomes}" if moved else f"stays {move.becomes}"
    level: Level = "warning" if moved and (CLOSED in (move.becomes, move.was)) else "info"
    name = shlex.quote(move.name)
    job = f", job {move.job_id}" if move.job_id else ""
    what = f"went from {move.was} to {move.becomes}" if moved else said
    by = f"at {moment(move.at)}, by {move.who}{job}: {move.reason[:REASON_LIMIT]}"
    lines = [f"{move.name} {what} {by}.{until}"]
    if move.becomes == OPEN:
        lines.append(f"Next: surefoot breaker {name} shows its history and how many jobs wait; then ask {move.name}.")
    else:
        lines.append(f"Next: nothing. surefoot breaker {name} shows its history.")
    return _alert(
        kind="breaker",
        level=level,
        title=f"breaker {move.name} {said}",
        lines=lines,
        keys=(key_of_move(move),),
        recovered=moved and move.becomes == CLOSED,
    )


def of_late(count: int, since: datetime, now: datetime, *, more: bool) -> Alert:
    """Tell that jobs are due and no worker takes them."""
    many = f"{'more than ' if more else ''}{count} job{'s are' if count > 1 or more else ' is'}"
    return _alert(
        kind="late",
        level="error",
        title=f"jobs are late, the oldest by {span(since, now)}",
        lines=[
            f"{many} due for too long without a worker; the oldest since {moment(since)}.",
            (
                "Next: surefoot jobs --state queued; surefoot-worker check. Are there enough workers, do they know"
                " these actions, and does anything answer slowly?"
            ),
        ],
    )


def of_no_worker(since: datetime, now: datetime) -> Alert:
    """Tell that nobody does anything about what is due."""
    return _alert(
        kind="no worker",
        level="error",
        title=f"no worker is alive, for {span(since, now)}",
        lines=[
            f"Jobs are due, and no worker has looked at them since {moment(since)}. Nothing of it is lost.",
            (
                "Next: look at the workers' supervisor and their last log lines; surefoot-worker check;"
                " surefoot-worker start."
            ),
        ],
    )


def of_redis_away(since: datetime, now: datetime) -> Alert:
    """Tell that the fleet is without Redis."""
    return _alert(
        kind="redis",
        level="error",
        title=f"Redis is away, for {span(since, now)}",
        lines=[
            (
                f"Redis does not answer since {moment(since)}. Jobs are accepted and none is lost, but none is rung,"
                " and each worker process has breakers and limits of its own."
            ),
            "Next: bring Redis back; surefoot-worker check.",
        ],
    )


def of_ledger_away(since: datetime, now: datetime) -> Alert:
    """Tell that Postgres does not answer."""
    return _alert(
        kind="ledger",
        level="error",
        title=f"the ledger is away, for {span(since, now)}",
        lines=[
            f"Postgres does not answer since {moment(since)}: nothing can be accepted or performed.",
            "Next: bring Postgres back; surefoot-worker check.",
        ],
    )


OVER = {
    "late": "no job is late any more",
    "no worker": "a worker is alive again",
    "redis": "Redis is back",
    "ledger": "the ledger is back",
}


def of_recovery(kind: str, since: datetime, now: datetime) -> Alert:
    """Tell that what was told of is over; `kind` is the alert's."""
    return _alert(
        kind=kind,
        level="error",
        title=OVER[kind],
        lines=[f"It had lasted since {moment(since)}, for {span(since, now)}.", "Next: nothing."],
        recovered=True,
    )


def of_more(counts: Counter[str]) -> Alert:
    """Tell how many alerts of each kind were not sent."""
    kinds = ", ".join(f"{kind}: {n}" for kind, n in counts.most_common())
    return _alert(
        kind="more",
        level="error",
        title=f"and {counts.total()} more",
        lines=[
            f"So many alerts were over the hour's limit and not sent. {kinds}.",
            "Next: surefoot jobs --state dead, --state in_doubt; surefoot breakers.",
        ],
    )


def of_test(now: datetime) -> Alert:
    """Say that it gets there."""
    return _alert(
        kind="test", level="error", title="a test", lines=[f"Sent at {moment(now)}: alerts get here.", "Next: nothing."]
    )


def moment(at: datetime) -> str:
    """Return a moment to the second; in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(since: datetime, now: datetime) -> str:
    """Return how long that is, in the unit in which a person would say it."""
    seconds = max(0, round((now - since).total_seconds()))
    if seconds < 2 * MINUTE:
        return f"{seconds} s"
    return f"{seconds // MINUTE} min" if seconds < 2 * HOUR else f"{seconds // HOUR} h"


def _alert(
    *, kind: str, level: Level, title: str, lines: Sequence[str], keys: tuple[str, ...] = (), recovered: bool = False
) -> Alert:
    title, body = redact_text(f"Surefoot: {title}"), redact_text("\n".join(lines))
    return Alert(kind=kind, level=level, title=title, body=body, keys=keys, recovered=recovered)
