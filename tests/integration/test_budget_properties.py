"""Whatever attempts reserve, settle, repeat and die of, in any order: nothing is counted twice, nothing is overspent.

Each example has a budget and jobs of its own in one real ledger, and a model of them in plain Python beside.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from producer import Producer
from producer.job import Job
from tests.integration.test_budgets import claimed, intend, intent, money, settle, standing
from tests.integration.test_statements import Hand, expire_leases, writer_of
from worker.attempt import Attempt
from worker.budget_statements import Asking, reserve_calls
from worker.rescue import rescue

CEILING = 10
names = itertools.count(1)

JOBS = st.integers(0, 3)
CENTS = st.integers(0, 600)
STEPS = st.one_of(
    st.tuples(st.just("begin"), JOBS, CENTS),
    st.tuples(st.just("begin_again"), JOBS, CENTS),
    st.tuples(st.just("go_on"), JOBS, CENTS),
    st.tuples(st.just("settle"), JOBS, st.none() | CENTS),
    st.tuples(st.just("settle_again"), JOBS, st.none() | CENTS),
    st.tuples(st.just("crash"), JOBS, CENTS),
    st.tuples(st.just("come_late"), JOBS, st.none() | CENTS),
)


@dataclass(slots=True)
class _Model:
    """A budget, as it ought to be.

    Attributes:
        running: The attempt that has each job, and what it reserved.
        lost: Attempts whose workers died, by job.
        settled: The attempt that ended each job.
        open: What is reserved, by job and fence.
        beyond: What attempts used over what they had reserved.
    """

    engine: Engine
    hand: Hand
    budget: str
    jobs: list[Job]
    running: dict[int, tuple[Attempt, Decimal]] = field(default_factory=dict)
    lost: dict[int, list[Attempt]] = field(default_factory=dict)
    settled: dict[int, Attempt] = field(default_factory=dict)
    open: dict[tuple[int, int], Decimal] = field(default_factory=dict)
    calls: int = 0
    spent: Decimal = Decimal(0)
    beyond: Decimal = Decimal(0)

    def begin(self, job: int, cents: int) -> None:
        """Take the job, unless somebody has it or it ended; and reserve."""
        if job in self.running or job in self.settled:
            return
        (attempt,) = claimed(self.hand, self.jobs[job])
        usd = Decimal(cents) / 100
        answer = self._intend(attempt, usd)
        taken = self.spent + sum(self.open.values())
        assert (answer == "intended") == (taken + usd <= CEILING)
        if answer == "intended":
            self.open[job, attempt.fence] = usd
            self.running[job] = attempt, usd
        else:
            self.crash(job, 0)  # as if its worker died then, which leaves the job for others, too

    def begin_again(self, job: int, _: int) -> None:
        """Repeat an intent that landed."""
        if job in self.running:
            attempt, usd = self.running[job]
            assert self._intend(attempt, usd) == "intended"

    def go_on(self, job: int, cents: int) -> None:
        """Reserve for a further call of an attempt that runs."""
        if job not in self.running:
            return
        attempt, _ = self.running[job]
        usd = Decimal(cents) / 100
        self.calls += 1
        share = replace(money(str(usd), budget=self.budget), call=self.calls)
        asking = Asking(job_id=attempt.job_id, fence=attempt.fence, attempt=attempt.number, reservations=(share,))
        with self.engine.connect() as connection:
            granted = reserve_calls(connection, self.hand.worker, [asking])[attempt.job_id]
        taken = self.spent + sum(self.open.values())
        assert granted == (taken + usd <= CEILING)
        if granted:
            self.open[job, attempt.fence] += usd

    def settle(self, job: int, cents: int | None) -> None:
        """End an attempt."""
        if job in self.running:
            attempt, _ = self.running.pop(job)
            assert settle(self.hand, attempt, self._spend(job, attempt, cents)) == "settled"
            self.settled[job] = attempt

    def settle_again(self, job: int, cents: int | None) -> None:
        """Repeat an outcome that landed, whatever it says this time."""
        if job in self.settled:
            again = None if cents is None else str(Decimal(cents) / 100)
            assert settle(self.hand, self.settled[job], again) == "repeated"

    def crash(self, job: int, _: int) -> None:
        """Have the workers of all jobs that run fall silent, and others take over."""
        del job
        expire_leases(self.engine)
        with self.engine.connect() as connection:
            rescue(connection, worker="rescuer", crash_cap=1_000)
        for number, (attempt, _usd) in self.running.items():
            self.lost.setdefault(number, []).append(attempt)
        self.running.clear()

    def come_late(self, job: int, cents: int | None) -> None:
        """Have one that was lost bring its outcome after all."""
        if self.lost.get(job):
            attempt = self.lost[job].pop()
            assert settle(self.hand, attempt, self._spend(job, attempt, cents)) in ("late", "repeated")

    def check(self, producer: Producer) -> None:
        """Hold the ledger to the model."""
        found = standing(producer, self.budget).usd
        assert Decimal(found.spent) == self.spent
        assert Decimal(found.reserved) == sum(self.open.values())
        assert found.spent + found.reserved <= CEILING + self.beyond
        unknown = sum(
            self.open.get((job, attempt.fence), Decimal(0)) for job, lost in self.lost.items() for attempt in lost
        )
        assert Decimal(found.unknown) == unknown

    def _intend(self, attempt: Attempt, usd: Decimal) -> str:
        return intend(self.hand, intent(attempt, money(str(usd), budget=self.budget)))[0]

    def _spend(self, job: int, attempt: Attempt, cents: int | None) -> str | None:
        reserved = self.open.pop((job, attempt.fence))
        used = reserved if cents is None else Decimal(cents) / 100
        self.spent += used
        self.beyond += max(Decimal(0), used - reserved)
        return None if cents is None else str(used)


@pytest.mark.timeout(300)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=1, max_size=14))
def test_what_is_spent_and_reserved_is_what_happened_and_never_over_the_ceiling_by_more_than_was_not_declared(
    engine: Engine, lone_producer: Producer, steps: list[tuple[str, int, int | None]]
) -> None:
    name = f"budget-{next(names)}"
    lone_producer.budgets.add(name, per=["tenant"], usd=CEILING, reason="for the test")
    requests = [{"action": "test.add", "params": {"a": n, "b": 0}, "idempotency_key": f"{name}-{n}"} for n in range(4)]
    model = _Model(engine, writer_of(engine), name, list(lone_producer.enqueue_many(requests)))
    for step, job, cents in steps:
        getattr(model, step)(job, cents)
        model.check(lone_producer)
