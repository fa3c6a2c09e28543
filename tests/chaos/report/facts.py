"""The report as data, which is what `report.json` holds; the page shows the same and nothing else.

{"verdict": "held" | "broken" | "growing" | "inconclusive", "why": ["…"], "run": {…}, "figures": [{…}], "faults": [{…}],
 "invariants": [{…}], "findings": [{…}], "oddities": ["…"], "growth": {…}, "connections": {…}, "bounds": {…},
 "timeline": {…}}

Moments are seconds since the run began. In the timeline a line is pieces of points, [[[0.0, 12.5], …], …].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tests.chaos.checker.findings import Verdict
from tests.chaos.report import words
from tests.chaos.report.growth import Growth, growths
from tests.chaos.report.inputs import Inputs

SHOWN_FINDINGS = 50
# A run that lasts this long, and in which no worker lived long enough to be judged, says nothing of growth.
LONG_RUN_SECONDS = 900.0
WORKER = "worker"
# With nothing found in n tries, 95 times out of 100 the true share is below 3/n.
RULE_OF_THREE = 3.0

Report = dict[str, Any]


def report_of(inputs: Inputs, verdict: Verdict) -> Report:
    """Return what a run came to."""
    grown = growths(inputs.samples)
    report: Report = {
        "run": _run(inputs),
        "figures": _figures(inputs),
        "faults": _faults(inputs),
        "invariants": _invariants(verdict),
        "findings": [asdict(finding) for finding in verdict.findings[:SHOWN_FINDINGS]],
        "findings_in_all": len(verdict.findings),
        "oddities": [f"{each.at - inputs.evidence.run.began:.1f} s: {each.what}" for each in inputs.oddities],
        "growth": _growth(grown),
        "connections": _connections(inputs),
        "bounds": _bounds(inputs),
    }
    word, why = _verdict(inputs, verdict, grown, report["figures"])
    return {"verdict": word, "why": why, **report}


def _verdict(
    inputs: Inputs, verdict: Verdict, grown: Sequence[Growth], figures: Sequence[Mapping[str, Any]]
) -> tuple[str, list[str]]:
    """Return the verdict in one word, the worst first, and each reason for it."""
    broken = [*_broken(verdict), *_missed(figures)]
    growing = list(_growing(grown))
    unclear = [*_unclear(verdict), *_unjudged(inputs, grown)]
    for word, why in (("broken", broken), ("growing", growing), ("inconclusive", unclear)):
        if why:
            return word, [*broken, *growing, *unclear]
    return "held", []


def _broken(verdict: Verdict) -> Iterator[str]:
    for name, count in Counter(finding.invariant for finding in verdict.findings).items():
        first = next(finding for finding in verdict.findings if finding.invariant == name)
        times = "once" if count == 1 else f"{count} times"
        yield f"{name} was broken {times}. First: expected {first.expected}; found {first.found}."


def _missed(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for figure in figures:
        if figure["held"] is False:
            yield f"{figure['what'].capitalize()}: {figure['value']} {figure['unit']}".rstrip() + (
                f", and it was to be {figure['target']}."
            )


def _growing(grown: Sequence[Growth]) -> Iterator[str]:
    for each in grown:
        if each.is_growing:
            yield (
                f"{each.process} (pid {each.pid}) grew by {_amount(each, each.grew)} of {words.MEASURES[each.measure]}"
                f" in {each.seconds / 60:.1f} minutes after its warm-up, and {_amount(each, each.allowed)} is allowed."
            )


def _unclear(verdict: Verdict) -> Iterator[str]:
    for name in verdict.vacuous:
        if name in words.INVARIANTS:
            yield f"{name} had to be judged, and there was nothing to judge."
        else:
            yield f"Too few were felt: {name}."


def _unjudged(inputs: Inputs, grown: Sequence[Growth]) -> Iterator[str]:
    run = inputs.evidence.run
    judged = any(each.grew is not None and each.process.startswith(WORKER) for each in grown)
    if run.ended - run.began >= LONG_RUN_SECONDS and not judged:
        yield "No worker lived long enough for its growth to be judged."


def _amount(growth: Growth, value: float | None) -> str:
    value = value or 0.0
    return f"{value / 1024:.1f} MiB" if growth.measure == "rss_kib" else f"{value:.0f}"


def _run(inputs: Inputs) -> Report:
    run, plan = inputs.evidence.run, inputs.plan
    return {
        "name": run.name,
        "seed": plan.seed,
        "size": plan.size,
        "command": plan.command,
        "machine": plan.machine,
        "versions": dict(plan.versions),
        "not_here": dict(plan.not_here),
        "began": run.began,
        "seconds": round(run.ended - run.began, 1),
        "jobs": len(inputs.evidence.ledger.second.jobs),
        "faults": sum(fault.kind is not None and fault.phase == "end" for fault in inputs.evidence.faults),
    }


def _figures(inputs: Inputs) -> list[Report]:
    return [{"name": name, "what": words.of_figure(name), **asdict(each)} for name, each in inputs.figures.items()]


def _faults(inputs: Inputs) -> list[Report]:
    """Count each kind: how often it struck, how often it was felt, and how often it had to be."""
    ended = [fault for fault in inputs.evidence.faults if fault.kind is not None and fault.phase == "end"]
    struck = Counter(fault.kind for fault in ended)
    bit = Counter(fault.kind for fault in ended if fault.bit)
    unsure = Counter(fault.kind for fault in ended if fault.bit is None)
    quotas = inputs.evidence.run.quotas
    kinds = [*dict.fromkeys((*quotas, *(str(kind) for kind in struck)))]
    return [
        {
            "kind": kind,
            "what": inputs.plan.kinds.get(kind, ""),
            "struck": struck[kind],
            "bit": bit[kind],
            "unsure": unsure[kind],
            "quota": quotas.get(kind, 0),
            "enough": bit[kind] >= quotas.get(kind, 0),
        }
        for kind in sorted(kinds)
    ]


def _invariants(verdict: Verdict) -> list[Report]:
    broken = Counter(finding.invariant for finding in verdict.findings)
    return [
        {
            "id": name,
            "what": words.INVARIANTS.get(name, name),
            "judged": tally.judged,
            "broken": broken[name],
            "verdict": "broken" if broken[name] else "held" if tally.judged else "nothing to judge",
            "figures": dict(tally.figures),
        }
        for name, tally in verdict.tallies.items()
    ]


def _growth(grown: Sequence[Growth]) -> Report:
    judged = [each for each in grown if each.grew is not None]
    return {
        "watched": len({(each.process, each.pid) for each in grown}),
        "judged": [{**asdict(each), "is_growing": each.is_growing} for each in judged],
        "growing": sum(each.is_growing for each in judged),
    }


def _connections(inputs: Inputs) -> Report:
    left, baseline = inputs.evidence.processes, inputs.evidence.run.baseline
    return {
        "postgres_before": baseline.postgres_connections,
        "postgres_most": max((sum(sample.postgres.values()) for sample in inputs.samples), default=0),
        "postgres_after": left.postgres_connections,
        "redis_before": baseline.redis_clients,
        "redis_most": max((sample.redis_clients for sample in inputs.samples), default=0),
        "redis_after": left.redis_clients,
    }


def _bounds(inputs: Inputs) -> Report:
    """Return below which share a loss or a repeat would have gone unseen, 5 times out of 100."""
    jobs = len(inputs.evidence.ledger.second.jobs)
    return {"per_job_below": RULE_OF_THREE / jobs if jobs else None}
