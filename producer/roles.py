"""Who has which role, for one tenant: the people that policies name by what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.engine import Connection

from producer.acting import actor
from producer.envelope import NAME_LIMIT, check_name
from producer.errors import InvalidRequest
from producer.ledger import roles as ledger
from producer.ledger.acts import act_of, on_record
from producer.ledger.roles import Grant


class Roles:
    """What ``producer.roles`` is. Safe to share between threads."""

    def __init__(self, tenant: str, read: Callable[[Callable[[Connection], Any]], Any]) -> None:
        """Work by `read`, which does something on a connection to the ledger."""
        self._tenant, self._read = tenant, read

    def grant(self, role: str, person: str, *, who: str | None = None) -> None:
        """Give somebody a role; one that he has stays as it is.

        Args:
            role: As policies name it.
            person: As he decides: what is given as ``by``.
            who: Who says so; by default the user that this process runs as.

        Raises:
            InvalidRequest: If one of these cannot be a name.
        """
        _check(role=role, person=person)
        by = actor(who)
        act = act_of(by, self._tenant, "grant role", f"{role} to {person}")
        self._read(lambda c: on_record(c, act, lambda: ledger.grant(c, self._tenant, role, person, who=by.who)))

    def revoke(self, role: str, person: str, *, who: str | None = None) -> bool:
        """Take a role from somebody; return whether he had it. What he decided stands."""
        _check(role=role, person=person)
        act = act_of(actor(who), self._tenant, "revoke role", f"{role} from {person}")
        had: bool = self._read(lambda c: on_record(c, act, lambda: ledger.revoke(c, self._tenant, role, person)))
        return had

    def list(self) -> Sequence[Grant]:
        """Return who has which role, by role."""
        found: Sequence[Grant] = self._read(lambda c: ledger.grants_of(c, self._tenant))
        return found


def _check(**names: object) -> None:
    for name, value in names.items():
        if value is None:
            raise InvalidRequest(name, "is missing")
        check_name(name, value, NAME_LIMIT)
