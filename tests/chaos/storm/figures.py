"""A storm's figures, each beside what it is to be. Pure: they are made from the folder's samples, faults and ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from producer.ledger.states import State
from tests.chaos.evidence import Evidence, Fault
from tests.chaos.storm.sizes import Size

FILE = "figures.json"
# Why a job is in doubt whose deadline came before its answer: as a worker says it, and as the relay does.
CUT_OFF = ("no time before the deadline", "deadline passed")
# So long after a fault it may be called quiet again, though some leases have still to run out.
RECOVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        value: None where nothing could be measured.
        unit: ``s``, ``jobs/s``, or "" for what is counted and for shares.
        target: In words, ``≤ 120``; None where it is none.
        held: Whether it is as it is to be; None without a target.
    """

    value: float | None
    unit: str = ""
    target: str | None = None
    held: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """When what went on, UTC seconds: the calm that is compared with, the storm, and when all was at rest, or None."""

    calm_began: float
    storm_began: float
    last_fault: float
    rest: float | None
    load_ended: float


def figures_of(
    evidence: Evidence, samples: Sequence[Mapping[str, Any]], phases: Phases, *, size: Size, stuck: int
) -> dict[str, Figure]:
    """Return every figure by its name.

    Args:
        evidence: The storm's.
        samples: Its `samples.jsonl`.
        phases: When what went on.
        size: What the storm was to be.
        stuck: How many workers did not end when they were told to.
    """
    jobs = evidence.ledger.second.jobs
    resolved = {event.job_id for event in evidence.ledger.second.events if event.kind == "resolved"}
    doubt = sum(
        job.state == State.IN_DOUBT or job.id in resolved for job in jobs
    )  # what a person has, or had, to decide
    calm = _rate(samples, [(phases.calm_began, phases.storm_began)])
    between = _rate(samples, list(_quiet(evidence.faults, phases)))
    left, baseline = evidence.processes, evidence.run.baseline
    leaked = max(0, left.postgres_connections - baseline.postgres_connections)
    leaked += max(0, left.redis_clients - baseline.redis_clients)
    ratio = None if not calm or between is None else round(between / calm, 3)
    drain = None if phases.rest is None else round(max(0.0, phases.rest - phases.last_fault), 1)
    struck = [fault for fault in evidence.faults if fault.kind is not None and fault.phase == "end"]
    seconds = round(evidence.run.ended - evidence.run.began, 1)
    keeps_up = ratio is not None and ratio >= 0.8 if size.judges_speed else None
    return {
        "jobs": _at_least(len(jobs), size.jobs),
        "faults": _at_least(len(struck), size.faults),
        "faults_that_bit": Figure(sum(fault.bit is True for fault in struck)),
        "kinds": Figure(len({fault.kind for fault in struck})),
        "in_doubt": Figure(doubt),
        "in_doubt_share": _at_most(round(doubt / len(jobs), 5) if jobs else None, 0.01),
        "in_doubt_in_calm": _at_most(_doubts_before(evidence, phases.storm_began), 0),
        "calm_throughput": Figure(calm, "jobs/s"),
        "storm_throughput": Figure(_rate(samples, [(phases.storm_began, phases.last_fault)]), "jobs/s"),
        "between_faults_throughput": Figure(between, "jobs/s"),
        "throughput_ratio": Figure(ratio, "", "≥ 0.8", keeps_up),
        "drain_seconds": Figure(drain, "s", "≤ 120", drain is not None and drain <= 120),
        "orphans": _at_most(len(left.processes), 0),
        "leaked_connections": _at_most(leaked, 0),
        "workers_that_did_not_end": _at_most(stuck, 0),
        "seconds": Figure(seconds, "s", f"≤ {size.seconds:,.0f}", seconds <= size.seconds),
    }


def write(folder: Path, figures: Mapping[str, Figure]) -> None:
    """Write `figures.json`."""
    plain = {name: asdict(figure) for name, figure in figures.items()}
    (folder / FILE).write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _at_least(value: float, limit: float) -> Figure:
    return Figure(value, "", f"≥ {limit:,}", value >= limit)


def _at_most(value: float | None, limit: float) -> Figure:
    """Hold a figure to its limit; what could not be measured does not hold."""
    return Figure(value, "", f"≤ {limit:g}" if limit else "0", value is not None and value <= limit)


def _doubts_before(evidence: Evidence, moment: float) -> int:
    """Return how many jobs came into doubt before the first fault, but where their own deadline cut an attempt off.

    That is asked for, and on a machine that does other things half a second is soon over.
    """
    doubts = [e for e in evidence.ledger.second.events if e.kind == State.IN_DOUBT and e.at < moment]
    return len({e.job_id for e in doubts if (e.data or {}).get("why") not in CUT_OFF})


def _quiet(faults: Sequence[Fault], phases: Phases) -> Iterator[tuple[float, float]]:
    """Yield the stretches of the storm in which nothing was broken, and nothing had just been."""
    broken = sorted(
        (float(fault.began or fault.at), fault.at + RECOVERY_SECONDS)
        for fault in faults
        if fault.kind is not None and fault.phase == "end"
    )
    reached = phases.storm_began
    for began, ended in broken:
        if began > reached:
            yield reached, began
        reached = max(reached, ended)
    if phases.load_ended > reached:
        yield reached, phases.load_ended


def _rate(samples: Sequence[Mapping[str, Any]], stretches: Sequence[tuple[float, float]]) -> float | None:
    """Return how many jobs ended in a second, over the samples that lie within the stretches."""
    done = seconds = 0.0
    for earlier, later in pairwise(samples):
        within = any(began <= earlier["at"] and later["at"] <= ended for began, ended in stretches)
        if within and earlier["states"] and later["states"]:
            done += later["done"] - earlier["done"]
            seconds += later["at"] - earlier["at"]
    return round(done / seconds, 2) if seconds else None
