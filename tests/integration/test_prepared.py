"""Prepared statements, and what becomes of them behind a pooler."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, OperationalError

from producer.ledger.engine import open_engine
from producer.ledger.prepared import Prepared

HALF = Prepared("half", "SELECT 1 / (:number - 7)", number="int")
HOW = Prepared("how", "SELECT current_setting(:setting) AS way", setting="text")
DOUBLE = Prepared("double", "SELECT :number * 2, '100%' AS words", number="int")


def test_a_statement_is_planned_once_for_a_connection(engine: Engine) -> None:
    with engine.connect() as connection:
        assert [DOUBLE.run(connection, {"number": n})[0][0] for n in (1, 2, 3)] == [2, 4, 6]
        calls = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = 'double'"
        assert tuple(connection.exec_driver_sql(calls).one()) == (3, 0)


@pytest.mark.parametrize("loss", ["DEALLOCATE double", "the name is taken"])
def test_behind_a_pooler_that_loses_prepared_statements_it_is_planned_anew(engine: Engine, loss: str) -> None:
    with engine.connect() as connection:
        if loss == "the name is taken":  # by a client that had the same session before
            connection.exec_driver_sql("PREPARE double AS SELECT 1")
        else:
            DOUBLE.prepare(connection)
            connection.exec_driver_sql(loss)
        assert [DOUBLE.run(connection, {"number": n})[0][0] for n in (1, 2)] == [2, 4]
        assert DOUBLE.run(connection, {"number": 3})[0].words == "100%"


def test_what_is_planned_anew_may_join_as_it_likes_on_a_connection_that_plans_others_once(engine: Engine) -> None:
    with engine.connect() as connection:
        ways = [HOW.run_plain, HOW.run, HOW.run_plain, HOW.run]
        assert [how(connection, {"setting": "enable_hashjoin"})[0].way for how in ways] == ["on", "off", "on", "off"]


def test_both_ways_answer_alike(engine: Engine) -> None:
    with engine.connect() as connection:
        assert DOUBLE.run(connection, {"number": 4}) == DOUBLE.run_plain(connection, {"number": 4})


def test_its_errors_are_sqlalchemys_and_tell_no_parameter(engine: Engine) -> None:
    with engine.connect() as connection:
        with pytest.raises(DataError, match="division by zero") as caught:
            HALF.run(connection, {"number": 7})
        assert caught.value.params is None
        assert not caught.value.connection_invalidated
        assert HALF.run(connection, {"number": 8})[0][0] == 1


def test_a_lost_connection_is_noticed_and_the_rest_of_the_pool_goes_with_it(engine: Engine) -> None:
    with engine.connect() as first, engine.connect() as second:
        pids = [connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() for connection in (first, second)]
    with open_engine(engine.url.render_as_string(hide_password=False), connections=1, name="tests").connect() as other:
        for pid in pids:
            assert other.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 10000)").scalar()
    with engine.connect() as connection, pytest.raises(OperationalError) as caught:
        DOUBLE.run(connection, {"number": 1})
    assert caught.value.connection_invalidated
    with engine.connect() as connection, engine.connect() as another:
        assert [DOUBLE.run(each, {"number": 1})[0][0] for each in (connection, another)] == [2, 2]


NOTE = Prepared("note", "INSERT INTO noted SELECT :number, 'at 100%'", number="int")
SUM = Prepared("sum", "SELECT sum(n) / (:number - 7) AS total, max(words) AS words FROM noted", number="int")


@pytest.mark.parametrize("loss", ["", "DEALLOCATE note", "DEALLOCATE sum"])
def test_statements_in_one_message_see_what_those_before_them_wrote(engine: Engine, loss: str) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE noted (n int, words text)")
        for total in (3, 6):
            rows = SUM.run_after(connection, {"number": 8}, [(NOTE, {"number": 1}), (NOTE, {"number": 2})])
            assert (rows[0].total, rows[0].words) == (total, "at 100%")
            if loss:  # behind a pooler
                connection.exec_driver_sql("DEALLOCATE ALL" if total == 6 else loss)


def test_statements_in_one_message_are_taken_back_together(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE noted (n int, words text)")
        with pytest.raises(DataError, match="division by zero"):
            SUM.run_after(connection, {"number": 7}, [(NOTE, {"number": 1})])
        assert connection.exec_driver_sql("SELECT count(*) FROM noted").scalar() == 0
