"""Statements with one defect each. A machine that finds nothing wrong with one of them would prove nothing."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from types import ModuleType

import pytest
from sqlalchemy import TextClause, text

from producer.ledger import accept
from producer.ledger.prepared import Prepared
from worker import rescue, statements


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect.

    Attributes:
        name: What is wrong then.
        module: Where the statement is.
        statement: Its name there.
        old: What is cut out of it, wherever it stands.
        new: What takes its place.
        rare: Whether the machine takes long to come upon it, so that only a run that looks further tries.
    """

    name: str
    module: ModuleType
    statement: str
    old: str
    new: str = ""
    rare: bool = False

    def put_in_place(self, patch: pytest.MonkeyPatch) -> None:
        """Have the product use the defect statement, until the patch is undone."""
        patch.setattr(self.module, self.statement, self._made(getattr(self.module, self.statement)))

    def _made(self, statement: Prepared | TextClause) -> Prepared | TextClause:
        if isinstance(statement, TextClause):
            return text(self._changed(statement.text, self.old))
        made = copy.copy(statement)
        places = {name: f"${number}" for number, name in enumerate(statement.order, 1)}
        old = re.sub(r"(?<!:):([a-z_]+)", lambda match: places[match[1]], self.old)
        made._prepare = self._changed(statement._prepare, old)  # noqa: SLF001  it is there to be broken
        return made

    def _changed(self, sql: str, old: str) -> str:
        assert old in sql, f"{self.name}: {self.statement} has no {old!r} any more"
        return sql.replace(old, self.new)


MUTANTS = (
    Mutant("a job is claimed before it is due", statements, "CLAIM", "due_at <= clock_timestamp() OR", "true OR"),
    Mutant(
        "a job is claimed past its deadline",
        statements,
        "CLAIM",
        "deadline_at IS NULL OR deadline_at > clock_timestamp()",
        "true",
    ),
    Mutant("a claim keeps the fence of the last one", statements, "CLAIM", ", fence = fence + 1"),
    Mutant("a job of another version is claimed", statements, "CLAIM", " AND j.action_version = a.version"),
    Mutant(
        "an intent is granted to whoever has the fence",
        statements,
        "INTEND",
        "j.lease_owner = :worker",
        "true",
        rare=True,
    ),
    Mutant(
        "an intent is granted after the lease ran out",
        statements,
        "INTEND",
        "AND m.alive AND NOT",
        "AND NOT",
        rare=True,
    ),
    Mutant(
        "a key is trusted from the last intent on", statements, "INTEND", "coalesce(j.repeatable_until, ", "coalesce("
    ),
    Mutant(
        "an outcome lands under an old fence",
        statements,
        "SETTLE",
        "coalesce(j.fence = a.fence AND",
        "coalesce(",
        rare=True,
    ),
    Mutant("an outcome lands from any state", statements, "SETTLE", " AND j.state = a.was"),
    Mutant("a renewal revives a lease that ran out", statements, "RENEW", "AND j.lease_expires_at > clock_timestamp()"),
    Mutant("the rescue ignores what runs", rescue, "RESCUE", "state IN ('claimed', 'running')", "state IN ('claimed')"),
    Mutant("the rescue leaves the fence as it is", rescue, "RESCUE", "fence = fence + 1, "),
    Mutant("one crash more is allowed", rescue, "RESCUE", "crashes + 1 >= :cap", "crashes + 1 > :cap", rare=True),
    Mutant(
        "an open job is run again",
        accept,
        "ACCEPT",
        "a.on_closed = 'rerun' AND l.state IN",
        "a.on_closed = 'rerun' OR l.state IN",
    ),
    Mutant("a request sent again finds a later job", accept, "ACCEPT", "j.id = a.id DESC, "),
)
