"""I20: nothing runs that people should have approved and have not. I21: what an attempt reserved is neither lost nor
doubled.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.view import JobView, View, about, event_name
from tests.chaos.ledger_rows import AccountRow, ApprovalRow, ReservationRow

I20, I21 = "I20", "I21"
APPROVALS, ACCOUNTS, RESERVATIONS = "ledger.json approvals", "ledger.json accounts", "ledger.json reservations"
UNITS = ("usd", "tokens", "calls")
# With one of these an attempt has ended by its worker's word, and what it had reserved is settled.
OUTCOMES = frozenset({"succeeded", "degraded", "failed", "dead", "in_doubt", "attempt_failed", "held", "returned"}) | {
    "repair",
    "late_result",
}


def approvals_hold(view: View, tally: Tally) -> Iterator[Finding]:
    """Find attempts that nobody had approved, and approvals that were used not at all, twice, or for another job."""
    asked: dict[str, list[ApprovalRow]] = {}
    for row in view.evidence.ledger.first.approvals:
        asked.setdefault(row.job_id, []).append(row)
    for job in view.jobs.values():
        if job.facts is None or not job.facts.approved:
            continue
        tally.judged += 1
        rows = {row.id: row for row in asked.get(job.row.id, [])}
        yield from _approved_first(job, rows)
        yield from _used_once(job, [*rows.values()])
    tally.figures["approvals"] = sum(map(len, asked.values()))


def _approved_first(job: JobView, rows: Mapping[str, ApprovalRow]) -> Iterator[Finding]:
    """Every attempt rests on approvals of its own job that were given before it."""
    approved = False
    for event in job.events:
        data, name = event.data or {}, event_name(event)
        if event.kind in ("approved", "approval_requested"):
            approved = event.kind == "approved" and data.get("to") == "queued"
        if event.kind != "intended":
            continue
        named = [str(each) for each in data.get("approvals") or ()]
        if not approved or not named:
            yield about(I20, job, "an approval before every attempt", "none" if not approved else "none named", name)
        strange = [each for each in named if each not in rows or rows[each].consumed_at is None]
        if strange:
            yield about(I20, job, "approvals of the job, used up", f"{strange[0]} is none", name, APPROVALS)
    if not any(event.kind == "intended" for event in job.events) and job.requests:
        yield about(I20, job, "no request of a job that nobody approved", "it was asked", *job.requests[0].where)


def _used_once(job: JobView, rows: Sequence[ApprovalRow]) -> Iterator[Finding]:
    began = any(event.kind == "intended" for event in job.events)
    first = min((arrival.first.at for arrival in job.requests), default=None)
    standing = [row for row in rows if row.state != "superseded"]
    for rule, count in Counter(row.rule for row in standing).items():
        if count > 1:
            yield about(I20, job, f"people asked once for {rule}", f"{count} times", APPROVALS)
    used = [row for row in rows if row.consumed_at is not None]
    if began and len(used) != len({row.rule for row in standing}):
        yield about(I20, job, "one approval used up for each policy that asks", f"{len(used)}", APPROVALS)
    if not began and used:
        yield about(I20, job, "no approval used up by a job that has not begun", f"{len(used)}", APPROVALS)
    for row in used:
        late = row.consumed_at is not None and first is not None and row.consumed_at > first
        early = row.decided_at is None or row.consumed_at is None or row.consumed_at < row.decided_at
        if row.state != "approved" or late or early:
            found = f"{row.state}, decided at {row.decided_at}, used up at {row.consumed_at}, asked at {first}"
            yield about(I20, job, "an approval that is given, then used up, and then acted on", found, APPROVALS)


def budgets_hold(view: View, tally: Tally) -> Iterator[Finding]:
    """Find attempts that reserved nothing, reservations lost or settled twice, and shares that do not add up."""
    ledger = view.evidence.ledger.first
    reserved: dict[str, list[ReservationRow]] = {}
    for row in ledger.reservations:
        reserved.setdefault(row.job_id, []).append(row)
    for job in view.jobs.values():
        if job.facts is None or not job.facts.budgeted:
            continue
        tally.judged += 1
        yield from _reserved_once(job, reserved.get(job.row.id, []))
    settled = [
        entry
        for job in view.jobs.values()
        for event in job.events
        if event.kind == "budget_settled"
        for entry in (event.data or {}).get("budgets", ())
    ]
    for account in ledger.accounts:
        tally.judged += 1
        yield from _adds_up(account, ledger.reservations, settled)
    tally.figures["reservations"] = len(ledger.reservations)


def _reserved_once(job: JobView, rows: Sequence[ReservationRow]) -> Iterator[Finding]:
    fences = {event.fence for event in job.events if event.kind == "intended"}
    settled = Counter(event.fence for event in job.events if event.kind == "budget_settled")
    said = Counter(event.fence for event in job.events if event.kind == "budget_reserved")
    ended = {event.fence for event in job.events if event.kind in OUTCOMES} & fences
    for fence in sorted(fences, key=str):
        kept = [row for row in rows if row.fence == fence]
        if said[fence] != 1 or not kept:
            found = f"{said[fence]} on record, {len(kept)} kept"
            yield about(I21, job, f"one reservation for the attempt under fence {fence}", found, RESERVATIONS)
        if settled[fence] > 1:
            found = f"settled {settled[fence]} times"
            yield about(I21, job, f"what was reserved under fence {fence} is settled once", found, "events")
        if fence in ended and settled[fence] == 0:
            yield about(I21, job, f"what was reserved under fence {fence} is settled with its outcome", "it is not")
    for row in rows:
        if row.fence not in fences:
            found = f"one under fence {row.fence}"
            yield about(I21, job, "no reservation without an attempt", found, RESERVATIONS)
        if (row.settled_at is not None) != (settled[row.fence] > 0):
            found = f"settled at {row.settled_at}, {settled[row.fence]} events"
            yield about(I21, job, f"a reservation under fence {row.fence} as its events have it", found, RESERVATIONS)


def _adds_up(
    account: AccountRow, reservations: Sequence[ReservationRow], settled: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    share = (account.budget, account.key, account.day)
    unsettled = [row for row in reservations if (row.budget, row.key, row.day) == share and row.settled_at is None]
    spent = [
        entry
        for entry in settled
        if entry.get("budget") == account.budget and entry.get("key") == json.loads(account.key)
    ]
    for unit in UNITS:
        open_now = sum((Decimal(getattr(row, unit) or 0) for row in unsettled), Decimal(0))
        used = sum((Decimal(entry.get(unit) or 0) for entry in spent), Decimal(0))
        for word, is_so, should in (("reserved", f"reserved_{unit}", open_now), ("spent", f"spent_{unit}", used)):
            stands = Decimal(getattr(account, is_so))
            if stands != should:
                expected = f"{should.normalize():f} {unit} {word} of {account.budget}, as its attempts have it"
                yield Finding(
                    invariant=I21,
                    expected=expected,
                    found=f"{stands.normalize():f}",
                    key=account.key,
                    rests_on=(ACCOUNTS,),
                )
