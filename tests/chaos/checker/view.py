"""The evidence by job, by request at the effect server and by call: looked up once, judged many times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from tests.chaos.checker.findings import Finding
from tests.chaos.evidence import ActionFacts, Call, EffectLine, Evidence, Fault
from tests.chaos.ledger_rows import DecisionRow, EventRow, JobRow

KILLS = frozenset({"sigkill", "group_kill"})
STOPS = frozenset({"sigstop"})


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request at the effect server, with all that was done with it."""

    lines: tuple[EffectLine, ...]

    @property
    def first(self) -> EffectLine:
        """The line of its arrival."""
        return self.lines[0]

    def went(self, phase: str) -> bool:
        """Whether this was done with it."""
        return any(line.phase == phase for line in self.lines)

    @property
    def was_answered_with_an_error(self) -> bool:
        """Whether its sender was told that it came to nothing, and it did."""
        answer = next((line for line in self.lines if line.phase == "answered"), None)
        return answer is not None and answer.result_hash is None and not self.went("applied")

    @property
    def where(self) -> tuple[str, ...]:
        """Its lines of evidence."""
        return tuple(f"effects.jsonl:{line.line}" for line in self.lines)


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of a producer: its first line, and its second where there is one."""

    invoke: Call
    end: Call | None

    @property
    def may_be_accepted(self) -> bool:
        """Whether a job may stand for it: not where it was refused."""
        return self.end is None or self.end.op != "fail"


@dataclass(frozen=True, slots=True)
class JobView:
    """All there is about one job."""

    row: JobRow
    facts: ActionFacts | None
    decision: DecisionRow | None
    events: tuple[EventRow, ...]
    arrivals: tuple[Arrival, ...]

    @property
    def requests(self) -> tuple[Arrival, ...]:
        """The requests for its effect, without look-ups."""
        return tuple(arrival for arrival in self.arrivals if not arrival.went("looked_up"))

    @property
    def applied(self) -> tuple[Arrival, ...]:
        """The requests that had the effect."""
        return tuple(arrival for arrival in self.requests if arrival.went("applied"))

    @property
    def effect(self) -> str:
        """The declared effect class; ``unknown`` for an action that the run does not know."""
        return "unknown" if self.facts is None else self.facts.effect


class View:
    """The evidence, indexed."""

    def __init__(self, evidence: Evidence) -> None:
        """Index it; refuses nothing, since what does not fit together is I0's to find."""
        self.evidence = evidence
        self.run = evidence.run
        self.arrivals = _arrivals(evidence.effects)
        self.asked = _asked(evidence.history)
        self.jobs = _jobs(evidence, self.arrivals)
        self._by_key: dict[tuple[str, str], list[JobView]] = {}
        for job in self.jobs.values():
            self._by_key.setdefault((job.row.action, job.row.idempotency_key), []).append(job)
        self._children = Counter(decision.parent_job_id for decision in evidence.ledger.first.decisions)

    def asked_for(self, action: str, key: str) -> tuple[Asked, ...]:
        """Return the calls for a key."""
        return self.asked.get((action, key), ())

    def jobs_of(self, action: str, key: str) -> tuple[JobView, ...]:
        """Return the jobs with a key."""
        return tuple(self._by_key.get((action, key), ()))

    def children_of(self, job_id: str) -> int:
        """Return how many jobs are follow-ups of one."""
        return self._children[job_id]

    def calls(self) -> Iterator[Asked]:
        """Yield every call."""
        for calls in self.asked.values():
            yield from calls

    def kills_and_stops(self) -> Iterator[Fault]:
        """Yield the faults that silence a process."""
        return (each for each in self.evidence.faults if each.phase == "begin" and each.fault in KILLS | STOPS)


def event_name(event: EventRow) -> str:
    """Return how a finding names an event."""
    return f"event {event.seq} ({event.kind})"


def about(invariant: str, job: JobView, expected: str, found: str, *where: str) -> Finding:
    """Return a finding about a job."""
    return Finding(
        invariant=invariant,
        expected=expected,
        found=found,
        job=job.row.id,
        key=job.row.idempotency_key,
        rests_on=where or ("ledger.json jobs",),
    )


def _arrivals(lines: Sequence[EffectLine]) -> tuple[Arrival, ...]:
    in_order = sorted(lines, key=lambda line: (line.arrival, line.line))
    return tuple(Arrival(tuple(group)) for _, group in groupby(in_order, key=lambda line: line.arrival))


def _asked(history: Sequence[Call]) -> Mapping[tuple[str, str], tuple[Asked, ...]]:
    ends = {(call.process, call.call): call for call in history if call.op != "invoke"}
    found: dict[tuple[str, str], list[Asked]] = {}
    for call in history:
        if call.op == "invoke":
            asked = Asked(call, ends.get((call.process, call.call)))
            found.setdefault((call.action, call.key), []).append(asked)
    return {key: tuple(calls) for key, calls in found.items()}


def _jobs(evidence: Evidence, arrivals: Sequence[Arrival]) -> Mapping[str, JobView]:
    ledger = evidence.ledger.first
    decisions = {decision.job_id: decision for decision in ledger.decisions}
    events: dict[str, list[EventRow]] = {}
    for event in sorted(ledger.events, key=lambda event: event.seq):
        events.setdefault(event.job_id, []).append(event)
    requests: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        requests.setdefault(arrival.first.ref, []).append(arrival)
    return {
        row.id: JobView(
            row,
            evidence.run.actions.get(row.action),
            decisions.get(row.id),
            tuple(events.get(row.id, ())),
            tuple(requests.get(row.id, ())),
        )
        for row in ledger.jobs
    }
