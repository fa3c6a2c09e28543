"""Statements that Postgres parses and plans once for each connection, not once for each job.

Planning the statements of a job's way takes longer than executing them. The plans are generic, and made for a table
of any size: a plan made while the ledger was empty would scan it for as long as the connection lasts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg2
from psycopg2.extras import NamedTupleCursor
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
PLAN_ONCE = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off;"
    " SET enable_mergejoin = off; SET enable_hashjoin = {hashing}"
)
# What was set for those holds for the whole connection, and would have large joins go through rows pair by pair.
PLAN_ANEW = (
    "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on; SET LOCAL enable_mergejoin = on;"
    " SET LOCAL enable_hashjoin = on; "
)
PLANS_ONCE = "plans once"  # noted of a connection
# A pooler that hands each transaction another session: the statement is not there, or was somebody else's already.
NOT_OURS = frozenset({"26000", "42P05"})


class Prepared:
    """One statement, its parameters written ``:name``.

    Behind a pooler that hands each transaction another session, where prepared statements get lost, it is planned
    anew each time.
    """

    def __init__(self, name: str, sql: str, *, hashing: bool = False, **types: str) -> None:
        """Prepare nothing yet.

        Args:
            name: Unique in the connection.
            sql: The statement.
            hashing: Whether rows may be joined by hashing. Only where no table is joined so: a plan that was made
                while it was empty would read it from end to end.
            types: Each parameter's SQL type.
        """
        self.name, self.order = name, list(types)
        numbered = _PARAMETER.sub(lambda match: f"${self.order.index(match[1]) + 1}", sql)
        plan_once = PLAN_ONCE.format(hashing="on" if hashing else "off")
        self._prepare = f"{plan_once}; PREPARE {name} ({', '.join(types.values())}) AS {numbered}".replace("%", "%%")
        self._execute = f"EXECUTE {name} ({', '.join(['%s'] * len(types))})"
        self._plain = _PARAMETER.sub(lambda match: f"CAST(%({match[1]})s AS {types[match[1]]})", sql.replace("%", "%%"))

    def prepare(self, connection: Connection) -> None:
        """Prepare the statement on this connection, unless that was done before."""
        if self.name not in connection.info:
            connection.info[PLANS_ONCE] = True
            connection.exec_driver_sql(self._prepare)
            connection.info[self.name] = True

    def run(self, connection: Connection, parameters: Mapping[str, Any], *, ahead: str = "") -> Sequence[Any]:
        """Execute the statement, preparing it first where this connection has not seen it yet; return its rows.

        Args:
            connection: Our own, in autocommit.
            parameters: By name.
            ahead: What is said in the same message before it and holds for it alone, as ``SET LOCAL …;``.

        Raises:
            DBAPIError: SQLAlchemy's, as it would raise itself.
        """
        if connection.info.get(self.name) is False:
            return self.run_plain(connection, parameters, ahead=ahead)
        try:
            self.prepare(connection)
            return self._fetch(connection, ahead + self._execute, [parameters[name] for name in self.order])
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) not in NOT_OURS:
                raise
            connection.info[self.name] = False
            return self.run_plain(connection, parameters, ahead=ahead)

    def run_after(
        self,
        connection: Connection,
        parameters: Mapping[str, Any],
        before: Sequence[tuple[Prepared, Mapping[str, Any]]],
    ) -> Sequence[Any]:
        """Execute the statement after others, in one message and one transaction; return its own rows.

        Each of them sees what those before it have written, and all of it is taken back where one fails.

        Args:
            connection: Our own, in autocommit.
            parameters: By name.
            before: The others in their order, each with its parameters.

        Raises:
            DBAPIError: SQLAlchemy's, as it would raise itself.
        """
        steps = [*before, (self, parameters)]
        plain = any(connection.info.get(step.name) is False for step, _ in steps)
        try:
            return self._fetch_all(connection, steps, plain=plain)
        except DBAPIError as error:
            if plain or getattr(error.orig, "pgcode", None) not in NOT_OURS:
                raise
            connection.info.update(dict.fromkeys((step.name for step, _ in steps), False))
            return self._fetch_all(connection, steps, plain=True)

    def _fetch_all(
        self, connection: Connection, steps: Sequence[tuple[Prepared, Mapping[str, Any]]], *, plain: bool
    ) -> Sequence[Any]:
        if not plain:
            for step, _ in steps:
                step.prepare(connection)
        anew = PLAN_ANEW if plain and connection.info.get(PLANS_ONCE) else ""
        driver: Any = connection.connection
        with driver.cursor() as cursor:  # which only writes the parameters out
            texts = [cursor.mogrify(*step.written(given, plain=plain)).decode() for step, given in steps]
        return self._fetch(connection, anew + ";".join(texts), None)

    def written(self, parameters: Mapping[str, Any], *, plain: bool) -> tuple[str, Any]:
        """Return what is sent to execute the statement, prepared or `plain`, and its parameters as that has them."""
        if plain:
            return self._plain, dict(parameters)
        return self._execute, [parameters[name] for name in self.order]

    def run_plain(self, connection: Connection, parameters: Mapping[str, Any], *, ahead: str = "") -> Sequence[Any]:
        """Execute the statement without preparing it: in a caller's transaction, or for so many rows that it pays."""
        anew = PLAN_ANEW if connection.info.get(PLANS_ONCE) else ""
        return connection.exec_driver_sql(ahead + anew + self._plain, dict(parameters)).all()

    def execute_plain(self, connection: Connection, parameters: Mapping[str, Any]) -> None:
        """Execute the statement, which returns no rows, in a caller's transaction."""
        anew = PLAN_ANEW if connection.info.get(PLANS_ONCE) else ""
        connection.exec_driver_sql(anew + self._plain, dict(parameters))

    def _fetch(self, connection: Connection, statement: str, values: Sequence[Any] | None) -> Sequence[Any]:
        # By the driver itself: there is nothing to compile, and SQLAlchemy's way to a row is a third of what a
        # producer spends on accepting a job.
        driver: Any = connection.connection  # its stubs know no cursor that closes itself
        try:
            with driver.cursor(cursor_factory=NamedTupleCursor) as cursor:
                cursor.execute(statement, values)
                rows: list[Any] = cursor.fetchall()
                return rows
        except psycopg2.Error as error:
            gone = connection.dialect.is_disconnect(error, driver.driver_connection, None)
            if gone:  # as SQLAlchemy does itself: what else lies in the pool is no better
                connection.engine.pool._invalidate(driver, error)  # noqa: SLF001  there is no public way to say so
                connection.invalidate(error)
            raise _as_sqlalchemy(error, statement, gone=gone, dialect=connection.dialect) from error


def _as_sqlalchemy(error: psycopg2.Error, statement: str, *, gone: bool, dialect: Dialect) -> DBAPIError:
    # The parameters are somebody's data; an error's text is logged.
    made: DBAPIError = DBAPIError.instance(
        statement, None, error, psycopg2.Error, hide_parameters=True, connection_invalidated=gone, dialect=dialect
    )
    return made
