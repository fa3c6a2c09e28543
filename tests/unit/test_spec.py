"""Reading an action off its function: what is refused when it is declared, and what is made of the rest."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

from tasks import ActionSpec, Context, EffectClass, InvalidAction, Policy
from tasks._spec import make_spec

if TYPE_CHECKING:
    from fractions import Fraction


def spec_of(function: Callable[..., Any], *, policy: Policy | None = None, **declared: Any) -> ActionSpec:
    defaults = {"name": "test.it", "effect": "pure", "version": 1, "key_ttl": None, "queue": None, "dependency": None}
    defaults |= {"verify": None, "verify_after": 60.0, "verify_every": 30.0}
    return make_spec(function, {**defaults, "limits": {}, **declared}, policy or Policy())


def plain(a: int) -> int:
    """Say what it does.

    And more.
    """
    return a


# ---- refused when declared -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        pytest.param({"effect": None}, "effect=None is none of pure, idempotent, keyed, verifiable, unsafe", id="none"),
        pytest.param({"effect": "exactly_once"}, "effect='exactly_once' is none of", id="an effect class that is none"),
        pytest.param({"effect": "keyed"}, "is keyed; declare key_ttl=", id="keyed without a life of the key"),
        pytest.param({"effect": "keyed", "key_ttl": 0}, "is keyed; declare key_ttl=", id="keyed with no life"),
        pytest.param({"effect": "keyed", "key_ttl": -1}, "key_ttl=-1 must be more than 0", id="keyed with less"),
        pytest.param({"name": "send"}, "'send' (tests.unit.test_spec.plain) is not an action's name", id="one word"),
        pytest.param({"name": "Email.send"}, "is not an action's name; write one such as 'email.send'", id="capitals"),
        pytest.param({"name": "email.send\n"}, "is not an action's name", id="newline"),
        pytest.param({"name": "email..send"}, "is not an action's name", id="two dots"),
        pytest.param({"name": None}, "None (tests.unit.test_spec.plain) is not an action's name", id="no name"),
        pytest.param({"version": 0}, "version=0 must be more than 0", id="version 0"),
        pytest.param({"policy": Policy(timeout=0)}, "timeout=0 must be more than 0", id="no time"),
        pytest.param({"policy": Policy(timeout=float("inf"))}, "timeout=inf must be", id="all time"),
        pytest.param({"policy": Policy(max_retries=-1)}, "max_retries=-1 must be 0 or more", id="-1 retries"),
        pytest.param({"policy": Policy(max_repairs=-1)}, "max_repairs=-1 must be 0 or more", id="-1 repairs"),
        pytest.param(
            {"policy": Policy(max_repairs=1), "effect": "unsafe"}, "only what is pure is asked again", id="an effect",
        ),
        pytest.param({"policy": Policy(retry_backoff=-0.5)}, "retry_backoff=-0.5 must be 0 or more", id="back in time"),
        pytest.param({"policy": Policy(retry_backoff_max=float("nan"))}, "retry_backoff_max=nan", id="NaN"),
        pytest.param(
            {"policy": Policy(autoretry_for=cast("Any", ValueError))}, "must be a tuple of exceptions", id="one",
        ),
        pytest.param(
            {"policy": Policy(dont_autoretry_for=cast("Any", ("ValueError",)))}, "dont_autoretry_for=", id="its name",
        ),
    ],
)  # fmt: skip
def test_a_declaration_that_cannot_work_is_refused(declared: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidAction) as caught:
        spec_of(plain, **declared)
    assert problem in str(caught.value)


def untyped_parameter(a: int, b) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001  the point
    return a or b


def untyped_result(a: int):  # type: ignore[no-untyped-def]  # noqa: ANN201  the point
    return a


def any_number(*numbers: int) -> int:
    return sum(numbers)


def any_name(**names: int) -> int:
    return sum(names.values())


def by_position(a: int, /) -> int:
    return a


def type_checking_only(a: Fraction) -> int:
    return int(a)


def without_a_schema(a: Iterator[Callable[[], int]]) -> int:
    return len(list(a))


def result_without_a_schema() -> Callable[[], int]:
    return int


def two_contexts(a: Context, b: Context) -> int:
    return a.attempt + b.attempt


def perhaps_a_context(ctx: Context | None = None) -> int:
    return 0 if ctx is None else ctx.attempt


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (
            untyped_parameter,
            "(tests.unit.test_spec.untyped_parameter) needs a type for b: its schema is made from them",
        ),
        (untyped_result, "needs a type for return"),
        (any_number, "*numbers: 'int' cannot be given by name; declare each parameter"),
        (any_name, "**names: 'int' cannot be given by name; declare each parameter"),
        (by_position, "a: 'int' cannot be given by name"),
        (type_checking_only, "there is no 'Fraction' to make its schema from"),
        (without_a_schema, "one of its types has no JSON schema"),
        (result_without_a_schema, "one of its types has no JSON schema"),
        (two_contexts, "declare one parameter as Context, alone; not a, b"),
        (perhaps_a_context, "declare one parameter as Context, alone; not ctx"),
        (generator, "yields; an action returns one result"),
        (async_generator, "yields; an action returns one result"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_function_that_cannot_be_an_action_is_refused(function: Callable[..., Any], problem: str) -> None:
    with pytest.raises(InvalidAction) as caught:
        spec_of(function)
    assert problem in str(caught.value)


# ---- what is read off the function -----------------------------------------------------------------------------


def test_the_first_line_of_the_docstring_describes_the_action() -> None:
    assert spec_of(plain).description == "Say what it does."


def test_the_dependency_is_the_name_s_first_part_unless_named() -> None:
    assert (spec_of(plain).dependency, spec_of(plain, dependency="x").dependency) == ("test", "x")


async def coroutine(a: int) -> int:
    return a


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def around(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return around


@pytest.mark.parametrize(
    ("function", "is_async"),
    [pytest.param(plain, False, id="sync"), (coroutine, True), pytest.param(wrapped(coroutine), True, id="wrapped")],
)
def test_a_coroutine_function_is_told_from_a_plain_one(function: Callable[..., Any], is_async: bool) -> None:  # noqa: FBT001
    assert spec_of(function).is_async is is_async


def test_an_effect_can_hang_on_the_params() -> None:
    spec = spec_of(plain, effect=lambda params: "pure" if params["a"] else EffectClass.UNSAFE)
    assert (spec.effect_of({"a": 1}), spec.effect_of({"a": 0})) == (EffectClass.PURE, EffectClass.UNSAFE)


@pytest.mark.parametrize("said", ["maybe", None, 3, []])
def test_an_effect_that_is_none_is_refused_when_it_is_asked_for(said: Any) -> None:
    spec = spec_of(plain, effect=lambda _: said)
    with pytest.raises(InvalidAction, match=r"test\.it, by its params: effect=.* is none of pure, idempotent"):
        spec.effect_of({"a": 1})


def test_a_policy_is_published_as_plain_json() -> None:
    assert Policy(autoretry_for=(OSError, ValueError), max_retries=None).published() == {
        "autoretry_for": ["OSError", "ValueError"],
        "dont_autoretry_for": [],
        "max_retries": None,
        "max_repairs": 0,
        "retry_backoff": 1.0,
        "retry_backoff_max": 600.0,
        "retry_jitter": True,
        "timeout": 60.0,
        "on_exhausted": "dead",
    }
