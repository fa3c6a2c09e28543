"""What the role needs that producers, the API and workers come in by, and no more."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.engine import transaction_on
from producer.ledger.tables import metadata

# Nothing of these is ever changed; erasing takes the owner.
ADDED_TO = frozenset({"events", "acts", "seals", "breaker_events", "approval_votes", "messages"})
# Nor does any of these go, whatever becomes of it.
KEPT = frozenset({"jobs", "decisions", "actions"})
VERSION = "alembic_version"
CAN_LOGIN = text("SELECT rolsuper, pg_has_role(rolname, :owner, 'MEMBER') AS owns FROM pg_roles WHERE rolname = :role")
OWNER = text("SELECT tableowner FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'events'")


def grant_to(connection: Connection, role: str) -> str | None:
    """Give a role what it needs, and take all else from it, in one transaction; safe to repeat.

    Args:
        connection: The owner's, in autocommit.
        role: One that is there.

    Returns:
        Why that is of no use: there is no such role, or it is above such rights. None where it is done.
    """
    owner = connection.execute(OWNER).scalar_one()
    found = connection.execute(CAN_LOGIN, {"role": role, "owner": owner}).one_or_none()
    if found is None:
        return "there is no such role; make it first: CREATE ROLE … LOGIN PASSWORD …"
    if found.rolsuper or found.owns:
        return "it is a superuser, or owns the tables, and so may do everything"
    name = connection.dialect.identifier_preparer.quote_identifier(role)
    with transaction_on(connection):
        connection.exec_driver_sql(f"REVOKE ALL ON ALL TABLES IN SCHEMA {_schema(connection)} FROM {name}, PUBLIC")
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {_schema(connection)} TO {name}")
        connection.exec_driver_sql(f"GRANT SELECT ON {VERSION} TO {name}")
        for table in metadata.sorted_tables:
            rights = "SELECT, INSERT" + ("" if table.name in ADDED_TO else ", UPDATE")
            rights += "" if table.name in ADDED_TO | KEPT else ", DELETE"
            connection.exec_driver_sql(f"GRANT {rights} ON {table.name} TO {name}")
    return None


def _schema(connection: Connection) -> str:
    schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
    return connection.dialect.identifier_preparer.quote_identifier(str(schema))
