"""I0: the evidence does not contradict itself. What does would prove whatever one likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.view import KILLS, Arrival, View
from tests.chaos.evidence import Call, EffectLine, Fault
from tests.chaos.evidence_folder import LINES

I0 = "I0"
ORDER = ("arrived", "applied", "deduped", "looked_up", "answered", "dropped")
# Of these a request sees one at most: the first for what it did, the second for how it ended.
ONE_OF = ({"applied", "deduped", "looked_up"}, {"answered", "dropped"})


def consistent(view: View, tally: Tally) -> Iterator[Finding]:
    """Find what in the evidence cannot be true.

    A run that was to have faults and had none counts as nothing judged.
    """
    evidence = view.evidence
    tally.judged = len(evidence.history) + len(evidence.effects) + len(evidence.ledger.first.jobs)
    tally.figures["torn lines"] = sum(evidence.torn.values())
    tally.figures["faults"] = sum(fault.phase == "begin" for fault in evidence.faults)
    if view.run.expect_faults and not tally.figures["faults"]:
        tally.judged = 0
    yield from _moments(view)
    yield from _calls(view)
    yield from _arrivals(view)
    yield from _faults(view)
    yield from _actions(view)


def _moments(view: View) -> Iterator[Finding]:
    run, evidence = view.run, view.evidence
    if run.ended < run.began:
        yield Finding(invariant=I0, expected="the run ends after it began", found=f"{run.began} to {run.ended}")
    first, second = evidence.ledger.first.at, evidence.ledger.second.at
    if second < first:
        yield Finding(invariant=I0, expected="the second snapshot is the later one", found=f"{first}, {second}")
    lines: tuple[Call | EffectLine | Fault, ...] = (*evidence.history, *evidence.effects, *evidence.faults)
    for line in lines:
        if not run.began <= line.at <= run.ended:
            expected = f"a moment of the run, {run.began} to {run.ended}"
            where = (f"{LINES[type(line)]}:{line.line}",)
            yield Finding(invariant=I0, expected=expected, found=str(line.at), rests_on=where)


def _calls(view: View) -> Iterator[Finding]:
    calls: dict[tuple[str, int], list[Call]] = {}
    for call in view.evidence.history:
        calls.setdefault((call.process, call.call), []).append(call)
    for (process, number), lines in calls.items():
        ops = [line.op for line in lines]
        same = len({(line.action, line.key) for line in lines}) == 1
        in_time = all(line.at >= lines[0].at for line in lines)
        if ops[0] != "invoke" or len(ops) > 2 or ops.count("invoke") > 1 or not same or not in_time:
            yield Finding(
                invariant=I0,
                expected=f"call {number} of {process} is asked once and then answered once at most",
                found=", ".join(f"{line.op} for {line.action} {line.key}" for line in lines),
                key=lines[0].key,
                rests_on=tuple(f"history.jsonl:{line.line}" for line in lines),
            )


def _arrivals(view: View) -> Iterator[Finding]:
    numbers = [arrival.first.arrival for arrival in view.arrivals]
    if numbers != list(range(1, len(numbers) + 1)):
        missing = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
        yield Finding(invariant=I0, expected="arrivals count from 1 without a gap", found=f"missing: {missing[:5]}")
    for arrival in view.arrivals:
        yield from _arrival(view, arrival)


def _arrival(view: View, arrival: Arrival) -> Iterator[Finding]:
    phases = [line.phase for line in arrival.lines]
    ranks = [ORDER.index(phase) for phase in phases]
    doubled = any(len(group.intersection(phases)) > 1 for group in ONE_OF)
    in_order = ranks == sorted(set(ranks)) and [x.at for x in arrival.lines] == sorted(x.at for x in arrival.lines)
    if phases[0] != "arrived" or doubled or not in_order:
        yield _of(arrival, "a request arrives, is dealt with once, and ends once", ", ".join(phases))
    if len({(x.mode, x.action, x.ref, x.key, x.attempt, x.body_hash, x.token) for x in arrival.lines}) > 1:
        yield _of(arrival, "the lines of a request agree", "they differ")
    first = arrival.first
    facts = view.run.actions.get(first.action)
    if facts is not None and facts.effect != first.mode:
        found = f"{first.action} is {facts.effect} and its request {first.mode}"
        yield _of(arrival, "a request of its action's effect class", found)


def _of(arrival: Arrival, expected: str, found: str) -> Finding:
    first = arrival.first
    return Finding(invariant=I0, expected=expected, found=found, job=first.ref, key=first.key, rests_on=arrival.where)


def _faults(view: View) -> Iterator[Finding]:
    open_faults: Counter[tuple[str, str]] = Counter()
    killed = False
    for fault in view.evidence.faults:
        killed = killed or (fault.phase == "begin" and fault.fault in KILLS)
        open_faults[fault.fault, fault.target] += 1 if fault.phase == "begin" else -1
        if open_faults[fault.fault, fault.target] < 0:
            where = (f"faults.jsonl:{fault.line}",)
            found = f"{fault.fault} of {fault.target} ends and never began"
            yield Finding(invariant=I0, expected="a fault begins before it ends", found=found, rests_on=where)
    if view.evidence.faults and not view.run.expect_faults:
        yield Finding(invariant=I0, expected="a run without faults", found=f"{len(view.evidence.faults)} faults")
    for file in view.evidence.torn:
        if not killed:
            yield Finding(
                invariant=I0,
                expected="only a writer that was killed leaves a line without its end",
                found="a torn line, and nobody was killed",
                rests_on=(file,),
            )


def _actions(view: View) -> Iterator[Finding]:
    evidence = view.evidence
    named = {call.action for call in evidence.history} | {line.action for line in evidence.effects}
    named |= {row.action for row in evidence.ledger.first.jobs}
    for name in sorted(named - view.run.actions.keys()):
        yield Finding(invariant=I0, expected="run.json declares every action", found=f"{name} is not declared")
