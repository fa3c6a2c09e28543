"""A worker's writes: each under its fence, each answered by its own row, each safe to repeat."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from producer import Producer, State
from producer.job import Job
from tests.houses import until
from tests.locks import waiting_for_locks
from worker.attempt import Attempt, Intent, Lease, Settlement
from worker.rescue import rescue
from worker.statements import Granted, Settled, Wanted, claim, intend, renew, settle

LEASE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Hand:
    """Writes as one worker would, statement by statement."""

    engine: Engine
    worker: str
    lease_seconds: float

    def claim(self, action: str, version: int, job_ids: Sequence[UUID]) -> list[Attempt]:
        with self.engine.connect() as connection:
            wanted = [Wanted(action, version, job_id) for job_id in job_ids]
            return claim(connection, self.worker, self.lease_seconds, wanted)

    def intend(self, intents: Sequence[Intent]) -> dict[UUID, Granted]:
        with self.engine.connect() as connection:
            return intend(connection, self.worker, self.lease_seconds, intents)

    def settle(self, settlements: Sequence[Settlement]) -> dict[UUID, Settled]:
        with self.engine.connect() as connection:
            return settle(connection, self.worker, settlements)

    def renew(self, *leases: Lease) -> dict[Lease, bool]:
        with self.engine.connect() as connection:
            return renew(connection, self.worker, self.lease_seconds, leases)


@pytest.fixture
def job(lone_producer: Producer) -> Job:
    return lone_producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="k")


def writer_of(engine: Engine, name: str = "w1", lease_seconds: float = LEASE_SECONDS) -> Hand:
    return Hand(engine, name, lease_seconds)


def claimed(writer: Hand, job: Job) -> Attempt:
    (attempt,) = writer.claim("test.add", 1, [job.id])
    return attempt


def intent(attempt: Attempt, effect: str = "pure", repeat_seconds: float | None = None) -> Intent:
    return Intent(job_id=attempt.job_id, fence=attempt.fence, effect=effect, repeat_seconds=repeat_seconds, data={})


def settlement(attempt: Attempt, becomes: State = State.SUCCEEDED, **fields: Any) -> Settlement:
    given: dict[str, Any] = {"was": State.RUNNING, "kind": str(becomes)} | fields
    return Settlement(job_id=attempt.job_id, fence=attempt.fence, attempt=attempt.number, becomes=becomes, **given)


def expire_leases(engine: Engine) -> None:
    with engine.connect() as connection:
        past = "clock_timestamp() - interval '1 s'"
        connection.execute(text(f"UPDATE jobs SET lease_expires_at = {past} WHERE lease_expires_at IS NOT NULL"))


def take_over(engine: Engine) -> int:
    with engine.connect() as connection:
        return rescue(connection, worker="rescuer", crash_cap=3)


def test_a_job_is_claimed_by_one_of_many(engine: Engine, job: Job) -> None:
    barrier = threading.Barrier(5)

    def race(number: int) -> int:
        barrier.wait()
        return len(writer_of(engine, f"w{number}").claim("test.add", 1, [job.id]))

    with ThreadPoolExecutor(5) as threads:
        assert sum(threads.map(race, range(5))) == 1
    assert job.refresh().state is State.CLAIMED


def test_a_ring_with_another_actions_name_claims_nothing(engine: Engine, job: Job) -> None:
    assert writer_of(engine).claim("test.fail", 1, [job.id]) == []


def test_a_job_of_another_version_is_left_to_a_worker_that_knows_what_its_params_mean(engine: Engine, job: Job) -> None:
    assert writer_of(engine).claim("test.add", 2, [job.id]) == []


def test_a_job_that_is_not_due_is_not_claimed(engine: Engine, job: Job) -> None:
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET due_at = clock_timestamp() + interval '1 h'"))
    assert writer_of(engine).claim("test.add", 1, [job.id]) == []


def test_a_job_past_its_deadline_is_not_claimed(engine: Engine, job: Job) -> None:
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET deadline_at = clock_timestamp() - interval '1 s'"))
    assert writer_of(engine).claim("test.add", 1, [job.id]) == []


def test_an_attempt_is_spent_by_its_intent_and_not_by_its_claim(engine: Engine, job: Job) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    assert job.refresh().record.attempt == 0
    assert writer.intend([intent(attempt)]) == {job.id: "intended"}
    assert job.refresh().record.attempt == 1


def test_an_outcome_lands_with_its_decision_and_its_event(engine: Engine, job: Job) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    writer.intend([intent(attempt)])
    cost = Decimal("0.000000001")
    outcome = settlement(attempt, result={"total": 3}, latency_ms=1.5, tokens_in=2, tokens_out=3, cost_usd=cost)
    assert writer.settle([outcome]) == {job.id: "settled"}
    record = job.refresh().record
    assert (record.state, record.result, record.tokens_in, record.cost_usd) == (State.SUCCEEDED, {"total": 3}, 2, cost)
    assert [event.kind for event in job.events] == ["accepted", "claimed", "intended", "succeeded"]
    assert [event.seq for event in job.events] == [1, 2, 3, 4]


def test_a_result_of_null_is_a_result(engine: Engine, job: Job) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    writer.intend([intent(attempt)])
    assert writer.settle([settlement(attempt, result=None)]) == {job.id: "settled"}
    assert job.refresh().state is State.SUCCEEDED


def test_every_write_may_be_repeated_and_lands_once(engine: Engine, job: Job) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    assert writer.intend([intent(attempt)]) == writer.intend([intent(attempt)]) == {job.id: "intended"}
    assert job.refresh().record.attempt == 1
    outcome = settlement(attempt, result=3)
    assert writer.settle([outcome]) == {job.id: "settled"}
    assert writer.settle([outcome]) == {job.id: "repeated"}
    assert [event.kind for event in job.events] == ["accepted", "claimed", "intended", "succeeded"]


def test_a_worker_that_lost_its_job_changes_nothing_and_its_result_is_an_event(engine: Engine, job: Job) -> None:
    slow, fast = writer_of(engine, "slow"), writer_of(engine, "fast")
    first = claimed(slow, job)
    slow.intend([intent(first)])
    expire_leases(engine)
    assert take_over(engine) == 1
    second = claimed(fast, job)
    fast.intend([intent(second)])
    assert fast.settle([settlement(second, result="second")]) == {job.id: "settled"}
    assert slow.settle([settlement(first, result="first")]) == {job.id: "late"}
    assert job.refresh().result == "second"
    late = job.events[-1]
    assert (late.kind, late.fence, late.worker) == ("late_result", first.fence, "slow")
    assert late.data == {"would_be": "succeeded", "result": "first", "error": None}


def test_an_intent_is_not_granted_after_the_lease_ran_out(engine: Engine, job: Job) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    expire_leases(engine)
    assert writer.intend([intent(attempt)]) == {job.id: "lost"}
    take_over(engine)
    assert writer.intend([intent(attempt)]) == {}


def test_an_intent_whose_answer_was_lost_is_not_granted_after_the_lease_ran_out_either(
    engine: Engine, job: Job
) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    assert writer.intend([intent(attempt)]) == {job.id: "intended"}
    expire_leases(engine)
    assert writer.intend([intent(attempt)]) == {job.id: "lost"}


def test_an_intent_is_not_granted_after_a_cancellation(engine: Engine, job: Job) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    assert job.cancel() == "requested"
    assert writer.intend([intent(attempt)]) == {job.id: "cancelled"}


def test_a_renewal_keeps_what_is_ours_and_says_what_is_not(engine: Engine, job: Job) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    stale = (job.id, attempt.fence - 1)
    assert (
        writer.renew(attempt.lease, stale) == writer.renew(stale, attempt.lease) == {attempt.lease: True, stale: False}
    )
    expire_leases(engine)
    assert writer.renew(attempt.lease) == {attempt.lease: False}


def test_one_row_that_cannot_move_does_not_fail_its_neighbours(engine: Engine, lone_producer: Producer) -> None:
    jobs = lone_producer.enqueue_many(
        [{"action": "test.add", "params": {"a": n, "b": 0}, "idempotency_key": f"k{n}"} for n in range(3)]
    )
    writer = writer_of(engine)
    attempts = writer.claim("test.add", 1, [job.id for job in jobs])
    assert len(attempts) == 3
    jobs[1].cancel()
    granted = writer.intend([intent(attempt) for attempt in attempts])
    assert sorted(granted.values()) == ["cancelled", "intended", "intended"]
    settled = writer.settle([settlement(attempt, result=1) for attempt in attempts])
    assert settled[jobs[0].id] == settled[jobs[2].id] == "settled"
    assert jobs[1].refresh().state is State.CLAIMED


@pytest.mark.parametrize(
    ("effect", "repeat_seconds", "intended", "becomes"),
    [
        ("unsafe", 0.0, False, State.WAITING),
        ("pure", None, True, State.WAITING),
        ("idempotent", None, True, State.WAITING),
        ("keyed", 3600.0, True, State.WAITING),
        ("keyed", 0.0, True, State.IN_DOUBT),
        ("verifiable", 0.0, True, State.IN_DOUBT),
        ("unsafe", 0.0, True, State.IN_DOUBT),
    ],
)
def test_what_follows_a_death_hangs_on_the_intent_and_the_effect_class(
    engine: Engine, job: Job, effect: str, repeat_seconds: float | None, *, intended: bool, becomes: State
) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    if intended:
        writer.intend([intent(attempt, effect, repeat_seconds)])
    expire_leases(engine)
    assert take_over(engine) == 1
    record = job.refresh().record
    assert (record.state, record.crashes, record.fence) == (becomes, 1, attempt.fence + 1)
    assert record.attempt == (1 if intended else 0)


@pytest.mark.parametrize(
    ("effect", "becomes"), [("pure", State.DEAD), ("idempotent", State.IN_DOUBT), ("keyed", State.IN_DOUBT)]
)
def test_a_job_that_takes_down_workers_is_left_alone_after_the_cap(
    engine: Engine, job: Job, effect: str, becomes: State
) -> None:
    writer = writer_of(engine)
    for _ in range(3):
        writer.intend([intent(claimed(writer, job), effect, None)])
        expire_leases(engine)
        assert take_over(engine) == 1
    assert job.refresh().state is becomes
    assert job.error is not None
    assert job.error["message"] == "workers fell silent with this job 3 times, the last was w1"
    assert take_over(engine) == 0


def test_a_lease_that_holds_is_not_taken_over(engine: Engine, job: Job) -> None:
    claimed(writer_of(engine), job)
    assert take_over(engine) == 0


@pytest.mark.parametrize(
    ("column", "answer"), [("deadline_at", "expired"), ("lease_expires_at", "lost")], ids=["its deadline", "its lease"]
)
def test_an_intent_that_waits_for_its_row_until_the_time_is_over_is_not_granted(
    engine: Engine, job: Job, column: str, answer: str
) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    with engine.connect() as connection:
        connection.execute(text(f"UPDATE jobs SET {column} = clock_timestamp() + interval '3 s'"))
    locking = engine.connect().execution_options(isolation_level="READ COMMITTED")
    with ThreadPoolExecutor(1) as threads, locking as other, engine.connect() as looking:
        with other.begin() as held:
            other.execute(text("SELECT FROM jobs FOR UPDATE"))
            asked = threads.submit(writer.intend, [intent(attempt, "unsafe")])
            until(lambda: waiting_for_locks(engine))
            over = text(f"SELECT {column} <= clock_timestamp() FROM jobs")
            assert not looking.execute(over).scalar()  # or it shows nothing
            until(lambda: looking.execute(over).scalar())
            held.rollback()
        assert asked.result() == {job.id: answer}
    assert job.refresh().record.attempt == 0


def test_of_intents_that_go_together_none_is_granted_whose_time_was_over_once_all_rows_were_locked(
    engine: Engine, lone_producer: Producer
) -> None:
    writer = writer_of(engine)
    made = [lone_producer.enqueue("test.add", {"a": n, "b": 2}, idempotency_key=f"{n}") for n in range(2)]
    first, second = writer.claim("test.add", 1, sorted(job.id for job in made))
    with engine.connect() as connection:
        soon = text("UPDATE jobs SET deadline_at = clock_timestamp() + interval '3 s' WHERE id = :id")
        connection.execute(soon, {"id": first.job_id})
    locking = engine.connect().execution_options(isolation_level="READ COMMITTED")
    with ThreadPoolExecutor(1) as threads, locking as other, engine.connect() as looking:
        with other.begin() as held:
            other.execute(text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": second.job_id})
            asked = threads.submit(writer.intend, [intent(first, "unsafe"), intent(second, "unsafe")])
            until(lambda: waiting_for_locks(engine))
            over = text("SELECT bool_or(deadline_at <= clock_timestamp()) FROM jobs")
            assert not looking.execute(over).scalar()  # or it shows nothing
            until(lambda: looking.execute(over).scalar())
            held.rollback()
        assert asked.result() == {first.job_id: "expired", second.job_id: "intended"}


def test_an_intent_is_on_record_at_the_time_at_which_it_was_granted(engine: Engine, job: Job) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    writer.intend([intent(attempt, "keyed", 3_600.0)])
    apart = text("SELECT repeatable_until - e.at FROM jobs JOIN events e ON e.job_id = id WHERE e.kind = 'intended'")
    with engine.connect() as connection:
        assert connection.execute(apart).scalar_one() == timedelta(hours=1)


def test_a_move_that_the_table_of_states_does_not_know_is_refused_before_it_is_sent(engine: Engine, job: Job) -> None:
    attempt = claimed(writer_of(engine), job)
    with pytest.raises(ValueError, match="cannot go from claimed to succeeded"):
        settlement(attempt, State.SUCCEEDED, was=State.CLAIMED)


def test_a_job_waiting_after_a_possible_effect_is_in_doubt_when_cancelled(engine: Engine, job: Job) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    writer.intend([intent(attempt, "keyed", 3600.0)])
    waiting = settlement(attempt, State.WAITING, waiting_for="retry", delay=60.0, maybe_happened=True)
    assert writer.settle([waiting]) == {job.id: "settled"}
    assert job.cancel() == "in_doubt"
    assert job.state is State.IN_DOUBT


def test_a_hold_gives_its_attempt_back(engine: Engine, job: Job) -> None:
    writer = writer_of(engine)
    attempt = claimed(writer, job)
    writer.intend([intent(attempt)])
    held = settlement(attempt, State.WAITING, waiting_for="rate", delay=60.0, unspent=1)
    writer.settle([held])
    record = job.refresh().record
    assert (record.attempt, record.waiting_for) == (0, "rate")
