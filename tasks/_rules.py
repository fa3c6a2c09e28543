"""Policies: whether an action may run, for whom, and who has to be asked. Functions, or rules that are only data.

A policy is asked in the worker before each attempt, in the order in which policies were declared. It performs nothing
and decides nothing else: what it says is written down with its name and version, and the strictest word counts.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, TypeVar
from uuid import UUID

from producer.canonical import shown
from producer.envelope import NAME_LIMIT
from producer.people import key_of
from tasks._signature import InvalidAction, place_of

EXPIRES_SECONDS = 86_400.0
VALID_SECONDS = 86_400.0
LONGEST_SECONDS = 90 * 86_400.0
REASON_LIMIT = 1_000
MOST_PEOPLE = 100

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a policy is given: the request and who makes it. Its own copy: changing it changes nothing.

    Attributes:
        action: The action's name.
        version: Its major version.
        params: Its arguments by name, as they were accepted.
        tenant: Whose job it is.
        user_id: On whose behalf; None where the request did not say.
        agent_id: Who decided; None where the request did not say.
        request_id: The piece of work that it belongs to.
        job_id: The job.
        attempt: The attempt that it is asked for; 1 is the first.
        effect: The effect class of the action with these params.
        now: The time, in UTC.
    """

    action: str
    version: int
    params: Mapping[str, Any]
    tenant: str
    user_id: str | None
    agent_id: str | None
    request_id: str
    job_id: UUID
    attempt: int
    effect: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Allow:
    """Nothing speaks against it, as far as this policy goes."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    """It must not happen. The job is ``failed``, and no later policy changes that."""

    reason: str

    def __post_init__(self) -> None:
        """Refuse a refusal without a reason: nobody could do anything about it."""
        _check_reason(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequireApproval:
    """People have to be asked first.

    Attributes:
        reason: What they are asked, in a sentence.
        approvers: Who may decide, by name. With `roles` empty as well: anybody but who asked, and the agent.
        roles: Who has one of these may decide, too.
        quorum: How many different people have to approve; one who rejects is enough.
        expires_in: Seconds until nobody can decide it any more.
        valid_for: Seconds from the approval until the job has to have begun; later, people are asked anew.
        escalate_after: Seconds after which more people are asked, and an alert goes out; None for never.
        escalate_to: Who may decide then, too, by name.
        escalate_roles: And by role.
    """

    reason: str
    approvers: Sequence[str] = ()
    roles: Sequence[str] = ()
    quorum: int = 1
    expires_in: float = EXPIRES_SECONDS
    valid_for: float = VALID_SECONDS
    escalate_after: float | None = None
    escalate_to: Sequence[str] = ()
    escalate_roles: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what could never be decided."""
        _check_reason(self.reason)
        for word in ("approvers", "roles", "escalate_to", "escalate_roles"):
            _check_names(word, getattr(self, word))
        if type(self.quorum) is not int or not 1 <= self.quorum <= MOST_PEOPLE:
            raise ValueError(f"quorum={shown(self.quorum)} is not 1 to {MOST_PEOPLE}")
        named = {key_of(name) for name in (*self.approvers, *self.escalate_to)}
        if named and not self.roles and not self.escalate_roles and len(named) < self.quorum:
            raise ValueError(f"quorum={self.quorum} is more than the {len(named)} people that are named")
        for word in ("expires_in", "valid_for", "escalate_after"):
            seconds = getattr(self, word)
            if word == "escalate_after" and seconds is None:
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= LONGEST_SECONDS:
                raise ValueError(f"{word}={shown(seconds)} is not a number of seconds up to {LONGEST_SECONDS:g}")
        if self.escalate_after is None and (self.escalate_to or self.escalate_roles):
            raise ValueError("escalate_to= and escalate_roles= need escalate_after=, the seconds until they are asked")


Said = Allow | Deny | RequireApproval
PolicyFunction = Callable[[Asked], Said | Awaitable[Said]]


def allow(reason: str = "") -> Allow:
    """Let it pass, as far as this policy goes."""
    return Allow(reason)


def deny(reason: str) -> Deny:
    """Have it not happen, for a reason that whoever asked can do something with."""
    return Deny(reason)


require_approval = RequireApproval


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One policy, as it was declared.

    Attributes:
        name: Unique; in every verdict's event.
        version: Raise it when the policy means something else than before: what was approved under another is asked
            anew.
        pattern: The actions that it is asked for: a name, or one with ``*``.
        function: Says what it says. Sync or async.
        place: Where it is declared.
        is_data: Whether it only compares, and waits for nothing.
    """

    name: str
    version: int
    pattern: str
    function: PolicyFunction = field(repr=False)
    place: str
    is_data: bool = False

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    def matches(self, action: str) -> bool:
        """Whether it is asked for an action."""
        return fnmatchcase(action, self.pattern)


_rules: dict[str, Rule] = {}


def policy(pattern: str, *, version: int = 1, name: str | None = None) -> Callable[[F], F]:
    """Have a function asked before each attempt at the actions that match `pattern`.

    It is given an `Asked`, sync or async, and returns ``allow()``, ``deny(…)`` or ``require_approval(…)``. All that
    match are asked, in the order of declaration: one that denies is enough, and each that requires approval gets its
    own. One that raises, hangs or returns anything else lets nothing through: the job is held, and asked for again.

    Args:
        pattern: An action's name, or one with ``*``: ``payments.*``.
        version: See `Rule`.
        name: By default the function's own.

    Raises:
        InvalidAction: When the module is imported, if the declaration cannot work.

    Example:
        >>> @policy("payments.*", version=2)
        ... def large_sums(asked: Asked) -> Said:
        ...     if asked.params["amount"] < 1_000:
        ...         return allow()
        ...     return require_approval(reason="more than 1,000", roles=["finance"])
    """

    def register(function: F) -> F:
        place = place_of(function) if inspect.isroutine(function) else shown(function)
        _add(name or str(getattr(function, "__name__", "")), version, pattern, function, place)
        return function

    return register


def rule(name: str, pattern: str, then: Said, *, when: Mapping[str, Any] | None = None, version: int = 1) -> None:
    """Declare a policy that is only data: where all of `when` holds, `then`; else it lets pass.

    Args:
        name: Unique; in every verdict's event.
        pattern: As for `policy`.
        then: ``deny(…)`` or ``require_approval(…)``, or ``allow()``.
        when: What is looked at (``params.amount``, ``user_id``, ``agent_id``, ``tenant``, ``effect``, ``attempt``) and
            what it must be: a value, or ``{">": 1_000}`` with ``==``, ``!=``, ``>``, ``>=``, ``<``, ``<=``, ``in``,
            ``not in`` or ``like`` (``*@example.com``). What the request leaves out is None, which is more or less than
            nothing: such a comparison cannot be made, and the job is held.
        version: See `Rule`.

    Raises:
        InvalidAction: If the declaration cannot work.
    """
    conditions = dict(when or {})
    _check_conditions(name, conditions)
    if not isinstance(then, (Allow, Deny, RequireApproval)):
        raise InvalidAction(f"rule {name}: {shown(then)} is not deny(…), require_approval(…) or allow()")

    def judge(asked: Asked) -> Said:
        return then if all(_holds(_found(asked, path), wanted) for path, wanted in conditions.items()) else Allow()

    caller = inspect.currentframe()
    module = caller.f_back.f_globals.get("__name__", "?") if caller and caller.f_back else "?"
    _add(name, version, pattern, judge, f"{module}.{name}", is_data=True)


def rules_for(action: str) -> tuple[Rule, ...]:
    """Return the policies that are asked for an action, in order."""
    return tuple(each for each in _rules.values() if each.matches(action))


def declared_rules() -> Mapping[str, Rule]:
    """Return all policies of this process by name, in order."""
    return dict(_rules)


def _add(name: str, version: int, pattern: str, function: Any, place: str, *, is_data: bool = False) -> None:
    where = f"policy {name}"
    if not name or not name.isprintable() or len(name) > NAME_LIMIT:
        raise InvalidAction(f"{place}: a policy needs a name of 1 to {NAME_LIMIT} printable characters; give it name=")
    if type(version) is not int or version < 1:
        raise InvalidAction(f"{where}: version={shown(version)} must be 1 or more")
    if not isinstance(pattern, str) or not pattern:
        raise InvalidAction(f"{where}: {shown(pattern)} is no pattern of actions; write one such as 'payments.*'")
    if not inspect.isroutine(function):
        raise InvalidAction(f"{where}: {shown(function)} must be a function; write it with def")
    if len(inspect.signature(function).parameters) != 1:
        raise InvalidAction(f"{where} ({place}) must take one parameter, what is asked for")
    other = _rules.get(name)
    if other is not None and other.place != place:
        raise InvalidAction(f"{where} is declared twice: {other.place} and {place}")
    _rules[name] = Rule(name=name, version=version, pattern=pattern, function=function, place=place, is_data=is_data)


_FIELDS = frozenset({"user_id", "agent_id", "tenant", "effect", "attempt", "action", "request_id"})
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": lambda found, wanted: bool(found == wanted),
    "!=": lambda found, wanted: bool(found != wanted),
    ">": lambda found, wanted: bool(found > wanted),
    ">=": lambda found, wanted: bool(found >= wanted),
    "<": lambda found, wanted: bool(found < wanted),
    "<=": lambda found, wanted: bool(found <= wanted),
    "in": lambda found, wanted: found in wanted,
    "not in": lambda found, wanted: found not in wanted,
    "like": fnmatchcase,
}


def _check_conditions(name: str, conditions: Mapping[str, Any]) -> None:
    for path, wanted in conditions.items():
        if path not in _FIELDS and not path.startswith("params."):
            raise InvalidAction(
                f"rule {name}: {shown(path)} is nothing that can be looked at; write params.NAME, or one of"
                f" {', '.join(sorted(_FIELDS))}"
            )
        if isinstance(wanted, Mapping):
            unknown = [word for word in wanted if word not in _COMPARE]
            if unknown or not wanted:
                raise InvalidAction(
                    f"rule {name}: {path} is compared by {shown(unknown[0]) if unknown else 'nothing'}; there are"
                    f" {', '.join(_COMPARE)}"
                )


def _found(asked: Asked, path: str) -> Any:
    if path in _FIELDS:
        return getattr(asked, path)
    value: Any = asked.params
    for part in path.split(".")[1:]:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise TypeError(f"{path}: there is nothing within a {type(value).__name__}")
        value = value.get(part)
    return value


def _holds(found: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Mapping):
        return bool(found == wanted)
    return all(_COMPARE[word](found, value) for word, value in wanted.items())


def _check_reason(reason: Any) -> None:
    if not isinstance(reason, str) or not reason.strip() or len(reason) > REASON_LIMIT:
        raise ValueError(f"reason={shown(reason)} must say why, in 1 to {REASON_LIMIT:,} characters")


def _check_names(word: str, names: Any) -> None:
    if isinstance(names, str) or not isinstance(names, Sequence) or len(names) > MOST_PEOPLE:
        raise ValueError(f"{word}={shown(names)} must be a list of names")
    for name in names:
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > NAME_LIMIT:
            raise ValueError(f"{word} holds {shown(name)}, which is no name")
