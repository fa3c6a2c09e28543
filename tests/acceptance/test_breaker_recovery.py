"""How long a fleet takes to use again what is well again: real workers, parked jobs, and relays that write it down."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from producer import Producer, Settings, State
from producer.breaker_words import Transition, moment
from tests.gates import whys
from tests.houses import start_worker, until
from tests.probed_actions import MENDING

JOBS, WORKERS = 40, 2
SECONDS = 60.0
PROMISED = 2.0


@pytest.mark.timeout(150)
def test_what_is_well_again_is_used_within_twice_its_recovery_time_though_it_is_so_just_after_a_try_had_failed(
    settings: Settings, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    log = tmp_path / "calls"
    mark = Path(f"{log}.broken")
    mark.touch()
    workers = [start_worker(settings, tmp_path / f"{n}.log", concurrency=20) for n in range(WORKERS)]
    producer = Producer(settings)

    def moves() -> list[Transition]:
        return list(producer.breakers.history("mending"))[::-1]

    try:
        jobs = producer.enqueue_many(
            {"action": "mending.call", "params": {"log": str(log)}, "idempotency_key": str(n)} for n in range(JOBS)
        )
        until(lambda: len(moves()) == 3, seconds=SECONDS)  # it opened, and a try has failed: the worst moment
        with redis.Redis.from_url(settings.redis_url) as client:
            seconds, microseconds = client.time()
        well = moment(seconds * 1000 + microseconds / 1000)
        mark.unlink()
        parked = [job for job in jobs if job.refresh().record.waiting_for == "breaker"]
        assert len(parked) >= JOBS - WORKERS  # all but whose try it was
        assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
        opened, tried, failed, again, closed = until(lambda: moves() if len(moves()) == 5 else [])
    finally:
        producer.close()
        for worker in workers:
            worker.stop()
    took = (closed.at - well).total_seconds()
    record_property("seconds from well to closed", took)
    record_property("of its recovery time", took / MENDING.recovery_seconds)
    told = [move.becomes for move in (opened, tried, failed, again, closed)]
    assert told == ["open", "half-open", "open", "half-open", "closed"]
    assert all(sooner.at < later.at for sooner, later in itertools.pairwise((opened, tried, failed, again, closed)))
    assert opened.until is not None
    assert failed.until is not None
    assert tried.at >= opened.until
    assert again.at >= failed.until  # nobody was let through before
    assert took <= PROMISED * MENDING.recovery_seconds
    called = [float(line) for line in log.read_text().splitlines()]
    # One for each try; the breaker's clock leaves out what is less than a millisecond.
    assert sum(tried.epoch <= 1_000 * at < closed.epoch + 1 for at in called) == 2
    assert all("breaker open" in whys(job) for job in parked)
