"""Jobs in doubt in the ledger: who may be looked at, and that a ruling lands once, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from producer import Producer, State
from producer.job import Job
from producer.ledger.states import LOOKS
from tests.integration.test_statements import claimed, expire_leases, intent, settlement, take_over, writer_of
from tests.rung import ANY_VERSION
from worker.attempt import Attempt
from worker.doubt import Doubt, Ruling
from worker.doubt_statements import Ruled, WantedLook, take_up, write_rulings
from worker.relay import DUE, EXPIRE

QUIET_SECONDS = 60.0


@pytest.fixture
def job(lone_producer: Producer) -> Job:
    return lone_producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="k")


def intended(engine: Engine, job: Job, *, quiet_seconds: float | None = QUIET_SECONDS) -> Attempt:
    """Bring a job to where its effect is about to happen."""
    attempt = claimed(writer_of(engine), job)
    asked = replace(intent(attempt, "verifiable", 0.0), quiet_seconds=quiet_seconds)
    assert writer_of(engine).intend([asked]) == {job.id: "intended"}
    return attempt


def doubtful(engine: Engine, job: Job, *, quiet_seconds: float | None = QUIET_SECONDS) -> Job:
    """Bring a job in doubt, as a worker that got no answer does."""
    attempt = intended(engine, job, quiet_seconds=quiet_seconds)
    error = {"type": "Unknown", "message": "no answer", "traceback": ""}
    outcome = settlement(attempt, State.IN_DOUBT, maybe_happened=True, error=error, delay=0.0)
    assert writer_of(engine).settle([outcome]) == {job.id: "settled"}
    return job


def looks(engine: Engine, *jobs: Job, action: str = "test.add", version: int = 1) -> list[Doubt]:
    with engine.connect() as connection:
        return take_up(connection, [WantedLook(action, version, job.id, 30.0) for job in jobs])


def rule(engine: Engine, *rulings: Ruling) -> dict[UUID, Ruled]:
    with engine.connect() as connection:
        return write_rulings(connection, "w2", rulings)


def ruling(doubt: Doubt, becomes: State = State.SUCCEEDED, **more: Any) -> Ruling:
    found: dict[str, Any] = {"found": "happened", "why": "it happened", "looks_left": doubt.looks_left}
    attempt = doubt.attempt
    return Ruling(job_id=attempt.job_id, fence=attempt.fence, attempt=attempt.number, becomes=becomes, **found | more)


def column(engine: Engine, name: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(f"SELECT {name} FROM jobs")).scalar_one()


def due(engine: Engine) -> Sequence[UUID]:
    with engine.connect() as connection:
        return [row.id for row in connection.execute(DUE, {"batch": 10, **ANY_VERSION})]


def test_a_job_in_doubt_is_taken_up_by_one_of_many_with_what_its_hook_needs(engine: Engine, job: Job) -> None:
    doubtful(engine, job)
    with ThreadPoolExecutor(4) as threads:
        (doubt,) = [doubt for found in threads.map(lambda _: looks(engine, job), range(8)) for doubt in found]
    assert (doubt.attempt.params, doubt.attempt.number) == ({"a": 1, "b": 2}, 1)
    assert (doubt.looks_left, doubt.absent_for, doubt.crashes) == (LOOKS - 1, None, 0)
    assert 0 < doubt.quiet_in <= QUIET_SECONDS
    assert looks(engine, job) == []


@pytest.mark.parametrize(("action", "version"), [("test.fail", 1), ("test.add", 2)])
def test_a_job_of_another_action_or_version_is_left_to_who_knows_it(
    engine: Engine, job: Job, action: str, version: int
) -> None:
    assert looks(engine, doubtful(engine, job), action=action, version=version) == []


def test_a_job_that_nothing_can_look_up_is_not_taken_up_and_not_rung_for(engine: Engine, job: Job) -> None:
    doubtful(engine, job, quiet_seconds=None)
    assert (looks(engine, job), due(engine), column(engine, "looks_left")) == ([], [], None)


def test_a_ruling_lands_once_and_its_repeat_changes_nothing(engine: Engine, job: Job) -> None:
    (doubt,) = looks(engine, doubtful(engine, job))
    says = ruling(doubt, result={"total": 3})
    assert rule(engine, says) == {job.id: "ruled"}
    assert rule(engine, says) == {}
    record = job.refresh().record
    assert (record.state, record.result, record.error) == (State.SUCCEEDED, {"total": 3}, None)
    assert record.finished_at is not None
    assert [event.kind for event in job.events].count("verified") == 1
    assert column(engine, "looks_left") is None


def test_a_look_that_settles_nothing_is_noted_once_and_puts_off_the_next(engine: Engine, job: Job) -> None:
    (doubt,) = looks(engine, doubtful(engine, job))
    says = ruling(doubt, State.IN_DOUBT, found="unknown", why="nobody can tell", delay=3600.0)
    assert rule(engine, says) == {job.id: "ruled"}
    assert rule(engine, says) == {}
    assert (looks(engine, job), due(engine)) == ([], [])
    last = job.refresh().events[-1]
    assert (last.kind, last.worker, last.data and last.data["looks_left"]) == ("verified", "w2", LOOKS - 1)
    assert column(engine, "absent_at") is None


def test_a_job_that_somebody_resolved_meanwhile_is_not_ruled_on(engine: Engine, job: Job) -> None:
    (doubt,) = looks(engine, doubtful(engine, job))
    job.resolve("abandon", reason="the bank is bankrupt")
    assert rule(engine, ruling(doubt, result={"total": 3})) == {}
    assert job.refresh().state is State.DEAD


def test_a_look_that_a_later_one_overtook_changes_nothing(engine: Engine, job: Job) -> None:
    (slow,) = looks(engine, doubtful(engine, job))
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET due_at = clock_timestamp()"))
    (quick,) = looks(engine, job)
    assert quick.attempt.fence == slow.attempt.fence + 1
    assert rule(engine, ruling(slow, result={"total": 3})) == {}
    assert rule(engine, ruling(quick, result={"total": 4})) == {job.id: "ruled"}
    assert job.get(0) == {"total": 4}


def test_what_was_not_there_counts_from_the_first_time(engine: Engine, job: Job) -> None:
    doubtful(engine, job, quiet_seconds=0.001)
    for _ in range(2):
        (doubt,) = looks(engine, job)
        missed = ruling(doubt, State.IN_DOUBT, found="did_not_happen", why="not there, once", delay=0.0, absent=True)
        since = column(engine, "absent_at")
        rule(engine, missed)
        assert since is None or column(engine, "absent_at") == since
    (doubt,) = looks(engine, job)
    assert doubt.quiet_in < 0
    assert doubt.absent_for is not None


def test_what_did_not_happen_is_tried_again_as_if_it_had_never_been_intended(engine: Engine, job: Job) -> None:
    (doubt,) = looks(engine, doubtful(engine, job))
    rule(engine, ruling(doubt, State.WAITING, found="did_not_happen", why="it did not happen", delay=0.0))
    record = job.refresh().record
    assert (record.state, record.waiting_for, record.attempt) == (State.WAITING, "retry", 1)
    attempt = claimed(writer_of(engine), job)
    assert (attempt.number, attempt.maybe_happened, attempt.repeat_left, attempt.intended_before) == (
        2,
        False,
        None,
        False,
    )
    assert (column(engine, "quiet_at"), column(engine, "absent_at"), column(engine, "looks_left")) == (None, None, None)


def test_the_last_look_is_followed_by_none(engine: Engine, job: Job) -> None:
    doubtful(engine, job)
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET looks_left = 1"))
    (doubt,) = looks(engine, job)
    assert doubt.looks_left == 0
    rule(engine, ruling(doubt, State.IN_DOUBT, found="unknown", why="nobody can tell", delay=0.0))
    assert (looks(engine, job), due(engine)) == ([], [])
    assert job.refresh().state is State.IN_DOUBT


def test_a_dead_worker_s_job_is_looked_up_at_once(engine: Engine, job: Job) -> None:
    intended(engine, job)
    expire_leases(engine)
    assert take_over(engine) == 1
    assert due(engine) == [job.id]
    (doubt,) = looks(engine, job)
    assert doubt.crashes == 1


@pytest.mark.parametrize("by", ["cancel", "expire"])
def test_a_job_that_waits_in_doubt_and_is_cancelled_or_expires_is_looked_up(engine: Engine, job: Job, by: str) -> None:
    waits = settlement(intended(engine, job), State.WAITING, maybe_happened=True, waiting_for="retry", delay=3600.0)
    assert writer_of(engine).settle([waits]) == {job.id: "settled"}
    if by == "cancel":
        assert job.cancel() == "in_doubt"
    else:
        with engine.connect() as connection:
            connection.execute(text("UPDATE jobs SET deadline_at = clock_timestamp()"))
            connection.execute(EXPIRE, {"batch": 10, "worker": "w"})
    assert job.refresh().state is State.IN_DOUBT
    assert due(engine) == [job.id]
    assert len(looks(engine, job)) == 1


def seconds_until_quiet(engine: Engine) -> float:
    return float(column(engine, "extract(epoch FROM quiet_at - clock_timestamp())"))


def test_an_attempt_that_lasted_for_longer_than_it_should_puts_off_when_nothing_can_arrive(
    engine: Engine, job: Job
) -> None:
    attempt = intended(engine, job, quiet_seconds=1.0)
    outcome = settlement(attempt, State.IN_DOUBT, maybe_happened=True, delay=0.0, quiet_seconds=QUIET_SECONDS)
    writer_of(engine).settle([outcome])
    assert seconds_until_quiet(engine) > QUIET_SECONDS - 10


def test_a_worker_that_fell_silent_may_have_sent_until_then_and_its_action_says_how_long_that_takes(
    engine: Engine, job: Job
) -> None:
    intended(engine, job, quiet_seconds=1.0)
    with engine.connect() as connection:
        connection.execute(text("UPDATE actions SET policy = json_build_object('verify_after', 60)"))
    expire_leases(engine)
    assert take_over(engine) == 1
    assert seconds_until_quiet(engine) > QUIET_SECONDS - 10


def test_an_intent_of_code_that_cannot_look_up_leaves_nothing_to_be_looked_up(engine: Engine, job: Job) -> None:
    first = intended(engine, job)
    waits = settlement(first, State.WAITING, waiting_for="retry", delay=0.0)
    writer_of(engine).settle([waits])
    intended(engine, job, quiet_seconds=None)
    expire_leases(engine)
    assert take_over(engine) == 1
    assert (job.refresh().state, due(engine), looks(engine, job)) == (State.IN_DOUBT, [], [])


def test_a_look_that_is_hours_away_is_the_relay_s_to_ring_for_and_it_does_not_wait_for_anybody(
    engine: Engine, job: Job
) -> None:
    (doubt,) = looks(engine, doubtful(engine, job))
    rule(engine, ruling(doubt, State.IN_DOUBT, found="unknown", why="nobody can tell", delay=3600.0))
    assert column(engine, "ring_at = due_at") is True
