"""The machine: takes steps in any order, and after each holds the ledger to the model and to the laws.

Two workers and a producer write over connections of their own. What a worker was told stays in its hands for the
rest of the example, so that it comes with old fences, twice, and after the job has ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, precondition, rule
from sqlalchemy.engine import Connection

from producer.envelope import Envelope
from tasks import EffectClass
from tests.integration.ledger_model import steps
from tests.integration.ledger_model.clock import set_clock
from tests.integration.ledger_model.hands import Ending, Ticket, Wish, endings, together, wishes
from tests.integration.ledger_model.laws import broken_by_a_row, broken_by_a_step, broken_by_keys
from tests.integration.ledger_model.look import forget, look, put_others_away
from tests.integration.ledger_model.rows import Row
from tests.integration.ledger_model.steps import Step
from tests.integration.ledger_model.worker import LEASE_SECONDS, VERSION, Model
from worker.attempt import Lease

tenants = (f"tenant {number}" for number in itertools.count(1))
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
WORKERS = ("ann", "bob")
PRODUCER, TEST = "producer", "test"
# Within a lease; past a deadline within one; to its end; past it; past the time for which a key is trusted.
STRIDES_SECONDS = (0.5, 10.0, 26.0, 30.0, 31.0, 81.0)
# What of an answer is the same where a statement is repeated. Of two requests in a batch for one key the second may be
# told of the job that stood before, and then of the one that the first has made.
ANSWERED_ALIKE: Mapping[str, Callable[[Any], Any]] = {
    "accept": lambda answers: [answer.outcome for answer in answers],
    "settle": lambda answers: {job_id: answer == "late" for job_id, answer in answers.items()},
    **dict.fromkeys(("intend", "renew", "cancel"), lambda answer: answer),
}

workers = st.sampled_from(WORKERS)


class LedgerMachine(RuleBasedStateMachine):
    """Every rule is one statement, or something that happens to the ledger."""

    requests: Bundle[Envelope] = Bundle("requests")
    tickets: Bundle[Ticket] = Bundle("tickets")

    def __init__(self, connections: Mapping[str, Connection]) -> None:
        """Begin with a tenant of its own, which has no jobs."""
        super().__init__()
        self.connections = connections
        self.tenant = next(tenants)
        self.model = Model(BEGINNING)
        self.seen: dict[UUID, Row] = {}
        self.jobs: dict[UUID, UUID] = {}  # by the request, the job that answers for it
        self.held: dict[tuple[str, Lease], Ticket] = {}
        self.last: tuple[Step, Any] | None = None
        put_others_away(connections[TEST])
        set_clock(connections[TEST], BEGINNING)

    # ---- what is asked -----------------------------------------------------------------------------------------

    @initialize(target=requests, wish=wishes)
    def begin_with_a_job(self, wish: Wish) -> Any:
        return self.accept([wish], rings=True, prepared=True)

    @rule(target=requests, asked=st.lists(wishes, min_size=1, max_size=2), rings=st.booleans(), prepared=st.booleans())
    def accept(self, asked: list[Wish], *, rings: bool, prepared: bool) -> Any:
        envelopes = [wish.envelope(self.tenant, self.model.now) for wish in asked]
        self._accept(envelopes, rings=rings, prepared=prepared)
        return multiple(*envelopes)

    @rule(request=requests, others=st.lists(wishes, max_size=1), prepared=st.booleans())
    def accept_again(self, request: Envelope, others: list[Wish], *, prepared: bool) -> None:
        envelopes = [request, *(wish.envelope(self.tenant, self.model.now) for wish in others)]
        self._accept(envelopes, rings=True, prepared=prepared)

    @rule(request=requests)
    def note_a_replay(self, request: Envelope) -> None:
        self.take(steps.noting_a_replay(self.jobs[request.id]))
        self.last = None  # the one statement that counts how often it is sent

    @rule(request=requests, verdict=st.sampled_from(["cancel", "cancel", "retry", "happened", "abandon"]))
    def speak(self, request: Envelope, verdict: Literal["happened", "retry", "abandon", "cancel"]) -> None:
        """Cancel or resolve: what a person says of a job."""
        job_id = self.jobs[request.id]
        if verdict == "cancel":
            self.take(steps.cancelling(self.tenant, job_id))
        else:
            self.take(steps.resolving(self.tenant, job_id, verdict))

    # ---- what workers do ---------------------------------------------------------------------------------------

    @rule(
        target=tickets,
        worker=workers,
        request=requests,
        others=st.lists(requests, max_size=2),
        version=st.sampled_from([VERSION, VERSION, VERSION, VERSION + 1]),
    )
    def claim(self, worker: str, request: Envelope, others: list[Envelope], version: int) -> Any:
        wanted = {self.jobs[request.id]: version} | {self.jobs[other.id]: VERSION for other in others}
        claimed = self.take(steps.claiming(worker, wanted))
        return multiple(*(self._hold(Ticket(worker, told)) for told in claimed.values()))

    @rule(
        target=tickets,
        worker=workers,
        request=requests,
        effect=st.sampled_from(EffectClass),
        kept=st.sampled_from([0.0, 0.0, 26.0]),
        ending=st.none() | endings,
    )
    def attempt(self, worker: str, request: Envelope, effect: EffectClass, kept: float, ending: Ending | None) -> Any:
        """Claim, intend, and settle, kept before the intent for a while; without an ending the worker is lost."""
        claimed = self.take(steps.claiming(worker, {self.jobs[request.id]: VERSION}))
        held = [self._hold(Ticket(worker, told)) for told in claimed.values()]
        if held and kept:
            self.wait(kept)
        for ticket in held:
            self.intend(ticket, [], effect)
            if ending is not None:
                self.settle(ticket, [], ending)
        return multiple(*held)

    @rule(first=tickets, others=st.lists(tickets, max_size=2), effect=st.sampled_from(EffectClass))
    def intend(self, first: Ticket, others: list[Ticket], effect: EffectClass) -> None:
        batch = together(first, others)
        granted = self.take(steps.intending(first.worker, [ticket.intent(effect) for ticket in batch]))
        for ticket in batch:
            if granted.get(ticket.claimed.job_id) == "intended":
                ticket.intended = True
                ticket.risky = ticket.risky or effect is not EffectClass.PURE

    @rule(first=tickets, others=st.lists(tickets, max_size=2), ending=endings)
    def settle(self, first: Ticket, others: list[Ticket], ending: Ending) -> None:
        settlements = [ticket.settlement(ending) for ticket in together(first, others)]
        self.take(steps.settling(first.worker, settlements, knows=ending.knows))

    @rule(first=tickets, others=st.lists(tickets, max_size=2))
    def renew(self, first: Ticket, others: list[Ticket]) -> None:
        leases = {ticket.lease for ticket in (first, *others) if ticket.worker == first.worker}
        self.take(steps.renewing(first.worker, sorted(leases)))

    @rule(worker=workers, duty=st.sampled_from([steps.looking, steps.expiring, steps.rescuing]))
    def sweep(self, worker: str, duty: Callable[[str], Step]) -> None:
        """Do what every worker does once a second for all jobs."""
        self.take(duty(worker))

    # ---- what happens ------------------------------------------------------------------------------------------

    @rule(worker=workers)
    def fall_silent(self, worker: str) -> None:
        """Nobody renews for longer than a lease, and the other worker notices."""
        self.wait(LEASE_SECONDS + 1)
        self.take(steps.rescuing(worker))

    @rule(seconds=st.sampled_from(STRIDES_SECONDS))
    def wait(self, seconds: float) -> None:
        self.model.now = self.model.later(seconds)
        set_clock(self.connections[TEST], self.model.now)
        self.last = None

    @precondition(lambda self: self.last is not None)
    @rule()
    def repeat(self) -> None:
        """A statement whose answer was lost is sent once more: it answers alike, and changes nothing."""
        assert self.last is not None
        step, answered = self.last
        before = self.seen
        again = self.take(step)
        assert self.seen == before, f"{step.name}, repeated, changes {_differences(before, self.seen)}"
        if (alike := ANSWERED_ALIKE.get(step.name)) is not None:
            assert alike(again) == alike(answered), f"{step.name} answers {answered}, and then {again}"

    @precondition(lambda self: self.model.forgets)
    @rule()
    def crash(self) -> None:
        """Postgres crashes: what had not come to its disk is gone, and those who wrote it do not know."""
        self.model.crash()
        forget(self.connections[TEST], self.model.rows.values())
        self.last, self.seen = None, look(self.connections[TEST], self.tenant)
        assert self.seen == self.model.rows

    # ---- within ------------------------------------------------------------------------------------------------

    def take(self, step: Step) -> Any:
        """Take a step; return its answer, which is the model's, as is what is in the ledger after it."""
        foreseen = step.foresee(self.model)
        answered = step.take(self.connections[step.by])
        assert answered == foreseen, f"{step.name} answers {answered}, and not {foreseen}"
        self._check(step)
        self.last = step, answered
        return answered

    def _check(self, step: Step) -> None:
        before, self.seen = self.seen, look(self.connections[TEST], self.tenant)
        assert self.seen == self.model.rows, f"{step.name} leaves {_differences(self.model.rows, self.seen)}"
        broken = list(broken_by_keys(self.seen.values())) + list(broken_by_a_step(before, self.seen))
        for row in self.seen.values():
            broken += broken_by_a_row(row, touched=self.model.rows[row.id].touched)
        assert not broken, f"{step.name}: {broken}"

    def _accept(self, envelopes: Sequence[Envelope], *, rings: bool, prepared: bool) -> None:
        answers = self.take(steps.accepting(envelopes, rings=rings, prepared=prepared))
        self.jobs |= {envelope.id: answer.job_id for envelope, answer in zip(envelopes, answers, strict=True)}

    def _hold(self, ticket: Ticket) -> Ticket:
        """Return what the worker has of this lease already, where it was given anew to the same one."""
        return self.held.setdefault((ticket.worker, ticket.lease), ticket)


def _differences(expected: Mapping[UUID, Row], found: Mapping[UUID, Row]) -> str:
    """Name what is not as it should be, for whoever reads a counterexample."""
    lines = [f"jobs {found.keys() ^ expected.keys()}"] if found.keys() != expected.keys() else []
    for job_id in found.keys() & expected.keys():
        for name in (field.name for field in fields(Row) if field.compare):
            is_, should = getattr(found[job_id], name), getattr(expected[job_id], name)
            if is_ != should:
                lines.append(f"{name}: {is_!r}, and not {should!r}")
    return "; ".join(lines)


def over(connections: Mapping[str, Connection]) -> type[LedgerMachine]:
    """Return the machine that writes over these connections, named by who writes."""

    class Machine(LedgerMachine):
        def __init__(self) -> None:
            super().__init__(connections)

    return Machine
