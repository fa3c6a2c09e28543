"""Prepared statements, and what becomes of them behind a pooler."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from producer.ledger.prepared import Prepared

DOUBLE = Prepared("double", "SELECT :number * 2, '100%' AS words", number="int")


def test_a_statement_is_planned_once_for_a_connection(engine: Engine) -> None:
    with engine.connect() as connection:
        assert [DOUBLE.run(connection, {"number": n}).scalar() for n in (1, 2, 3)] == [2, 4, 6]
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
        assert [DOUBLE.run(connection, {"number": n}).scalar() for n in (1, 2)] == [2, 4]
        assert DOUBLE.run(connection, {"number": 3}).one().words == "100%"


def test_both_ways_answer_alike(engine: Engine) -> None:
    with engine.connect() as connection:
        assert DOUBLE.run(connection, {"number": 4}).one() == DOUBLE.run_plain(connection, {"number": 4}).one()
