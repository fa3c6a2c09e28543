"""Dependencies: what actions call on, and when the whole fleet stops calling it. Declared, checked and worked out here.

An action names its dependency. A name that nobody has declared has every setting's default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal, get_args

from producer.breaker_words import NAME_LIMIT
from producer.canonical import shown
from producer.redact import is_secret_name, redact_text
from tasks._signature import InvalidAction

DependencyWithoutRedis = Literal["local", "reject", "allow"]
OnOpen = Literal["hold", "degrade"]
DependencyOf = Callable[[Mapping[str, Any]], str]
Exclusion = type[BaseException] | Callable[[BaseException], bool]

TENANT = "tenant"
# How much of a tenant's or a parameter's value tells one breaker from another.
PART_LIMIT = 64
# How much of it is looked at for secrets: a token that is cut in two does not look like one.
VALUE_LIMIT = 4_096
LONGEST_SECONDS = 86_400.0
MOST_CALLS = 1_000_000
# A dependency that is well again is used again within twice its recovery time, however long it was away: this, a fifth
# more at random, and a probe.
RECOVERY_MAX = 1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dependency:
    """What actions call on, and when all workers stop calling it. None of a rule is no such rule.

    Attributes:
        name: How actions, the ledger and operators call it, such as ``llm``.
        fail_max: So many failures in a row, fleet-wide, open the breaker.
        failure_rate: So does this share of the calls in a window, above 0 and up to 1, ...
        min_calls: ... once there were so many.
        window_seconds: How far back these two look, in tenths of it.
        slow_call_seconds: A call that takes longer is slow.
        slow_rate: This share of slow calls opens it, too, under the same conditions.
        recovery_seconds: How long it stays open before one call may try; twice as long after each try that failed.
        recovery_max_seconds: The longest of these times; None is one and a half times `recovery_seconds`. Each is up
            to a fifth longer, at random.
        success_threshold: So many tries must succeed, one after another, to close it.
        release_per_second: How fast the jobs that waited for it come back once it is closed, the oldest first, and
            those that waited while it asked for patience.
        retry_share: This share of all first tries in ten seconds, fleet-wide, may be tried again; a retry beyond that
            waits. None has retries wait for their backoff alone.
        retries_per_second: So many may be in any case.
        without_redis: While Redis is away: ``local`` has each process break by itself, ``reject`` lets nothing run,
            ``allow`` everything.
        exclude: Exceptions, or functions of one, that say nothing against it: neither failure nor success; but a call
            that tries whether it is well again, and ends so, has found that it is.
        per: What has a breaker of its own beside the name: ``tenant``, or parameters, such as ``model``. Their values
            are in the breaker's name, which everybody may read and the history keeps for good.
    """

    name: str
    fail_max: int | None = 5
    failure_rate: float | None = 0.5
    min_calls: int = 20
    window_seconds: float = 30.0
    slow_call_seconds: float | None = None
    slow_rate: float = 0.5
    recovery_seconds: float = 60.0
    recovery_max_seconds: float | None = None
    success_threshold: int = 1
    release_per_second: float = 10.0
    retry_share: float | None = 0.1
    retries_per_second: float = 3.0
    without_redis: DependencyWithoutRedis = "local"
    exclude: tuple[Exclusion, ...] = ()
    per: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            InvalidAction: Saying which setting, and what to write instead.
        """
        if not isinstance(self.name, str) or not self.name.strip() or not _is_clean(self.name):
            raise InvalidAction(f"{shown(self.name)} is not a dependency's name; write one such as 'llm'")
        for word, optional in (("fail_max", True), ("min_calls", False), ("success_threshold", False)):
            self._check_count(word, optional=optional)
        for word, optional in (("failure_rate", True), ("slow_rate", False), ("retry_share", True)):
            self._check_number(word, 1.0, optional=optional)
        self._check_number("release_per_second", 1e6)
        self._check_number("retries_per_second", 1e6)
        for word, optional in (
            ("window_seconds", False),
            ("slow_call_seconds", True),
            ("recovery_seconds", False),
            ("recovery_max_seconds", True),
        ):
            self._check_number(word, LONGEST_SECONDS, optional=optional)
        if self.longest_recovery < self.recovery_seconds:
            raise self._invalid(
                "recovery_max_seconds", f"must be {self.recovery_seconds:g} or more, the first recovery"
            )
        self._check_words()

    @property
    def breaks(self) -> bool:
        """Whether calls can open its breaker; where not, only an operator can."""
        return any(each is not None for each in (self.fail_max, self.failure_rate, self.slow_call_seconds))

    @property
    def longest_recovery(self) -> float:
        """The longest time that it stays open before the next try, in seconds, but for the fifth at random."""
        known = self.recovery_max_seconds
        return min(LONGEST_SECONDS, RECOVERY_MAX * self.recovery_seconds) if known is None else known

    def published(self) -> dict[str, Any]:
        """Return it as plain JSON, as declared; what is excluded by name."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        return facts | {"exclude": [_named(each) for each in self.exclude], "per": list(self.per)}

    def _check_count(self, word: str, *, optional: bool) -> None:
        count = getattr(self, word)
        if count is None and optional:
            return
        if type(count) is not int or not 1 <= count <= MOST_CALLS:  # a bool is an int, and no number of calls
            raise self._invalid(word, f"must be a whole number from 1 to {MOST_CALLS}{', or None' * optional}")

    def _check_number(self, word: str, largest: float, *, optional: bool = False) -> None:
        number = getattr(self, word)
        if number is None and optional:
            return
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number <= largest:
            raise self._invalid(word, f"must be more than 0 and at most {largest:g}{', or None' * optional}")

    def _check_words(self) -> None:
        if self.without_redis not in get_args(DependencyWithoutRedis):
            raise self._invalid("without_redis", f"is none of {', '.join(get_args(DependencyWithoutRedis))}")
        if not isinstance(self.exclude, tuple) or not all(map(callable, self.exclude)):
            raise self._invalid("exclude", "must be a tuple of exceptions or functions of one")
        if not isinstance(self.per, tuple) or not all(isinstance(word, str) and word for word in self.per):
            raise self._invalid("per", "must be a tuple of names, such as ('tenant', 'model')")
        if any(map(is_secret_name, self.per)):
            problem = "names a secret, and everybody may read a breaker's name; take what it belongs to instead"
            raise self._invalid("per", problem)

    def _invalid(self, word: str, problem: str) -> InvalidAction:
        return InvalidAction(f"dependency {self.name}: {word}={shown(getattr(self, word))} {problem}")


_declared: dict[str, Dependency] = {}


def declare(dependency: Dependency) -> Dependency:
    """Have everybody who names this dependency go by this declaration; return it.

    Raises:
        InvalidAction: If one of its name is declared already, and says something else.
    """
    other = _declared.setdefault(dependency.name, dependency)
    if other is not dependency:
        mine, its = dependency.published(), other.published()
        differing = [word for word in mine if mine[word] != its[word]]
        if differing:
            raise InvalidAction(
                f"dependency {dependency.name} is declared twice, with another {', '.join(differing)};"
                " declare it once and name it elsewhere"
            )
    return other


def dependency_named(name: str) -> Dependency:
    """Return what was declared of a dependency; where nothing was, the defaults."""
    found = _declared.get(name)
    return Dependency(name=name) if found is None else found


def dependency_behind(breaker: str) -> Dependency:
    """Return what was declared of the dependency of a breaker, by the breaker's name; see `breaker_of`."""
    named = [name for name in _declared if breaker == name or breaker.startswith(f"{name} ")]
    return dependency_named(max(named, key=len, default=breaker))


def name_of(declared: Any, *, default: str) -> str | DependencyOf:
    """Return the name of what an action calls on, or its function of the params that says it.

    Raises:
        InvalidAction: If it is no name.
    """
    if declared is None:
        return default
    if isinstance(declared, Dependency):
        return declared.name
    return declared if callable(declared) else Dependency(name=declared).name  # which refuses what is no name


def resolve_on_open(name: str, declared: Any, *, has_fallback: bool) -> OnOpen:
    """Return what becomes of an action's jobs while its breaker is open; None degrades them where there is a fallback.

    Raises:
        InvalidAction: If it cannot be that.
    """
    if declared is None:
        return "degrade" if has_fallback else "hold"
    if declared not in get_args(OnOpen):
        raise InvalidAction(f"{name}: on_open={shown(declared)} is none of {', '.join(get_args(OnOpen))}")
    if declared == "degrade" and not has_fallback:
        raise InvalidAction(f"{name}: on_open='degrade' needs fallback=, the value or function that stands in")
    chosen: OnOpen = declared
    return chosen


def breaker_of(dependency: Dependency, tenant: str, params: Mapping[str, Any]) -> str:
    """Return the name of the breaker for these params: ``llm``, or ``llm tenant=acme model=small`` with `per`.

    It has no control characters and is never too long to be a key: what a tenant may say must not make it another's.
    What looks like a secret is taken out, since the name goes where everybody reads it; and so it tells nothing apart.
    """
    values = [tenant if word == TENANT else params.get(word) for word in dependency.per]
    parts = [
        f"{word}={_told(str(value)[:VALUE_LIMIT])[:PART_LIMIT]}"
        for word, value in zip(dependency.per, values, strict=True)
    ]
    name = " ".join([_told(dependency.name), *parts])[:NAME_LIMIT]
    return name if _is_clean(name) else ascii(name)[1 : NAME_LIMIT + 1]


_told = lru_cache(1_024)(redact_text)


def _is_clean(name: str) -> bool:
    return len(name) <= NAME_LIMIT and name.isprintable()


def _named(exclusion: Exclusion) -> str:
    return f"{getattr(exclusion, '__module__', '')}.{getattr(exclusion, '__qualname__', type(exclusion).__name__)}"
