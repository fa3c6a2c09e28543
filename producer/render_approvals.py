"""Approvals as people read them on a terminal, and as plain JSON for programs. Secrets are redacted in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from producer.budget_words import UNITS
from producer.ledger.approvals import Approval, ApprovalState
from producer.ledger.roles import Grant
from producer.redact import redact
from producer.render import MOMENT, short, whole

STYLES = {
    ApprovalState.PENDING: "yellow",
    ApprovalState.APPROVED: "green",
    ApprovalState.REJECTED: "bold red",
    ApprovalState.EXPIRED: "red",
}


def approval_facts(approval: Approval) -> dict[str, Any]:
    """Return an approval as plain JSON, secrets redacted; the digest is of the request without that."""
    facts = asdict(approval)
    for name in ("params", "input", "reasoning", "preview"):
        facts[name] = redact(facts[name])
    return facts | {"missing": approval.missing}


def grant_facts(grant: Grant) -> dict[str, Any]:
    """Return that somebody has a role, as plain JSON."""
    return asdict(grant)


def approvals(found: Sequence[Approval]) -> RenderableType:
    """Draw a table of approvals, a line each."""
    table = Table(box=None, pad_edge=False)
    for name in ("approval", "state", "action", "who asks", "why", "missing", "until"):
        table.add_column(name, no_wrap=name in ("approval", "state", "until"))
    for each in found:
        table.add_row(
            str(each.id),
            Text(each.state, STYLES.get(each.state, "")),
            Text(short(each.action)),
            Text(short(_asks(each))),
            Text(short(each.reason)),
            str(each.missing),
            f"{each.expires_at:{MOMENT}}",
        )
    return table


def approval(found: Approval) -> RenderableType:
    """Draw one approval: all that somebody has to know who decides it, and what was said."""
    rows = Table.grid(padding=(0, 2))
    for name, told in _facts(found):
        rows.add_row(Text(name, "bold"), told if isinstance(told, Text) else Text(told))
    votes = Table("when", "who", "said", "why", "by way of", box=None, pad_edge=False)
    for vote in found.votes:
        way = vote.via + (f", {vote.address}" if vote.address else "")
        votes.add_row(f"{vote.at:{MOMENT}}", *(Text(short(t)) for t in (vote.by, vote.verdict, vote.reason, way)))
    return Group(rows, Text(), votes) if found.votes else rows


def grants(found: Sequence[Grant]) -> RenderableType:
    """Draw who has which role."""
    table = Table("role", "person", "since", "by", box=None, pad_edge=False)
    for each in found:
        words = (short(each.role), short(each.person), f"{each.granted_at:{MOMENT}}", short(each.granted_by))
        table.add_row(*map(Text, words))
    return table


def _facts(found: Approval) -> list[tuple[str, str | Text]]:
    people = [*found.approvers, *(f"whoever is {role}" for role in found.roles)] or ["anybody else"]
    facts: list[tuple[str, str | Text | None]] = [
        ("approval", str(found.id)),
        ("state", Text(found.state, STYLES.get(found.state, ""))),
        ("decided", _decided(found)),
        ("job", str(found.job_id)),
        ("action", f"{short(found.action)}, version {found.action_version}"),
        ("who asks", short(_asks(found))),
        ("policy", f"{short(found.rule)}, version {found.rule_version}: {short(found.reason)}"),
        ("params", whole(redact(found.params))),
        ("would change", None if found.preview is None else whole(redact(found.preview))),
        ("no preview", None if found.preview_error is None else short(found.preview_error)),
        ("effect", found.effect),
        ("costs at most", _cost(found.cost)),
        ("reasoning", None if found.reasoning is None else whole(str(redact(found.reasoning)))),
        ("may decide", short(", ".join(people))),
        ("missing", f"{found.missing} of {found.quorum}"),
        ("until", f"{found.expires_at:{MOMENT}}"),
        ("digest", found.digest),
    ]
    return [(name, told) for name, told in facts if told is not None]


def _cost(cost: Mapping[str, Any] | None) -> str | None:
    if cost is None:
        return None
    told = [f"{'what nobody knows' if cost.get(unit) is None else cost[unit]} {unit}" for unit in UNITS if unit in cost]
    return ", ".join(told)


def _asks(found: Approval) -> str:
    return ", ".join(each for each in (found.user_id, found.agent_id and f"agent {found.agent_id}") if each) or "?"


def _decided(found: Approval) -> str | None:
    if found.decided_at is None:
        return None
    by = f" by {found.decided_by}" if found.decided_by else ""
    return short(f"{found.decided_at:{MOMENT}}{by}: {found.decided_why}")
