"""Jobs that were rung and that nobody has claimed: their rings got lost, or workers of another version took them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine, text

from producer import Producer, Settings
from producer.job import Job
from producer.ring import Bell, Ring
from tests.rung import job_ids, rung
from worker import relay
from worker.relay import Relay
from worker.served import Served
from worker.statements import Wanted, claim

LONG_AGO = text("""
UPDATE jobs SET due_at = clock_timestamp() - make_interval(secs => 30),
  ring_at = clock_timestamp() - make_interval(secs => 20) WHERE id = :id
""")
JUST_NOW = text("UPDATE jobs SET ring_at = clock_timestamp() WHERE id = :id")
PARAMS = {"test.spend": {"tokens_in": 1, "tokens_out": 1, "cost": "0"}}
LEFT = text("""
UPDATE jobs SET state = 'waiting', waiting_for = 'worker', crashes = 1,
  due_at = statement_timestamp() - make_interval(secs => :ago), ring_at = statement_timestamp() WHERE id = :id
""")
NEXT_LOOK = text("SELECT extract(epoch FROM ring_at - clock_timestamp()) FROM jobs WHERE id = :id")


@pytest.fixture
def bell(settings: Settings) -> Iterator[Bell]:
    made = Bell(settings.redis_url, timeout_seconds=5.0)
    yield made
    made.close()


@pytest.fixture
def in_vain(engine: Engine, settings: Settings, lone_producer: Producer) -> Job:
    """A job that was rung half a minute ago, by a ring that nobody has answered."""
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 2})
    lone_producer.flush()
    _forget(settings)
    with engine.connect() as connection:
        connection.execute(LONG_AGO, {"id": job.id})
    return job


def _forget(settings: Settings) -> None:
    import redis  # noqa: PLC0415

    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()


def look(
    engine: Engine, bell: Bell, *, knows: bool, here: list[Ring] | None = None, served: Served | None = None
) -> None:
    """Have a relay look once: of a worker that knows the job's version, and performs it itself if there is a list."""
    looking = Relay(
        engine,
        bell,
        worker="w1",
        every_seconds=1.0,
        rescue=lambda _: 0,
        tick=lambda _: 60.0,
        announce=lambda _: None,
        known=lambda: {"test.add": 1} if knows else {"test.add": 2},
        served=served,
    )
    if here is not None:
        looking.serve_here(here.extend)
    with engine.connect() as connection:
        looking._look(connection)  # noqa: SLF001  one round of what its thread does


def next_look(engine: Engine, job: Job) -> float:
    with engine.connect() as connection:
        return float(connection.execute(NEXT_LOOK, {"id": job.id}).scalar_one())


def rung_for(settings: Settings) -> Sequence[Any]:
    return job_ids(rung(settings.redis_url))


def test_a_worker_that_knows_a_job_which_was_rung_in_vain_performs_it_itself(
    engine: Engine, settings: Settings, bell: Bell, in_vain: Job
) -> None:
    here: list[Ring] = []
    look(engine, bell, knows=True, here=here)
    assert ([ring.job_id for ring in here], rung_for(settings)) == ([in_vain.id], [])
    assert next_look(engine, in_vain) > 15  # it may wait for a thread, and need not be kept twice


def test_a_worker_that_performs_in_child_processes_rings_for_it_anew(
    engine: Engine, settings: Settings, bell: Bell, in_vain: Job
) -> None:
    look(engine, bell, knows=True)
    assert rung_for(settings) == [in_vain.id]
    # The ring may be taken by one of another version again: a worker that performs it itself should come to look.
    assert 0 < next_look(engine, in_vain) < 5


def test_a_worker_that_does_not_know_its_version_leaves_it_to_others_who_look_soon(
    engine: Engine, settings: Settings, bell: Bell, in_vain: Job
) -> None:
    here: list[Ring] = []
    look(engine, bell, knows=False, here=here)
    assert (here, rung_for(settings)) == ([], [])
    assert 0 < next_look(engine, in_vain) < 5  # not half a minute, as where it was rung


def test_what_a_worker_does_not_know_it_does_not_even_look_at_until_those_who_know_it_had_their_turn(
    engine: Engine, bell: Bell, in_vain: Job
) -> None:
    """Else it is the one who comes first that says when others look again, and most of them do not know it."""
    with engine.connect() as connection:
        connection.execute(JUST_NOW, {"id": in_vain.id})
    look(engine, bell, knows=False, here=[])
    assert next_look(engine, in_vain) <= 0
    look(engine, bell, knows=True, here=(here := list[Ring]()))
    assert [ring.job_id for ring in here] == [in_vain.id]


def test_a_job_that_nobody_has_rung_yet_is_rung_by_whoever_sees_it(
    engine: Engine, settings: Settings, bell: Bell, lone_producer: Producer
) -> None:
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as own, own.begin():
        job = lone_producer.enqueue("test.add", {"a": 1, "b": 2}, connection=own)
    look(engine, bell, knows=False, here=[])
    assert rung_for(settings) == [job.id]


def test_jobs_that_nobody_has_rung_yet_share_messages_and_those_of_a_sync_action_have_one_each(
    engine: Engine, settings: Settings, bell: Bell, lone_producer: Producer
) -> None:
    asked = [("test.trace", "actions")] * 250 + [("test.trace", "others")] * 20
    asked += [("test.spend", "actions")] * 30 + [("test.trace_sync", "actions")] * 3
    requests = [
        {"action": action, "params": PARAMS.get(action, {}), "queue": queue, "idempotency_key": f"k{n}"}
        for n, (action, queue) in enumerate(asked)
    ]
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as own, own.begin():
        jobs = lone_producer.enqueue_many(requests, connection=own)
    look(engine, bell, knows=True, here=[])
    messages = [*rung(settings.redis_url), *rung(settings.redis_url, "others")]
    sizes: dict[tuple[str, str], list[int]] = {}
    for message in messages:
        sizes.setdefault((message.action, message.queue), []).append(len(message.job_ids))
    assert sizes == {
        ("test.trace", "actions"): [100, 100, 50],
        ("test.trace", "others"): [20],
        ("test.spend", "actions"): [30],
        ("test.trace_sync", "actions"): [1, 1, 1],
    }
    assert sorted(job_ids(messages)) == sorted(job.id for job in jobs)


@pytest.fixture
def crowded(in_vain: Job, lone_producer: Producer) -> Job:
    """The same, and rings of others wait in its queue."""
    for n in range(3):
        lone_producer.enqueue("test.add", {"a": n, "b": n}, idempotency_key=f"other-{n}")
    assert lone_producer.flush()
    return in_vain


def serve(engine: Engine, settings: Settings, served: Served) -> None:
    """Claim the first of those that wait, as a worker does to which its ring came."""
    with engine.connect() as connection:
        served.note(claim(connection, "w2", 30.0, [Wanted("test.add", 1, rung_for(settings)[0])]))


def test_in_a_queue_that_is_not_empty_a_ring_is_taken_to_wait_as_long_as_none_of_later_jobs_is_served(
    engine: Engine, settings: Settings, bell: Bell, crowded: Job
) -> None:
    look(engine, bell, knows=True, here=(here := list[Ring]()), served=Served())
    assert (here, crowded.id in rung_for(settings)) == ([], False)
    assert 0 < next_look(engine, crowded) < 5  # these few are soon served, and it is due for half a minute


def test_in_a_deep_queue_it_is_looked_at_ever_later(
    engine: Engine, bell: Bell, in_vain: Job, lone_producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "SHALLOW", 2)
    for n in range(3):
        lone_producer.enqueue("test.add", {"a": n, "b": n}, idempotency_key=f"other-{n}")
        assert lone_producer.flush()  # a message for each
    look(engine, bell, knows=True, here=[], served=Served())
    assert next_look(engine, in_vain) > 15


def test_where_many_of_a_queue_are_late_they_are_looked_at_ever_later_though_few_messages_wait_in_it(
    engine: Engine, bell: Bell, crowded: Job, lone_producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "FEW", 2)
    others = [lone_producer.enqueue("test.add", {"a": n, "b": 3}) for n in range(2)]  # of one message, perhaps
    with engine.connect() as connection:
        for each in others:
            connection.execute(LONG_AGO, {"id": each.id})
    look(engine, bell, knows=True, here=[], served=Served())
    assert next_look(engine, crowded) > 15


def left(engine: Engine, job: Job, *, seconds_ago: float) -> None:
    """Have a dead worker have left it, and others have taken it over so long ago and rung for it."""
    with engine.connect() as connection:
        connection.execute(LEFT, {"id": job.id, "ago": seconds_ago})


def test_a_worker_has_its_time_to_come_for_what_a_dead_one_left_before_its_ring_is_taken_for_lost(
    engine: Engine, settings: Settings, bell: Bell, in_vain: Job
) -> None:
    left(engine, in_vain, seconds_ago=0)
    look(engine, bell, knows=True, here=(here := list[Ring]()))
    assert (here, rung_for(settings)) == ([], [in_vain.id])
    assert next_look(engine, in_vain) > 2
    _forget(settings)  # a worker has taken the ring, and has others to do first
    left(engine, in_vain, seconds_ago=6)
    look(engine, bell, knows=True, here=here)
    assert (here, rung_for(settings)) == ([], [in_vain.id])
    assert next_look(engine, in_vain) > 2


def test_what_a_dead_worker_left_is_looked_at_soon_again_whether_its_ring_got_lost(
    engine: Engine, settings: Settings, bell: Bell, crowded: Job
) -> None:
    here, served = list[Ring](), Served()
    for seconds_ago, soon in ((5, 2), (20, 6)):  # not after as long again: it has waited for a lease, too
        left(engine, crowded, seconds_ago=seconds_ago)
        look(engine, bell, knows=True, here=here, served=served)
        assert (here, crowded.id in rung_for(settings)) == ([], False)
        assert 0 < next_look(engine, crowded) <= soon
    serve(engine, settings, served)
    with engine.connect() as connection:
        connection.execute(JUST_NOW, {"id": crowded.id})
    look(engine, bell, knows=True, here=here, served=served)
    assert [ring.job_id for ring in here] == [crowded.id]


@pytest.mark.parametrize("here", [True, False], ids=["here", "by a ring"])
def test_where_jobs_are_served_that_became_due_later_its_ring_is_known_to_be_lost_and_it_is_performed(
    engine: Engine,
    settings: Settings,
    bell: Bell,
    crowded: Job,
    here: bool,  # noqa: FBT001  both ways
) -> None:
    served, kept = Served(), list[Ring]()
    serve(engine, settings, served)
    look(engine, bell, knows=True, here=kept if here else None, served=served)
    assert [ring.job_id for ring in kept] == ([crowded.id] if here else [])
    assert (crowded.id in rung_for(settings)) is not here


def test_what_was_served_of_another_priority_tells_nothing(
    engine: Engine, settings: Settings, bell: Bell, crowded: Job, lone_producer: Producer
) -> None:
    served = Served()
    urgent = lone_producer.enqueue("test.add", {"a": 9, "b": 9}, priority=9)
    with engine.connect() as connection:
        served.note(claim(connection, "w2", 30.0, [Wanted("test.add", 1, urgent.id)]))
    look(engine, bell, knows=True, here=(here := list[Ring]()), served=served)
    assert (here, crowded.id in rung_for(settings)) == ([], False)


def test_many_that_were_rung_in_vain_are_rung_anew_but_for_a_few(
    engine: Engine, settings: Settings, bell: Bell, lone_producer: Producer
) -> None:
    """A Redis that was emptied has lost them all, and other workers have places for them, too."""
    jobs = lone_producer.enqueue_many([{"action": "test.add", "params": {"a": n, "b": 0}} for n in range(100)])
    lone_producer.flush()
    _forget(settings)
    with engine.connect() as connection:
        for job in jobs:
            connection.execute(LONG_AGO, {"id": job.id})
    here: list[Ring] = []
    look(engine, bell, knows=True, here=here)
    assert 0 < len(here) <= 20
    assert {ring.job_id for ring in here} | set(rung_for(settings)) == {job.id for job in jobs}
