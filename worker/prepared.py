"""Statements that Postgres parses and plans once for each connection, not once for each job.

Planning a worker's three statements takes longer than executing them. The plans are generic, and made for a table
of any size: a plan made while the ledger was empty would scan it for as long as the connection lasts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import CursorResult
from sqlalchemy.engine import Connection

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
PLAN_ONCE = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off;"
    " SET enable_hashjoin = off; SET enable_mergejoin = off"
)


class Prepared:
    """One statement, its parameters written ``:name``.

    Needs a session of its own: a pooler that hands each transaction another session knows no prepared statements.
    """

    def __init__(self, name: str, sql: str, **types: str) -> None:
        """Prepare nothing yet.

        Args:
            name: Unique in the connection.
            sql: The statement.
            types: Each parameter's SQL type.
        """
        self.name, self.order = name, list(types)
        numbered = _PARAMETER.sub(lambda match: f"${self.order.index(match[1]) + 1}", sql)
        self._prepare = f"{PLAN_ONCE}; PREPARE {name} ({', '.join(types.values())}) AS {numbered}".replace("%", "%%")
        self._execute = f"EXECUTE {name} ({', '.join(['%s'] * len(types))})"

    def prepare(self, connection: Connection) -> None:
        """Prepare the statement on this connection, unless that was done before."""
        if self.name not in connection.info:
            connection.exec_driver_sql(self._prepare)
            connection.info[self.name] = True

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> CursorResult[Any]:
        """Execute the statement, preparing it first where this connection has not seen it yet."""
        self.prepare(connection)
        return connection.exec_driver_sql(self._execute, tuple(parameters[name] for name in self.order))
