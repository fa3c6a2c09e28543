"""What a relay does beside its jobs: when it is done again, and what becomes of the others where it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from worker.duty import REFUSED_PAUSE_SECONDS, Duty


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock."""
    now = [100.0]
    monkeypatch.setattr("worker.duty.time.monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] = seconds

    return move


def test_it_is_done_at_most_so_often_and_at_the_next_look_while_there_is_more(
    engine: Engine, at: Callable[[float], None]
) -> None:
    counts, done = iter([10, 3, 0, 0]), list[float]()

    def prune(_connection: Connection) -> int:
        done.append(moment)
        return next(counts)

    pruning = Duty("pruning", prune, every_seconds=60.0, batch=10)
    with engine.connect() as connection:
        said = []
        for moment in (100.0, 100.5, 101.0, 160.0, 161.0):
            at(moment)
            said.append(pruning.look(connection))
    assert done == [100.0, 100.5, 161.0]
    assert said == [True, False, False, False, False]


def test_one_without_a_measure_is_done_at_every_look(engine: Engine, at: Callable[[float], None]) -> None:
    done = list[Connection]()
    reading = Duty("reading", done.append)
    with engine.connect() as connection:
        for moment in (100.0, 100.0, 100.1):
            at(moment)
            assert not reading.look(connection)
    assert len(done) == 3


def test_what_postgres_refuses_is_tried_again_after_a_pause_over_the_same_connection(
    engine: Engine, at: Callable[[float], None]
) -> None:
    asked = list[object]()

    def ask(connection: Connection) -> None:
        asked.append(connection)
        connection.exec_driver_sql("SELECT * FROM nowhere")

    asking = Duty("asking", ask)
    with engine.connect() as connection:
        for moment in (100.0, 101.0, 99.0 + REFUSED_PAUSE_SECONDS, 100.0 + REFUSED_PAUSE_SECONDS):
            at(moment)
            assert not asking.look(connection)
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    assert len(asked) == 2


def test_a_connection_that_is_gone_is_the_relays_to_know(engine: Engine) -> None:
    done = list[int]()

    def work(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        done.append(1)

    working = Duty("working", work, every_seconds=60.0)
    with engine.connect() as connection, pytest.raises(DBAPIError):
        working.look(connection)
    with engine.connect() as connection, pytest.raises(DBAPIError):
        working.look(connection)  # at once, over the next one
    assert not done
