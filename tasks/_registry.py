"""The actions of this process by name, and the decorator that registers one."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeVar

from tasks._budgets import CostOf
from tasks._checks import Check
from tasks._classify import Classify
from tasks._cost import Cost
from tasks._dependency import Dependency, DependencyOf, OnOpen, declare
from tasks._fallback import FALLBACK_SECONDS, NOTHING, OnExhausted
from tasks._limits import WithoutRedis
from tasks._policy import Policy
from tasks._schedules import check_schedules
from tasks._signature import InvalidAction
from tasks._spec import ActionSpec, EffectClass, EffectOf, make_spec
from tasks._undo import check_undoing
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
    confirm: bool = False,
    checks: Check | Iterable[Check] | None = None,
    preview: Callable[..., Any] | None = None,
    undo: str | None = None,
    queue: str | None = None,
    dependency: str | DependencyOf | Dependency | None = None,
    on_open: OnOpen | None = None,
    conversation: str | None = None,
    autoretry_for: tuple[type[BaseException], ...] = (Exception,),
    dont_autoretry_for: tuple[type[BaseException], ...] = (),
    classify: Classify | None = None,
    one_call: bool = False,
    cost: Cost | CostOf | None = None,
    max_retries: int | None = 3,
    max_repairs: int = 0,
    retry_backoff: float | bool = 1.0,
    retry_backoff_max: float = 600.0,
    retry_jitter: bool = True,
    timeout: float = 60.0,
    fallback: Any = NOTHING,
    fallback_seconds: float = FALLBACK_SECONDS,
    on_exhausted: OnExhausted | None = None,
    supersede: bool | float = False,
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
        confirm: Asks `verify` after each success, too: what it does not find to have happened is in doubt.
        checks: What the result has to be beside its type: functions, sync or async, of the ``result``, those of the
            action's parameters that they name, and a `Context` if they want one. None or True passes; text says what is
            wrong, as does whatever they raise.
        preview: Says what it will change, without changing it, for people who are asked to approve it: a function of
            those of the action's parameters that it names, and a `Context` if it wants one, which returns any JSON.
        undo: The action that takes it back: ``surefoot undo JOB`` asks for that, with those of its parameters that it
            names from the job's own, and the job's ``result`` where it names one.
        queue: The Celery queue of this action's rings.
        dependency: What it calls on: a name, a function of the params that says it, or a `Dependency` with its
            settings; the name's first part by default. It is held for everyone when it asks for patience, and its
            breaker opens for everyone when it fails.
        on_open: What becomes of a job while that is open: ``hold`` has it wait, ``degrade`` has the fallback stand in
            where certainly nothing happened; None is the latter where there is a fallback.
        conversation: The parameter that names the conversation of which a job is a turn: one at a time, in the order
            of acceptance, with ``ctx.conversation``.
        autoretry_for: See `Policy`, as for the rest.
        dont_autoretry_for: See `Policy`.
        classify: What kinds of errors mean, where the tables in docs/errors.md do not know them or do not fit: a
            mapping of exceptions to ``Retry``, ``Hold``, ``Refused`` or ``Unknown``, or a function of the exception.
        one_call: Promises that an attempt makes one call at most: of a call that never arrived it is then known that
            nothing happened.
        cost: What an attempt may cost at most, for `budget`: a `Cost`, or a function of those of the action's
            parameters that it names, and a `Context` if it wants one, that returns one at once.
        max_retries: See `Policy`.
        max_repairs: See `Policy`.
        retry_backoff: See `Policy`.
        retry_backoff_max: See `Policy`.
        retry_jitter: See `Policy`.
        timeout: See `Policy`.
        fallback: What stands in for a result that cannot be had, where certainly nothing happened: a plain value, or a
            function, sync or async, of those of the action's parameters that it names, a `Context` and a `Cause`. It is
            held to the result's type, and the job is ``degraded``.
        fallback_seconds: How long that function may take.
        on_exhausted: See `Policy`; None is ``degrade`` where there is a fallback, and else ``dead``.
        supersede: Has a degraded job leave another behind, due after so many seconds, or ``retry_backoff_max`` where it
            is True; if that brings a true result, the degraded job succeeds with it.
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
        max_repairs=max_repairs,
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
        "confirm": confirm,
        "checks": checks,
        "preview": preview,
        "undo": undo,
        "queue": queue,
        "dependency": dependency,
        "on_open": on_open,
        "conversation": conversation,
        "classify": classify,
        "one_call": one_call,
        "cost": cost,
        "fallback": fallback,
        "fallback_seconds": fallback_seconds,
        "on_exhausted": on_exhausted,
        "supersede": supersede,
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
    check_undoing(_actions)
    return MappingProxyType(_actions)


def _add(spec: ActionSpec) -> None:
    other = _actions.get(spec.name)
    if other is not None and _home(other) != _home(spec):
        raise InvalidAction(f"{spec.name} is declared twice: {_home(other)} and {_home(spec)}")
    if spec.declared is not None:
        declare(spec.declared)
    _actions[spec.name] = spec


def _home(spec: ActionSpec) -> str:
    return f"{spec.function.__module__}.{spec.function.__qualname__}"
