"""Every transition is in the ledger once, whoever died meanwhile; and who waited is let go, the oldest first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from producer import Producer, Settings, State
from producer.breaker_words import MOVES, Transition
from producer.ledger import breakers as ledger
from tasks import Dependency
from tests.houses import until
from tests.integration.breakers import NAME, THIS_TIME, InRedis
from worker.breaker_answers import Seen
from worker.breaker_moves import Moves
from worker.dev.servers import Valkey
from worker.relay import EXPIRE
from worker.seldom_redis import SeldomRedis
from worker.statements import Wanted, claim

NOW = 1_764_000_000_000
PARK = text("""
UPDATE jobs SET state = 'waiting', waiting_for = 'breaker', waiting_on = :on,
  due_at = clock_timestamp() + interval '1 hour', ring_at = clock_timestamp() + interval '1 hour' WHERE id = :id
""")


@pytest.fixture
def place(settings: Settings) -> InRedis:
    return InRedis(redis.Redis.from_url(settings.redis_url), Dependency(name=NAME, release_per_second=2))


def go_round(place: InRedis, at: int) -> None:
    """Open it, have one try, and close it: three transitions."""
    epoch = place.admit(at, "t", 1_000, parks=False).epoch
    for _ in range(5):
        place.record(at, Seen(epoch=epoch, bad=1), jitter=0)
    place.admit(at + 60_000, f"t{at}", 1_000, parks=False)
    place.record(at + 60_000, Seen(token=f"t{at}", epoch=THIS_TIME, ok=[(0, 1)]), jitter=0)


def park(producer: Producer, engine: Engine, count: int, on: str = NAME) -> list[Any]:
    requests = [
        {"action": "test.add", "params": {"a": n, "b": 1}, "idempotency_key": f"{on.replace(' ', '-')}-{n}"}
        for n in range(count)
    ]
    jobs = producer.enqueue_many(requests)
    with engine.connect() as connection:
        for job in jobs:
            connection.execute(PARK, {"on": on, "id": job.id})
    return sorted((job.id for job in jobs), key=str)


def due(engine: Engine, ids: Sequence[Any]) -> list[datetime]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, due_at FROM jobs WHERE id = ANY(:ids)"), {"ids": ids})
        found = {row.id: row.due_at for row in rows}
    return [found[each] for each in ids]


def test_what_happened_while_no_worker_looked_is_written_down_once_by_several_that_look(
    settings: Settings, engine: Engine, place: InRedis
) -> None:
    go_round(place, NOW)
    go_round(place, NOW + 1_000_000)
    told: list[Transition] = []
    sweepers = [Moves(SeldomRedis(settings.redis_url), landed=told.extend) for _ in range(2)]
    with engine.connect() as connection:
        assert [each.sweep(connection) for each in sweepers] == [6, 6]
        assert [each.sweep(connection) for each in sweepers] == [0, 0]
        late = Moves(SeldomRedis(settings.redis_url), landed=told.extend)
        assert late.sweep(connection) == 6
        rows = ledger.history(connection, NAME, limit=10)
    expected = ["closed", "half-open", "open"] * 2
    assert [row.becomes for row in rows] == expected
    assert [move.becomes for move in told] == expected[::-1]
    assert len({move.epoch for move in rows}) == 6


def test_a_sweep_that_could_not_write_reads_the_same_again(settings: Settings, engine: Engine, place: InRedis) -> None:
    go_round(place, NOW)
    moves = Moves(SeldomRedis(settings.redis_url))
    with engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE breaker_events RENAME TO elsewhere")
        with pytest.raises(DBAPIError):
            moves.sweep(connection)
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO breaker_events")
        assert moves.sweep(connection) == 3


MOVE: dict[Any, Any] = {  # as redis-py types it
    "name": NAME,
    "epoch": str(NOW - 1),
    "was": "open",
    "becomes": "closed",
    "reason": "because",
    "who": "somebody",
    "job": "",
    "until": "0",
    "gap": "100",
}


@pytest.mark.parametrize(
    "poison",
    [
        {"name": ""},
        {"name": "x" * 10_000},  # more than an index takes
        {"name": b"\xff\xfe"},
        {b"\xff": "a"},
        {"epoch": "yesterday"},
        {"epoch": "-1"},
        {"epoch": str(10**15)},  # in the year 33658
        {"epoch": str(10**30)},
        {"was": "ajar"},
        {"becomes": ""},
        {"reason": "a\0b"},
        {"reason": b"caf\xe9"},
        {"who": "\0"},
        {"job": "17"},
        {"until": str(10**20)},
        {"until": "soon"},
        {"gap": "0"},
        {"gap": "-5"},
        {"gap": "nan"},
        {"gap": "inf"},
    ],
    ids=ascii,
)
def test_what_is_no_transition_in_the_stream_is_set_aside_with_a_line_and_what_follows_is_written_down(
    settings: Settings, engine: Engine, lone_producer: Producer, place: InRedis, poison: dict[Any, Any]
) -> None:
    park(lone_producer, engine, 2)  # so that a rate which is none would be reckoned with
    place.client.xadd(MOVES, {**MOVE, **poison})
    go_round(place, NOW)
    with engine.connect() as connection, capture_logs() as logs:
        moves = Moves(SeldomRedis(settings.redis_url))
        assert [moves.sweep(connection), moves.sweep(connection)] == [4, 0]
        assert len(ledger.history(connection, NAME, limit=10)) == 3
    assert [line["event"] for line in logs].count("breaker.set_aside") == 1


def test_what_is_a_transition_and_lacks_nothing_is_written_down_whoever_put_it_there(
    settings: Settings, engine: Engine, place: InRedis
) -> None:
    place.client.xadd(MOVES, MOVE)  # or the test above would show nothing
    with engine.connect() as connection:
        Moves(SeldomRedis(settings.redis_url)).sweep(connection)
        assert [move.reason for move in ledger.history(connection, NAME, limit=10)] == ["because"]


def test_a_transition_that_the_ledger_refuses_is_set_aside_and_the_others_of_its_batch_are_written_down_and_told(
    settings: Settings, engine: Engine, place: InRedis
) -> None:
    place.client.xadd(MOVES, {**MOVE, "who": "nobody"})
    go_round(place, NOW)
    told: list[Transition] = []
    with engine.connect() as connection, capture_logs() as logs:
        # As a ledger that a newer version migrated might.
        connection.exec_driver_sql("ALTER TABLE breaker_events ADD CHECK (who <> 'nobody')")
        moves = Moves(SeldomRedis(settings.redis_url), landed=told.extend)
        assert [moves.sweep(connection), moves.sweep(connection)] == [4, 0]
        assert len(ledger.history(connection, NAME, limit=10)) == len(told) == 3
    assert [line["event"] for line in logs].count("breaker.set_aside") == 1


def test_what_redis_forgot_is_in_the_ledger_and_what_follows_is_added(
    settings: Settings, engine: Engine, place: InRedis
) -> None:
    moves = Moves(SeldomRedis(settings.redis_url))
    with engine.connect() as connection:
        go_round(place, NOW)
        moves.sweep(connection)
        place.client.flushdb()
        go_round(place, NOW + 1_000_000)
        moves.sweep(connection)
        assert len(ledger.history(connection, NAME, limit=10)) == 6


def test_history_cannot_be_changed_or_removed(settings: Settings, engine: Engine, place: InRedis) -> None:
    go_round(place, NOW)
    with engine.connect() as connection:
        Moves(SeldomRedis(settings.redis_url)).sweep(connection)
        for statement in ("UPDATE breaker_events SET who = 'nobody'", "DELETE FROM breaker_events"):
            with pytest.raises(DBAPIError, match="only ever added"):
                connection.exec_driver_sql(statement)


def test_a_redis_that_is_away_is_no_error_and_read_again_when_it_is_back(
    engine: Engine, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.seldom_redis.AWAY_SECONDS", 0.01)
    moves = Moves(SeldomRedis(own_valkey.url))
    with engine.connect() as connection:
        own_valkey.kill()
        assert moves.sweep(connection) == 0
        own_valkey.start()
        go_round(InRedis(redis.Redis.from_url(own_valkey.url), Dependency(name=NAME)), NOW)
        assert until(lambda: moves.sweep(connection)) == 3


def test_where_the_broker_is_no_redis_there_is_nothing_to_read(engine: Engine) -> None:
    with engine.connect() as connection:
        assert Moves(SeldomRedis("amqp://nowhere")).sweep(connection) == 0


# ---- letting go ------------------------------------------------------------------------------------------------


def test_once_it_closes_who_waited_comes_back_at_its_rate_the_oldest_first_and_nobody_else_s(
    settings: Settings, engine: Engine, lone_producer: Producer, place: InRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BATCH", 3)
    waiting, others = park(lone_producer, engine, 8), park(lone_producer, engine, 2, on="other")
    before = due(engine, others)
    go_round(place, NOW)
    with engine.connect() as connection:
        Moves(SeldomRedis(settings.redis_url)).sweep(connection)
    gaps = [(later - sooner).total_seconds() for sooner, later in itertools.pairwise(due(engine, waiting))]
    assert gaps == pytest.approx([0.5] * 7)  # two a second
    assert due(engine, others) == before
    with engine.connect() as connection:
        wanted = [Wanted("test.add", 1, job_id) for job_id in waiting]
        assert [each.job_id for each in claim(connection, "w", 30, wanted)] == waiting[:1]


def test_who_is_due_already_is_not_put_off(engine: Engine, lone_producer: Producer) -> None:
    waiting = park(lone_producer, engine, 3)
    with engine.connect() as connection:
        assert ledger.try_it(connection, NAME) == 1
        before = due(engine, waiting)[0]
        assert ledger.release(connection, NAME, per_second=1) == 2
    times = due(engine, waiting)
    assert times[0] == before
    assert (times[2] - times[1]).total_seconds() == 1


def test_who_tries_is_the_oldest_that_is_not_due_yet_and_whose_try_failed_only_where_there_is_no_other(
    engine: Engine, lone_producer: Producer
) -> None:
    waiting = park(lone_producer, engine, 3)
    before = due(engine, waiting)
    with engine.connect() as connection:
        for tried in ([1], [1, 2], [0, 1, 2]):
            assert ledger.try_it(connection, NAME, last=waiting[0]) == 1
            now = due(engine, waiting)
            assert [n for n in range(3) if now[n] != before[n]] == tried
        assert ledger.try_it(connection, NAME, last=waiting[0]) == 0


def test_where_nobody_waits_that_is_asked_once(engine: Engine) -> None:
    asked: list[str] = []

    def note(*about: Any) -> None:
        asked.append(about[2])

    with engine.connect() as connection:
        event.listen(engine, "before_cursor_execute", note)
        assert ledger.try_it(connection, NAME) == 0
        event.remove(engine, "before_cursor_execute", note)
    assert len(asked) == 1


def test_what_is_cancelled_or_overdue_waits_for_nobody_any_more(engine: Engine, lone_producer: Producer) -> None:
    cancelled, overdue = park(lone_producer, engine, 2)
    assert lone_producer.cancel(cancelled) == "cancelled"
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET deadline_at = clock_timestamp() WHERE id = :id"), {"id": overdue})
        connection.execute(EXPIRE, {"batch": 10, "worker": "w"})
    for job_id, state in ((cancelled, State.CANCELLED), (overdue, State.EXPIRED)):
        record = lone_producer.job(job_id).record
        assert (record.state, record.waiting_for, record.waiting_on) == (state, None, None)


def test_a_job_that_is_being_moved_is_left_alone_and_waits_for_its_own_time(
    engine: Engine, lone_producer: Producer
) -> None:
    waiting = park(lone_producer, engine, 3)
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as other, engine.connect() as connection:
        with other.begin():
            other.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": waiting[1]})
            assert ledger.release(connection, NAME, per_second=10) == 2
        times = due(engine, waiting)
        assert times[1] > max(times[0], times[2])


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param("auto", id="somebody says auto"),
        pytest.param("time", id="its time is over"),
        pytest.param("itself", id="somebody says auto of what opened by itself"),
    ],
)
def test_where_an_operator_lets_it_try_the_oldest_who_waits_is_due_to(
    settings: Settings, engine: Engine, lone_producer: Producer, place: InRedis, ends: str
) -> None:
    waiting = park(lone_producer, engine, 3)
    if ends == "itself":
        for _ in range(5):
            place.record(NOW, Seen(bad=1, asked_ms=3_600_000), jitter=0)
    else:
        place.force(NOW, "open", for_ms=60_000)
    sweeper = Moves(SeldomRedis(settings.redis_url))
    with engine.connect() as connection:
        sweeper.sweep(connection)
        before = due(engine, waiting)
        if ends == "time":
            place.look(NOW + 60_000)
        else:
            place.force(NOW + 1_000, "")
        sweeper.sweep(connection)
    after = due(engine, waiting)
    assert after[0] < before[0]
    assert after[1:] == before[1:]  # the others wait for what comes of it


def test_a_releaser_that_dies_between_two_batches_loses_nobody(
    engine: Engine, lone_producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = park(lone_producer, engine, 4)
    monkeypatch.setattr(ledger, "BATCH", 2)
    with engine.connect() as connection:
        since = connection.execute(ledger.NOW).scalar_one()
        asked = {"name": NAME, "since": since, "after": ledger.FIRST, "batch": 2, "before": 0, "rate": 10.0}
        connection.execute(ledger.RELEASE, asked)  # and no more
    times = due(engine, waiting)
    assert all((late - times[0]).total_seconds() > 3_000 for late in times[2:])  # as they were to come back anyway
    states = {lone_producer.job(job_id).state for job_id in waiting}
    assert states == {State.WAITING}
