"""Policies as the ledger knows them: what code declares, for whom to have loaded it, until a person retires it.

What each one says is code, and stays with the workers. Here is only that there is such a one, so that a worker that has
not loaded it does not take for unguarded what somebody else's module guards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.engine import transaction_on

# Changes are numbered in the order in which they are committed, so each waits for the one before.
CHANGE_LOCK = 0x5EEF901  # the number only has to be ours
LOCK = text("SELECT pg_advisory_xact_lock(:lock)")
COLUMNS = "name, version, patterns, declared_in, published_at, retired_at, changed"
NEXT = "(SELECT coalesce(max(changed), 0) + 1 FROM policies)"

# The row as it is stands on the left. An older version changes nothing, nor does what is known already: a worker that
# only starts is no news to the others.
PUBLISH = text(f"""
INSERT INTO policies AS p (name, version, patterns, declared_in, changed)
SELECT name, version, ARRAY[pattern], declared_in, {NEXT}
FROM json_to_recordset(CAST(:declared AS json)) AS d(name text, version int, pattern text, declared_in text)
ORDER BY name
ON CONFLICT (name) DO UPDATE SET version = excluded.version, declared_in = excluded.declared_in,
  patterns = CASE WHEN p.retired_at IS NULL AND p.version = excluded.version
                  THEN p.patterns || excluded.patterns ELSE excluded.patterns END,
  published_at = clock_timestamp(), retired_at = NULL, changed = excluded.changed
WHERE p.retired_at IS NOT NULL OR p.version < excluded.version
  OR (p.version = excluded.version AND NOT p.patterns @> excluded.patterns)
RETURNING name
""")
RETIRE = text(f"""
UPDATE policies SET retired_at = clock_timestamp(), changed = {NEXT} WHERE name = :name AND retired_at IS NULL
RETURNING name
""")
IN_FORCE = text(f"SELECT {COLUMNS} FROM policies WHERE retired_at IS NULL ORDER BY name")
# All of them, those that are retired, too, where anything has changed since; else none.
NEWS = text(f"""
SELECT {COLUMNS} FROM policies
WHERE (SELECT max(changed) FROM policies) IS DISTINCT FROM CAST(:known AS bigint) ORDER BY name
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredPolicy:
    """A policy on its way into the ledger."""

    name: str
    version: int
    pattern: str
    declared_in: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPolicy:
    """A policy that some worker's code declares, or did.

    Attributes:
        version: The newest that was published.
        patterns: The actions that this version is asked about.
        declared_in: Where, as the one said who published it last.
        published_at: When that was.
        retired_at: Since when nobody has to have loaded it; None where a worker has to.
        changed: Counts the changes of all policies; this one's last.
    """

    name: str
    version: int
    patterns: tuple[str, ...]
    declared_in: str
    published_at: datetime
    retired_at: datetime | None
    changed: int

    def matches(self, action: str) -> bool:
        """Whether it is asked about an action."""
        return any(fnmatchcase(action, pattern) for pattern in self.patterns)


def publish_declared(connection: Connection, declared: Iterable[DeclaredPolicy]) -> list[str]:
    """Put on record which policies code declares; return the names of those that are new, or changed by that.

    What no code declares any more stays until somebody retires it: a gate does not open by itself.
    """
    rows = [{name: getattr(each, name) for name in DeclaredPolicy.__dataclass_fields__} for each in declared]
    if not rows:
        return []
    with transaction_on(connection):
        connection.execute(LOCK, {"lock": CHANGE_LOCK})
        return list(connection.execute(PUBLISH, {"declared": json.dumps(rows)}).scalars())


def retire(connection: Connection, name: str) -> bool:
    """Have nobody need a policy any more; return whether there was one of that name. In the caller's transaction."""
    connection.execute(LOCK, {"lock": CHANGE_LOCK})
    return connection.execute(RETIRE, {"name": name}).one_or_none() is not None


def policies_in_force(connection: Connection) -> list[PublishedPolicy]:
    """Read the policies that a worker has to have loaded, by name."""
    return [_policy(row) for row in connection.execute(IN_FORCE).mappings()]


def news(connection: Connection, known: int | None) -> Sequence[PublishedPolicy]:
    """Read all policies, the retired ones, too, if anything has changed since `known`; else none.

    Args:
        connection: Any.
        known: The highest `changed` that the caller has read; None where he has read none.
    """
    return [_policy(row) for row in connection.execute(NEWS, {"known": known}).mappings()]


def _policy(row: object) -> PublishedPolicy:
    facts = dict(row)  # type: ignore[call-overload]  # a mapping
    return PublishedPolicy(**facts | {"patterns": tuple(facts["patterns"])})
