"""An action as data: what its author declared, and the schemas made from its signature."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from producer.canonical import canonical_json, is_finite, shown
from producer.errors import InvalidRequest
from tasks._budgets import CostHook, make_cost
from tasks._checks import make_checks
from tasks._classify import Classify, check_classify
from tasks._context import Context
from tasks._dependency import Dependency, DependencyOf, OnOpen, breaker_of, dependency_named, name_of, resolve_on_open
from tasks._fallback import Fallback, make_fallback, resolve_on_exhausted, supersede_after
from tasks._hook import Hook
from tasks._limits import ActionLimits
from tasks._policy import Policy, check_exceptions, check_numbers
from tasks._preview import make_preview
from tasks._signature import InvalidAction, adapter_of, context_name_of, hints_of, params_type, place_of
from tasks._undo import undo_of
from tasks._verify import VerifyHook, make_hook

# What pydantic raises that quotes no value; its other errors do, and so may an author's own.
_ABOUT_TYPES = ("Unable to serialize unknown type", "Circular reference detected", "Maximum serialization depth")

RING_SIZE = 100

NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


class EffectClass(StrEnum):
    """What an action does to the world, and so what may follow when nobody knows whether it did."""

    PURE = "pure"  # nothing outside changes
    IDEMPOTENT = "idempotent"  # doing it again changes nothing more
    KEYED = "keyed"  # the other side drops repeats of our key, for `key_ttl`
    VERIFIABLE = "verifiable"  # no key, but a look-up is authoritative
    UNSAFE = "unsafe"  # neither


EffectOf = Callable[[Mapping[str, Any]], EffectClass]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionSpec:
    """One action, complete.

    Attributes:
        name: Also the Celery task's name.
        function: The author's, sync or async.
        version: Major version; part of a request's fingerprint.
        effect: The effect class, or a function of the params that says it.
        key_ttl: Seconds for which the other side remembers our key; required for ``keyed``.
        queue: The Celery queue; None is the setting's.
        dependency: The name of what it calls on, or a function of the params that says it; by default the name's
            first part.
        declared: What the action itself declares of that; None where it only names it.
        on_open: What becomes of a job while the breaker of that is open: ``hold`` or ``degrade``.
        conversation: The parameter that names the conversation of which a job is a turn; None where it is none.
        limits: How much of it may run, and how often.
        verify: Looks up whether the effect happened; None where nobody can.
        preview: Says what it will change, for whoever is asked to approve it; None where nothing does.
        undo: The action that takes it back; None where nothing does.
        fallback: What stands in for a result that cannot be had; None where nothing does.
        supersede_after: Seconds after which a degraded job is tried once more for a true result; None is never.
        checks: The author's own checks of a result.
        confirm: Whether `verify` is asked after a success, too.
        classify: The author's own word on kinds of errors; None where the tables alone say.
        cost: What an attempt may cost at most; None where its author does not say.
        one_call: Whether an attempt makes one call at most, so that what is known of a call is known of the attempt.
        description: First line of the function's docstring.
        context_name: The parameter that receives the `Context`; None where it wants none.
    """

    name: str
    function: Callable[..., Any]
    version: int
    effect: EffectClass | EffectOf
    key_ttl: float | None
    queue: str | None
    dependency: str | DependencyOf
    declared: Dependency | None
    on_open: OnOpen
    conversation: str | None
    policy: Policy
    limits: ActionLimits
    verify: VerifyHook | None
    checks: tuple[Hook, ...]
    confirm: bool
    preview: Hook | None
    undo: str | None
    fallback: Fallback | None
    supersede_after: float | None
    classify: Classify | None
    cost: CostHook | None
    one_call: bool
    description: str
    context_name: str | None
    params: TypeAdapter[dict[str, Any]]
    result: TypeAdapter[Any]

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def ring_size(self) -> int:
        """How many jobs one ring may name: a worker performs all of them at once, which threads are too few for."""
        return RING_SIZE if self.is_async else 1

    def effect_of(self, params: Mapping[str, Any]) -> EffectClass:
        """Return the effect class of the action with these params.

        Raises:
            InvalidAction: If the action's own function of the params says something else.
        """
        if isinstance(self.effect, EffectClass):
            return self.effect
        effect = _effect_class(self.effect(params), place := f"{self.name}, by its params")
        if effect is EffectClass.VERIFIABLE and self.verify is None:
            raise InvalidAction(_unverified(place))
        return effect

    def hook_for(self, effect: EffectClass) -> VerifyHook | None:
        """Return what looks up whether an effect of this class happened; None where nothing does."""
        return self.verify if effect in (EffectClass.VERIFIABLE, EffectClass.KEYED) else None

    def dependency_of(self, params: Mapping[str, Any]) -> str:
        """Return the name of what the action calls on with these params."""
        return self.dependency if isinstance(self.dependency, str) else str(self.dependency(params))

    def breaker_of(self, tenant: str, params: Mapping[str, Any]) -> tuple[str, Dependency]:
        """Return the name of the breaker that a call with these params goes through, and its settings.

        A 429 holds what has that name, too.
        """
        dependency = dependency_named(self.dependency_of(params))
        return breaker_of(dependency, tenant, params), dependency

    def arguments(self, params: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """Return the function's keyword arguments, typed as it declares them.

        Raises:
            InvalidRequest: If the params do not fit: they were accepted under an older schema.
        """
        try:
            arguments = dict(self.params.validate_python(params))
        except Exception as error:  # noqa: BLE001  an author's own validator may raise anything
            raise InvalidRequest("params", _without_values(error, "read")) from None
        return arguments if self.context_name is None else arguments | {self.context_name: context}

    def plain_result(self, returned: Any) -> Any:
        """Return what the function returned as plain JSON of the declared type.

        Raises:
            InvalidRequest: Naming ``result``, if it is of another type or cannot be JSON.
        """
        try:
            typed = self.result.validate_python(returned)
            plain = self.result.dump_python(typed, mode="json", warnings="error")
            finite = is_finite(self.result.dump_python(typed))
        except Exception as error:  # noqa: BLE001  an author's own validator may raise anything
            raise InvalidRequest("result", _without_values(error, "written as JSON")) from None
        if not finite:  # pydantic writes these as null, and a result must not change on its way to the ledger
            raise InvalidRequest("result", "holds NaN or an infinity, which is not a JSON number; use null or text")
        canonical_json(plain, where="result")
        return plain


def make_spec(function: Callable[..., Any], declared: Mapping[str, Any], policy: Policy) -> ActionSpec:
    """Read an action's signature and check its declaration.

    Raises:
        InvalidAction: Saying which function, what is wrong, and what to write instead.
    """
    name, effect = declared["name"], declared["effect"]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidAction(f"{name!r} ({place_of(function)}) is not an action's name; write one such as 'email.send'")
    effect = effect if callable(effect) else _effect_class(effect, name)
    if effect is EffectClass.KEYED and not declared["key_ttl"]:
        raise InvalidAction(f"{name} is keyed; declare key_ttl=, the seconds for which the other side remembers a key")
    check_numbers(name, declared, policy)
    check_exceptions(name, policy)
    if policy.max_repairs and isinstance(effect, EffectClass) and effect is not EffectClass.PURE:
        raise InvalidAction(f"{name} is {effect} and has max_repairs=; only what is pure is asked again for its answer")
    limits = _limits(name, declared["limits"])
    verify = _verify(name, function, effect, declared)
    fallback = make_fallback(name, function, declared)
    hints = hints_of(function, name)
    returns = hints.pop("return")
    context_name = context_name_of(hints, name)
    spec = ActionSpec(
        name=name,
        function=function,
        version=declared["version"],
        effect=effect,
        key_ttl=declared["key_ttl"],
        queue=declared["queue"],
        dependency=name_of(declared["dependency"], default=name.partition(".")[0]),
        declared=declared["dependency"] if isinstance(declared["dependency"], Dependency) else None,
        on_open=resolve_on_open(name, declared.get("on_open"), has_fallback=fallback is not None),
        conversation=_conversation(function, name, hints, declared.get("conversation")),
        policy=replace(policy, on_exhausted=resolve_on_exhausted(name, declared.get("on_exhausted"), fallback)),
        limits=limits,
        verify=verify,
        checks=make_checks(name, function, declared.get("checks")),
        confirm=_confirm(name, verify, declared),
        preview=make_preview(name, function, declared.get("preview")),
        undo=undo_of(name, declared.get("undo")),
        fallback=fallback,
        supersede_after=supersede_after(name, declared, fallback, policy.retry_backoff_max),
        classify=check_classify(name, declared.get("classify")),
        cost=make_cost(name, function, declared.get("cost")),
        one_call=bool(declared.get("one_call")),
        description=(inspect.getdoc(function) or "").partition("\n")[0],
        context_name=context_name,
        params=adapter_of(params_type(function, name, hints, context_name), name, mode="validation"),
        result=adapter_of(returns, name, mode="serialization"),
    )
    _check_fallback(spec)
    return spec


def _check_fallback(spec: ActionSpec) -> None:
    """Hold a fallback that is a value to the result's type now: when it is wanted is no time to find out."""
    if spec.fallback is None or spec.fallback.hook is not None:
        return
    try:
        spec.plain_result(spec.fallback.value)
    except InvalidRequest as error:
        raise InvalidAction(f"{spec.name}: fallback= is not of the type that it returns: {error}") from None


def _limits(name: str, declared: Mapping[str, Any]) -> ActionLimits:
    try:
        return ActionLimits(**declared)
    except ValueError as error:
        raise InvalidAction(f"{name}: {error}") from None


def _verify(name: str, function: Callable[..., Any], effect: Any, declared: Mapping[str, Any]) -> VerifyHook | None:
    hook = declared["verify"]
    if hook is None:
        if effect is EffectClass.VERIFIABLE:
            raise InvalidAction(_unverified(name))
        return None
    if isinstance(effect, EffectClass) and effect not in (EffectClass.VERIFIABLE, EffectClass.KEYED):
        raise InvalidAction(f"{name} has verify= and is {effect}; what a look-up settles is verifiable, or keyed")
    return make_hook(name, function, hook, after=declared["verify_after"], every=declared["verify_every"])


def _confirm(name: str, verify: VerifyHook | None, declared: Mapping[str, Any]) -> bool:
    if declared.get("confirm") and verify is None:
        raise InvalidAction(f"{name}: confirm= needs verify=, the function that looks its effect up")
    return bool(declared.get("confirm"))


def _unverified(name: str) -> str:
    return f"{name} is verifiable; declare verify=, the function that looks its effect up"


def _effect_class(effect: Any, name: str) -> EffectClass:
    try:
        return EffectClass(effect)
    except ValueError:
        raise InvalidAction(f"{name}: effect={shown(effect)} is none of {', '.join(EffectClass)}") from None


def _conversation(function: Callable[..., Any], name: str, hints: Mapping[str, Any], parameter: Any) -> str | None:
    if parameter is None:
        return None
    if hints.get(parameter) not in (str, str | None):
        raise InvalidAction(f"{name}: conversation={shown(parameter)} names no parameter of type str, or str | None")
    default = inspect.signature(function).parameters[parameter].default
    if default not in (None, inspect.Parameter.empty):  # producers, who line the turns up, see only what they are given
        raise InvalidAction(f"{name}: {parameter} names a conversation, so its default is None or there is none")
    return str(parameter)


def _without_values(error: Exception, what_failed: str) -> str:
    """Word pydantic's findings by path and kind; its own text quotes the input, which may hold secrets."""
    if not isinstance(error, ValidationError):
        return f"cannot be {what_failed}: {error if str(error).startswith(_ABOUT_TYPES) else type(error).__name__}"
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in found[:5])
