"""Declaring an action's own checks, and that its successes are looked up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks import Context, Happened, InvalidAction, Policy
from tasks._spec import make_spec


def add(a: int, b: int = 2) -> int:
    """The action."""
    return a + b


def look(a: int) -> Happened:
    """Its look-up."""
    return Happened(a)


def spec_of(function: Callable[..., Any] = add, **declared: Any) -> Any:
    given: dict[str, Any] = {
        "name": "test.add",
        "effect": "pure",
        "version": 1,
        "key_ttl": None,
        "verify": None,
        "verify_after": 1.0,
        "verify_every": 1.0,
        "queue": None,
        "dependency": None,
        "limits": {},
    }
    return make_spec(function, given | declared, Policy())


def test_a_check_is_given_the_result_what_it_names_of_the_params_and_a_context() -> None:
    def check(result: int, b: int, ctx: Context) -> bool:
        return ctx is not None and result == b

    (hook,) = spec_of(checks=check).checks
    context: Any = object()
    assert hook.arguments({"a": 1}, context, result=3) == {"result": 3, "b": 2, "ctx": context}
    assert not hook.is_async


def test_an_action_without_checks_has_none() -> None:
    assert spec_of().checks == ()
    assert spec_of().confirm is False


def _without_result(a: int) -> bool:
    return bool(a)


def _of_another(result: int, c: int) -> bool:
    return result == c


def _with_a_result(result: int) -> int:
    return result


def _good(result: int) -> bool:
    return bool(result)


@pytest.mark.parametrize(
    ("function", "declared", "says"),
    [
        pytest.param(add, {"checks": 3}, "must be a function of the result", id="no function"),
        pytest.param(add, {"checks": [_good, "x"]}, "must be a function of the result", id="one of them no function"),
        pytest.param(add, {"checks": _without_result}, "takes no 'result'", id="a check of nothing"),
        pytest.param(add, {"checks": _of_another}, "'c' is none of the action's parameters", id="another's parameter"),
        pytest.param(_with_a_result, {"checks": _good}, "is in the way of the result's", id="a parameter of that name"),
        pytest.param(add, {"confirm": True}, "confirm= needs verify=", id="nothing to confirm with"),
    ],
)
def test_what_cannot_check_is_refused_when_the_module_is_imported(
    function: Callable[..., Any], declared: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidAction, match=says):
        spec_of(function, **declared)


def test_what_is_looked_up_may_be_confirmed() -> None:
    assert spec_of(effect="verifiable", verify=look, confirm=True).confirm is True
