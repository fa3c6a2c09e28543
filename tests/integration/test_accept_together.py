"""Requests that threads of one process make at the same time share a statement, and each is answered as if alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection

from producer import IdempotencyConflict, InvalidRequest, Job, LedgerUnavailable, Producer, Request, Settings, together
from producer.errors import KeyInFlight
from producer.ledger import single
from producer.ledger.engine import open_engine
from producer.ledger.migrate import migrate
from tasks import load
from tests.houses import ACTION_MODULES, until
from tests.integration.test_accept import rows
from tests.locks import waiting_for_locks
from worker.dev.servers import Postgres
from worker.lifecycle import publish

HOUR_SECONDS = 3600.0
ANSWER_SECONDS = 15.0
MANY = 30
ADD = {"a": 1, "b": 2}
# No job can be inserted while it is held; reading them goes on.
NOBODY_INSERTS = "LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE"
# A row's xmin is the transaction that wrote it, and nothing ever changes an event.
WRITTEN_TOGETHER = """
SELECT array_agg(idempotency_key ORDER BY idempotency_key) FROM jobs JOIN events ON job_id = id AND seq = 1
GROUP BY events.xmin::text
"""
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'surefoot-producer'"

Enqueued = Future[Job]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(100) as made:
        yield made


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes together hangs on nobody's speed: a call waits until the one before it is over."""
    monkeypatch.setattr(together, "PATIENCE_SECONDS", HOUR_SECONDS)


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Somebody else's, which ends with the block."""
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
        yield connection


def enqueue(producer: Producer, key: str, **fields: Any) -> Job:
    return producer.enqueue("test.add", fields.pop("params", ADD), idempotency_key=key, **fields)


def gathered(producer: Producer) -> int:
    """How many wait to go together."""
    call = producer._single._together._gathering  # noqa: SLF001  nothing shows from outside
    return 0 if call is None else len(call.places)


def crowd(
    threads: ThreadPoolExecutor, engine: Engine, producer: Producer, asks: Sequence[Callable[[], Job]]
) -> list[Enqueued]:
    """Have a first request wait for a lock, and all others gather behind it; return those."""
    threads.submit(enqueue, producer, "first")
    until(lambda: waiting_for_locks(engine))
    asked = [threads.submit(ask) for ask in asks]
    until(lambda: gathered(producer) == len(asks))
    return asked


def keyed(producer: Producer, keys: Sequence[str], **fields: Any) -> list[Callable[[], Job]]:
    return [lambda key=key: enqueue(producer, key, **fields) for key in keys]  # type: ignore[misc]


def written_together(engine: Engine) -> list[list[str]]:
    """The keys of jobs by the transaction that they were accepted in."""
    with engine.connect() as connection:
        return sorted(connection.execute(text(WRITTEN_TOGETHER)).scalars())


def keys(count: int) -> list[str]:
    return [f"k{number:03}" for number in range(count)]


@pytest.mark.usefixtures("patient")
def test_what_threads_ask_for_at_once_is_one_statement_and_each_gets_its_own_answer(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    with transaction(engine) as connection:
        connection.execute(text(NOBODY_INSERTS))
        asks = [
            lambda n=n: enqueue(lone_producer, f"k{n:03}", params={"a": n, "b": 0}, request_id=f"r{n}")
            for n in range(MANY)
        ]
        asked = crowd(threads, engine, lone_producer, asks)
    jobs = [each.result(ANSWER_SECONDS) for each in asked]
    assert [job.outcome for job in jobs] == ["created"] * MANY
    records = [(job.idempotency_key, job.record.params["a"], job.record.request_id) for job in jobs]
    assert records == [(f"k{n:03}", n, f"r{n}") for n in range(MANY)]
    assert [[event.kind for event in job.events] for job in jobs] == [["accepted"]] * MANY
    assert written_together(engine) == [["first"], keys(MANY)]


def test_one_threads_requests_are_accepted_in_their_order_and_in_fewer_statements_than_there_are(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    def each(thread: int) -> list[Job]:
        return [enqueue(lone_producer, f"{thread}-{number}") for number in range(MANY)]

    asked = list(threads.map(each, range(8)))
    for jobs in asked:
        accepted_at = [job.record.accepted_at for job in jobs]
        assert all(earlier < later for earlier, later in pairwise(accepted_at))
    assert sum(map(len, written_together(engine))) == 8 * MANY
    assert len(written_together(engine)) <= 8 * MANY / 2


@pytest.mark.usefixtures("patient")
def test_what_is_refused_or_stands_already_touches_no_neighbour(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    standing = enqueue(lone_producer, "standing")
    with transaction(engine) as connection:
        connection.execute(text(NOBODY_INSERTS))
        asks = keyed(lone_producer, ["new", "standing", "twice", "twice"])
        asks += keyed(lone_producer, ["standing"], params={"a": 9, "b": 9})
        asked = crowd(threads, engine, lone_producer, asks)
        with pytest.raises(InvalidRequest):  # seen to before it would join
            enqueue(lone_producer, "bad", params={"a": "one"})
    new, replayed, *twice, conflict = asked
    assert new.result(ANSWER_SECONDS).outcome == "created"
    assert (replayed.result(ANSWER_SECONDS).outcome, replayed.result().id) == ("replayed", standing.id)
    assert sorted(str(each.result(ANSWER_SECONDS).outcome) for each in twice) == ["created", "replayed"]
    with pytest.raises(IdempotencyConflict) as caught:
        conflict.result(ANSWER_SECONDS)
    assert [(each.job_id, each.paths) for each in caught.value.conflicts] == [(standing.id, ("params.a", "params.b"))]
    assert standing.refresh().record.replays == 1
    assert written_together(engine) == [["first"], ["new", "twice"], ["standing"]]


@pytest.mark.usefixtures("patient")
def test_a_request_that_the_ledger_refuses_touches_no_neighbour(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    with engine.connect() as connection:
        connection.execute(text("ALTER TABLE jobs ADD CHECK (idempotency_key <> 'refused')"))
    with transaction(engine) as connection:
        connection.execute(text(NOBODY_INSERTS))
        *others, refused = crowd(threads, engine, lone_producer, keyed(lone_producer, [*keys(5), "refused"]))
    assert [each.result(ANSWER_SECONDS).outcome for each in others] == ["created"] * 5
    with pytest.raises(Exception, match="violates check constraint"):
        refused.result(ANSWER_SECONDS)
    assert rows(engine) == 6


@pytest.mark.usefixtures("patient")
def test_a_key_that_another_transaction_is_accepting_keeps_nobody_else_waiting(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    with transaction(engine) as accepting:
        theirs = lone_producer.enqueue("test.add", ADD, idempotency_key="in-flight", connection=accepting)
        with transaction(engine) as connection:
            lone_producer.enqueue("test.add", ADD, idempotency_key="first", connection=connection)
            waiting, *others = crowd(threads, engine, lone_producer, keyed(lone_producer, ["in-flight", *keys(5)]))
        assert [each.result(ANSWER_SECONDS).outcome for each in others] == ["created"] * 5
        assert not waiting.done()
    assert (waiting.result(ANSWER_SECONDS).outcome, waiting.result().id) == ("replayed", theirs.id)


@pytest.mark.usefixtures("patient")
def test_a_key_whose_other_transaction_does_not_end_is_refused_to_its_own_caller_alone(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    with transaction(engine) as accepting:
        lone_producer.enqueue("test.add", ADD, idempotency_key="in-flight", connection=accepting)
        with transaction(engine) as connection:
            lone_producer.enqueue("test.add", ADD, idempotency_key="first", connection=connection)
            waiting, other = crowd(threads, engine, lone_producer, keyed(lone_producer, ["in-flight", "new"]))
        assert other.result(ANSWER_SECONDS).outcome == "created"
        with pytest.raises(KeyInFlight, match="ask again"):
            waiting.result(ANSWER_SECONDS)


def test_a_lone_request_that_waits_for_its_key_keeps_those_after_it_no_longer_than_a_moment(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    with transaction(engine) as accepting:
        lone_producer.enqueue("test.add", ADD, idempotency_key="in-flight", connection=accepting)
        waiting = threads.submit(enqueue, lone_producer, "in-flight")
        until(lambda: waiting_for_locks(engine))
        assert [enqueue(lone_producer, key).outcome for key in keys(5)] == ["created"] * 5
        assert not waiting.done()
    assert waiting.result(ANSWER_SECONDS).outcome == "replayed"


@pytest.mark.usefixtures("patient")
def test_batches_and_the_callers_own_transaction_go_their_own_way(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    with transaction(engine) as accepting:
        lone_producer.enqueue("test.add", ADD, idempotency_key="first", connection=accepting)
        asked = crowd(threads, engine, lone_producer, keyed(lone_producer, keys(3)))
        batch = lone_producer.enqueue_many([Request(action="test.add", params=ADD, idempotency_key=k) for k in "xy"])
        with transaction(engine) as own:
            mine = lone_producer.enqueue("test.add", ADD, idempotency_key="mine", connection=own)
        assert [job.outcome for job in (*batch, mine)] == ["created"] * 3
        assert not any(each.done() for each in asked)
    assert [each.result(ANSWER_SECONDS).outcome for each in asked] == ["created"] * 3


@pytest.mark.usefixtures("patient")
def test_a_statement_holds_no_more_requests_than_the_limit_and_no_large_ones(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    with transaction(engine) as connection:
        lone_producer.enqueue("test.add", ADD, idempotency_key="first", connection=connection)
        asked = crowd(threads, engine, lone_producer, keyed(lone_producer, keys(together.MOST)))
        asked += [threads.submit(ask) for ask in keyed(lone_producer, ["late-1", "late-2"])]
        large = enqueue(lone_producer, "large", reasoning="x" * single.SHARED_CHARACTERS)
    assert {each.result(ANSWER_SECONDS).outcome for each in asked} == {"created"}
    assert large.outcome == "created"
    assert max(map(len, written_together(engine))) == together.MOST
    assert ["large"] in written_together(engine)


# Jobs with this key take their time for as long as there is something in `slow`: in the statement, before its commit.
SLOW = """
CREATE TABLE slow AS SELECT 1;
CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN WHILE EXISTS (SELECT FROM slow) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NEW; END';
CREATE TRIGGER take_time BEFORE INSERT ON jobs FOR EACH ROW WHEN (NEW.idempotency_key = 'slow')
  EXECUTE FUNCTION take_time();
"""
SLEEPS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"


def administer(engine: Engine, *statements: str) -> None:
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def sleeps(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.exec_driver_sql(SLEEPS).scalar())


@pytest.mark.usefixtures("patient")
def test_a_statement_whose_connection_ended_before_its_commit_is_repeated_for_each(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    administer(engine, SLOW)
    with transaction(engine) as connection:
        connection.execute(text(NOBODY_INSERTS))
        asked = crowd(threads, engine, lone_producer, keyed(lone_producer, ["slow", *keys(MANY)]))
    until(lambda: sleeps(engine))
    administer(engine, "DELETE FROM slow", END)
    assert [each.result(ANSWER_SECONDS).outcome for each in asked] == ["created"] * (MANY + 1)
    assert len({each.result().id for each in asked}) == MANY + 1
    assert rows(engine) == rows(engine, "decisions") == rows(engine, "events") == MANY + 2


@pytest.mark.usefixtures("patient")
def test_a_statement_that_takes_too_long_is_given_up_for_each_alone(
    lone_producer: Producer, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    administer(engine, SLOW)
    with transaction(engine) as connection:
        connection.execute(text(NOBODY_INSERTS))
        slow, *others = crowd(threads, engine, lone_producer, keyed(lone_producer, ["slow", *keys(3)]))
    assert [each.result(ANSWER_SECONDS).outcome for each in others] == ["created"] * 3
    assert not slow.done()
    administer(engine, "DELETE FROM slow")
    assert slow.result(ANSWER_SECONDS).outcome == "created"


@pytest.fixture
def server(folder: Path) -> Iterator[Postgres]:
    """A Postgres of this test's own, to be stopped and started."""
    with Postgres(folder) as running:
        yield running


@pytest.mark.usefixtures("patient")
def test_a_ledger_that_goes_away_is_said_to_each_and_asking_again_is_safe(
    server: Postgres, redis_url: str, threads: ThreadPoolExecutor
) -> None:
    engine = open_engine(server.url, connections=3, name="tests")
    migrate(engine)
    with engine.connect() as connection:
        publish(connection, list(load(ACTION_MODULES).values()))
    producer = Producer(Settings(database_url=server.url, redis_url=redis_url))
    administer(engine, SLOW)
    with transaction(engine) as connection:
        connection.execute(text(NOBODY_INSERTS))
        asked = crowd(threads, engine, producer, keyed(producer, ["slow", *keys(MANY)]))
    until(lambda: sleeps(engine))
    engine.dispose()
    server.stop()
    for each in asked:
        with pytest.raises(LedgerUnavailable, match="Postgres cannot be reached"):
            each.result(ANSWER_SECONDS)
    server.start()
    administer(engine, "DELETE FROM slow")
    assert {enqueue(producer, key).outcome for key in ["slow", *keys(MANY)]} == {"created"}
    assert rows(engine) == MANY + 2
    producer.close()
    engine.dispose()
