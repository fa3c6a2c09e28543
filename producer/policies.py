"""The policies that workers have published, and a person's word that one of them is needed no more.

They are the whole installation's, every tenant's. What each says is the workers' code, and nothing of it is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from sqlalchemy.engine import Connection

from producer.acting import actor, check_reason
from producer.canonical import shown
from producer.envelope import NAME_LIMIT, check_name
from producer.errors import InvalidRequest, PolicyNotFound
from producer.ledger import policies as ledger
from producer.ledger.acts import act_of, on_record
from producer.ledger.policies import PublishedPolicy


class Policies:
    """What ``producer.policies`` is. Safe to share between threads."""

    def __init__(self, tenant: str, read: Callable[[Callable[[Connection], Any]], Any]) -> None:
        """Work by `read`, which does something on a connection to the ledger; acts are this tenant's."""
        self._tenant, self._read = tenant, read

    def list(self) -> Sequence[PublishedPolicy]:
        """Return those that a worker has to have loaded to perform what they are asked about, by name."""
        found: Sequence[PublishedPolicy] = self._read(ledger.policies_in_force)
        return found

    def retire(self, name: str, *, reason: str, who: str | None = None) -> None:
        """Have nobody need a policy any more that no code declares: without it, workers perform again what it matched.

        Who has loaded it asks it all the same; and the next worker to start that declares it publishes it anew.

        Args:
            name: The policy's.
            reason: Why; kept on record.
            who: By default the user of this process.

        Raises:
            PolicyNotFound: If none of that name is published, or it is retired; says what was probably meant.
            InvalidRequest: If the reason is missing, or too long.
        """
        check_name("name", name, NAME_LIMIT)
        if not isinstance(reason, str) or not reason.strip():
            raise InvalidRequest("reason", "is missing: say why, for whoever asks why nobody was asked")
        check_reason(reason)
        act = act_of(actor(who), self._tenant, "retire policy", name, reason=reason)
        if self._read(lambda c: on_record(c, act, lambda: ledger.retire(c, name))):
            return
        names = [each.name for each in self.list()]
        near = get_close_matches(name, names, n=1)
        there = f"; there are {', '.join(names)}" if names else ""
        raise PolicyNotFound(
            f"there is no policy {shown(name)} in force" + (f"; did you mean {near[0]!r}?" if near else there)
        )
