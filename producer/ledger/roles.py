"""Who has which role: the people that a policy names by what they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.engine import Connection

GRANT = text("""
INSERT INTO roles (tenant, role, person, granted_by) VALUES (:tenant, :role, :person, :who) ON CONFLICT DO NOTHING
RETURNING person
""")
REVOKE = text("DELETE FROM roles WHERE tenant = :tenant AND role = :role AND person = :person RETURNING person")
ROLES = text("""
SELECT role, person, granted_at, granted_by FROM roles WHERE tenant = :tenant ORDER BY role, person
""")


@dataclass(frozen=True, slots=True)
class Grant:
    """That somebody has a role, since when, and by whose word."""

    role: str
    person: str
    granted_at: datetime
    granted_by: str


def grant(connection: Connection, tenant: str, role: str, person: str, *, who: str) -> bool:
    """Give somebody a role; return whether it is new. One that he has stays as it is."""
    asked = {"tenant": tenant, "role": role, "person": person, "who": who}
    return connection.execute(GRANT, asked).one_or_none() is not None


def revoke(connection: Connection, tenant: str, role: str, person: str) -> bool:
    """Take a role from somebody; return whether he had it. What he decided stands."""
    return connection.execute(REVOKE, {"tenant": tenant, "role": role, "person": person}).one_or_none() is not None


def grants_of(connection: Connection, tenant: str) -> list[Grant]:
    """Return who has which role, by role."""
    return [Grant(*row) for row in connection.execute(ROLES, {"tenant": tenant})]
