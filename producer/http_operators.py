"""What operators have of `HttpProducer`: schedules, breakers, policies, keys and roles, by `Producer`'s methods.

Who says so is the holder of the key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote

from producer.breaker_words import Transition
from producer.breakers import BreakerRecord, Word
from producer.canonical import shown
from producer.envelope import DEFAULT_PRIORITY, plain_params
from producer.errors import (
    BreakerNotFound,
    InvalidRequest,
    InvalidSchedule,
    JobNotFound,
    KeyNotFound,
    PolicyNotFound,
    ScheduleNotFound,
)
from producer.keys import DEFAULT_RATE
from producer.ledger.keys import ApiKey, Scope
from producer.ledger.policies import PublishedPolicy
from producer.ledger.roles import Grant
from producer.ledger.schedules import ScheduleRecord
from producer.records import record_of
from producer.ticks import Rule

Ask = Callable[..., Any]


class HttpSchedules:
    """Methods and errors are those of `producer.schedules.Schedules`."""

    def __init__(self, ask: Ask) -> None:
        """Come from an HttpProducer, which asks."""
        self._asking = ask

    def add(
        self,
        name: str,
        action: str,
        params: Any = None,
        *,
        cron: str | None = None,
        every: int | timedelta | None = None,
        zone: str | None = None,
        missed: str = "latest",
        user_id: str | None = None,
        request_id: str | None = None,
        agent_id: str | None = None,
        reasoning: str | None = None,
        queue: str | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> ScheduleRecord:
        """Add a schedule, due from its next tick on. Adding the same again changes nothing."""
        seconds = int(every.total_seconds()) if isinstance(every, timedelta) else every
        said: dict[str, Any] = {
            "name": name,
            "action": action,
            "params": plain_params({} if params is None else params),
        }
        said |= {"cron": cron, "every": seconds, "zone": zone, "missed": missed, "priority": priority, "queue": queue}
        said |= {"user_id": user_id, "request_id": request_id, "agent_id": agent_id, "reasoning": reasoning}
        try:
            return _schedule(self._ask("POST", "", said, repeatable=True))
        except InvalidRequest as error:
            raise InvalidSchedule(error.where, error.problem) from None

    def get(self, name: str) -> ScheduleRecord:
        """Return a schedule as it stands."""
        return _schedule(self._ask("GET", f"/{quote(name, safe='')}"))

    def list(self) -> Sequence[ScheduleRecord]:
        """Return this tenant's schedules, by name."""
        return [_schedule(each) for each in self._ask("GET", "")["schedules"]]

    def pause(self, name: str, *, reason: str | None = None) -> ScheduleRecord:
        """Have a schedule make no more jobs until it is resumed."""
        return _schedule(self._ask("POST", f"/{quote(name, safe='')}/pause", query={"reason": reason}))

    def resume(self, name: str, *, reason: str | None = None) -> ScheduleRecord:
        """Have a paused schedule go on at its next tick."""
        return _schedule(self._ask("POST", f"/{quote(name, safe='')}/resume", query={"reason": reason}))

    def remove(self, name: str, *, reason: str | None = None) -> ScheduleRecord:
        """Remove a schedule and return it as it stood; its jobs stay."""
        return _schedule(self._ask("DELETE", f"/{quote(name, safe='')}", query={"reason": reason}))

    def next_ticks(self, name: str, count: int) -> Sequence[datetime]:
        """Return the next `count` ticks of a schedule, in UTC, as if it were not paused."""
        found = self._ask("GET", f"/{quote(name, safe='')}/ticks", query={"count": count})["ticks"]
        return [datetime.fromisoformat(each) for each in found]

    def _ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        try:
            return self._asking(method, f"/v1/schedules{path}", body, **{"repeatable": method == "GET"} | more)
        except JobNotFound as error:
            raise ScheduleNotFound(str(error)) from None


class HttpBreakers:
    """Methods and errors are those of `producer.breakers.Breakers`; all take a key with the scope ``admin``."""

    def __init__(self, ask: Ask) -> None:
        """Come from an HttpProducer, which asks."""
        self._ask = ask

    def list(self) -> Sequence[BreakerRecord]:
        """Return every breaker of which anything is known, by name."""
        found = self._ask("GET", "/v1/breakers", repeatable=True)["breakers"]
        return [record_of(BreakerRecord, each) for each in found]

    def get(self, name: str) -> BreakerRecord:
        """Return how one breaker stands."""
        there = {each.name: each for each in self.list()}
        if name not in there:
            near = get_close_matches(name, there, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise BreakerNotFound(f"nothing is known of a breaker {shown(name)}{hint}")
        return there[name]

    def history(self, name: str, *, limit: int = 50) -> Sequence[Transition]:
        """Return the latest transitions of a breaker, the newest first."""
        found = self._ask("GET", "/v1/breakers/history", query={"name": name, "limit": limit}, repeatable=True)
        return [record_of(Transition, each) for each in found["transitions"]]

    def force(
        self, name: str, word: Word, *, reason: str, seconds: float | None = None, new: bool = False
    ) -> BreakerRecord:
        """Override a breaker for the whole fleet, and return how it stands then."""
        said = {"name": name, "word": word, "reason": reason, "seconds": seconds, "new": new}
        try:
            return record_of(BreakerRecord, self._ask("POST", "/v1/breakers/force", said))
        except JobNotFound as error:
            raise BreakerNotFound(str(error)) from None


class HttpPolicies:
    """Methods and errors are those of `producer.policies.Policies`; retiring takes a key with the scope ``admin``."""

    def __init__(self, ask: Ask) -> None:
        """Come from an HttpProducer, which asks."""
        self._ask = ask

    def list(self) -> Sequence[PublishedPolicy]:
        """Return those that a worker has to have loaded to perform what they are asked about, by name."""
        found = self._ask("GET", "/v1/policies", repeatable=True)["policies"]
        return [record_of(PublishedPolicy, each, patterns=tuple(each["patterns"])) for each in found]

    def retire(self, name: str, *, reason: str) -> None:
        """Have nobody need a policy any more that no code declares."""
        try:
            self._ask("POST", "/v1/policies/retire", {"name": name, "reason": reason})
        except JobNotFound as error:
            raise PolicyNotFound(str(error)) from None


class HttpRoles:
    """Methods are those of `producer.roles.Roles`; changing them takes a key with the scope ``admin``."""

    def __init__(self, ask: Ask) -> None:
        """Come from an HttpProducer, which asks."""
        self._ask = ask

    def grant(self, role: str, person: str) -> None:
        """Give somebody a role; one that he has stays as it is."""
        self._ask("POST", "/v1/roles/grant", {"role": role, "person": person}, repeatable=True)

    def revoke(self, role: str, person: str) -> bool:
        """Take a role from somebody; return whether he had it."""
        had: bool = self._ask("POST", "/v1/roles/revoke", {"role": role, "person": person})["had"]
        return had

    def list(self) -> Sequence[Grant]:
        """Return who has which role, by role."""
        return [record_of(Grant, each) for each in self._ask("GET", "/v1/roles", repeatable=True)["grants"]]


class HttpKeys:
    """Methods and errors are those of `producer.keys.Keys`; all take a key with the scope ``admin``."""

    def __init__(self, ask: Ask) -> None:
        """Come from an HttpProducer, which asks."""
        self._ask = ask

    def create(
        self,
        name: str,
        scopes: Collection[Scope],
        *,
        seconds: float | None = None,
        rate_per_second: float = DEFAULT_RATE,
        reason: str | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; return it as it is on record, and itself, which cannot be had again."""
        said = {"name": name, "scopes": list(scopes), "seconds": seconds, "rate_per_second": rate_per_second}
        made = self._ask("POST", "/v1/keys", said | {"reason": reason})
        return _key(made["record"]), str(made["key"])

    def list(self) -> Sequence[ApiKey]:
        """Return the tenant's keys, the oldest first; those that ended, too."""
        return [_key(each) for each in self._ask("GET", "/v1/keys", repeatable=True)["keys"]]

    def revoke(self, key_id: str, *, in_seconds: float = 0.0, reason: str | None = None) -> ApiKey:
        """End a key: at once, or later, so that its holder can change over to another first."""
        said = {"in_seconds": in_seconds, "reason": reason}
        try:
            return _key(self._ask("POST", f"/v1/keys/{quote(key_id, safe='')}/revoke", said))
        except JobNotFound as error:
            raise KeyNotFound(str(error)) from None


def _key(told: Mapping[str, Any]) -> ApiKey:
    return record_of(ApiKey, told, scopes=tuple(told["scopes"]))


def _schedule(told: Mapping[str, Any]) -> ScheduleRecord:
    rule = Rule(cron=told["cron"], every=told["every"], zone=told["zone"])
    return record_of(ScheduleRecord, told, rule=rule)
