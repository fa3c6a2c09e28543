"""The actions of this process by name, and the decorator that registers one."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeVar

from tasks._limits import WithoutRedis
from tasks._schedules import check_schedules
from tasks._signature import InvalidAction
from tasks._spec import ActionSpec, DependencyOf, EffectClass, EffectOf, Policy, make_spec
from tasks._verify import Verify

F = TypeVar("F", bound=Callable[..., Any])

_actions: dict[str, ActionSpec] = {}


def action(
    name: str,
    *,
    effect: str | EffectClass | EffectOf,
    version: int = 1,
    key_ttl: float | None = None,
    verify: Verify | None = None,
    verify_after: float = 60.0,
    verify_every: float = 30.0,
    queue: str | None = None,
    dependency: str | DependencyOf | None = None,
    conversation: str | None = None,
    autoretry_for: tuple[type[BaseException], ...] = (Exception,),
    dont_autoretry_for: tuple[type[BaseException], ...] = (),
    max_retries: int | None = 3,
    retry_backoff: float | bool = 1.0,
    retry_backoff_max: float = 600.0,
    retry_jitter: bool = True,
    timeout: float = 60.0,
    max_concurrency: int | None = None,
    fleet_concurrency: int | None = None,
    rate_limit: str | float | None = None,
    limits_without_redis: WithoutRedis = "local",
) -> Callable[[F], F]:
    """Register a typed function, sync or async, as an action. The function itself stays as it is.

    Args:
        name: Two or more lower-case words joined by dots, such as ``email.send``.
        effect: ``pure`` | ``idempotent`` | ``keyed`` | ``verifiable`` | ``unsafe``, or a function of the params that
            returns one. There is no default: what may follow a crash hangs on it.
        version: Raise it when the params mean something else than before.
        key_ttl: Seconds for which the other side remembers our key; required for ``keyed``.
        verify: Looks up whether the effect happened, where nobody knows; required for ``verifiable``. It takes those
            of the action's parameters that it names, and a `Context` if it wants one; it returns `Happened`,
            `DidNotHappen` or `CannotTell`.
        verify_after: Seconds after an attempt's timeout until none of its effects can arrive any more.
        verify_every: Seconds between two looks.
        queue: The Celery queue of this action's rings.
        dependency: What is held for everyone when it asks for patience, or a function of the params that says it;
            the name's first part by default.
        conversation: The parameter that names the conversation of which a job is a turn: one at a time, in the order
            of acceptance, with ``ctx.conversation``.
        autoretry_for: See `Policy`, as for the rest.
        dont_autoretry_for: See `Policy`.
        max_retries: See `Policy`.
        retry_backoff: See `Policy`.
        retry_backoff_max: See `Policy`.
        retry_jitter: See `Policy`.
        timeout: See `Policy`.
        max_concurrency: See `ActionLimits`, as for the rest.
        fleet_concurrency: See `ActionLimits`.
        rate_limit: See `ActionLimits`.
        limits_without_redis: See `ActionLimits`.

    Raises:
        InvalidAction: When the module is imported, if the declaration cannot work.

    Example:
        >>> @action("crm.note", effect="keyed", key_ttl=86_400, max_retries=5)
        ... def note(customer: str, text: str, ctx: Context) -> int: ...
    """
    policy = Policy(
        autoretry_for=autoretry_for,
        dont_autoretry_for=dont_autoretry_for,
        max_retries=max_retries,
        retry_backoff=float(retry_backoff),
        retry_backoff_max=retry_backoff_max,
        retry_jitter=retry_jitter,
        timeout=timeout,
    )
    declared = {
        "name": name,
        "effect": effect,
        "version": version,
        "key_ttl": key_ttl,
        "verify": verify,
        "verify_after": verify_after,
        "verify_every": verify_every,
        "queue": queue,
        "dependency": dependency,
        "conversation": conversation,
        "limits": {
            "max_concurrency": max_concurrency,
            "fleet_concurrency": fleet_concurrency,
            "rate_limit": rate_limit,
            "limits_without_redis": limits_without_redis,
        },
    }

    def register(function: F) -> F:
        _add(make_spec(function, declared, policy))
        return function

    return register


def load(modules: Iterable[str] = ()) -> Mapping[str, ActionSpec]:
    """Import every module of `tasks` and the `modules` named, and return all actions by name.

    Raises:
        InvalidAction: If a named module does not exist, or any declares an action that cannot work.
        InvalidSchedule: If one declares a schedule that cannot.
    """
    import tasks  # noqa: PLC0415  this module is part of it

    own = [f"tasks.{m.name}" for m in pkgutil.iter_modules(tasks.__path__) if not m.name.startswith("_")]
    for module in (*own, *modules):
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):  # it is there; something that it imports is not
                raise
            raise InvalidAction(f"there is no module {module!r} to load actions from; is it installed?") from error
    check_schedules(_actions)
    return MappingProxyType(_actions)


def _add(spec: ActionSpec) -> None:
    other = _actions.get(spec.name)
    if other is not None and _home(other) != _home(spec):
        raise InvalidAction(f"{spec.name} is declared twice: {_home(other)} and {_home(spec)}")
    _actions[spec.name] = spec


def _home(spec: ActionSpec) -> str:
    return f"{spec.function.__module__}.{spec.function.__qualname__}"
