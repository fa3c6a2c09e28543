"""Declaring what stands in for a result."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from pydantic import BaseModel

from tasks import Cause, Context, InvalidAction
from tasks._fallback import NOTHING
from tests.unit.test_spec import plain, spec_of


class Total(BaseModel):
    """A typed result."""

    total: int


def add(a: int, b: int = 2) -> Total:
    return Total(total=a + b)


def stranger(c: int) -> Total:
    return Total(total=c)


def two_contexts(a: Context, b: Context) -> Total:
    return Total(total=a.attempt + b.attempt)


class Callable_:  # noqa: N801  it stands for any
    """Something that can be called and is no function."""

    def __call__(self) -> Total:
        return Total(total=0)


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        pytest.param({"fallback": "none"}, "fallback= is not of the type that it returns", id="another type"),
        pytest.param({"fallback": None}, "fallback= is not of the type that it returns", id="none where none may be"),
        pytest.param({"fallback": stranger}, "'c' is none of the action's parameters, which are a, b", id="a stranger"),
        pytest.param({"fallback": two_contexts}, "declare one parameter as Context", id="two contexts"),
        pytest.param({"fallback": Callable_()}, "must be a plain value, or a function", id="a callable object"),
        pytest.param({"fallback": functools.partial(add, 1)}, "must be a plain value, or a function", id="a partial"),
        pytest.param({"fallback": add, "fallback_seconds": 0}, "fallback_seconds=0 must be", id="no time"),
        pytest.param({"fallback": add, "fallback_seconds": float("inf")}, "fallback_seconds=inf", id="all time"),
        pytest.param({"fallback": add, "fallback_seconds": True}, "fallback_seconds=True must be", id="a flag"),
        pytest.param({"supersede": True}, "supersede= needs fallback=", id="nothing to supersede"),
        pytest.param({"fallback": add, "supersede": -1}, "supersede=-1 must be", id="a true result in the past"),
        pytest.param({"fallback": add, "supersede": "later"}, "supersede='later' must be", id="no time at all"),
        pytest.param({"on_exhausted": "degrade"}, "on_exhausted='degrade' needs fallback=", id="nothing to stand in"),
        pytest.param({"on_exhausted": "ignore"}, "'ignore' is none of dead, degrade, fail", id="no such end"),
    ],
)
def test_a_fallback_that_cannot_work_is_refused_when_declared(declared: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidAction) as caught:
        spec_of(add, **declared)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        pytest.param({}, "dead", id="nothing declared"),
        pytest.param({"fallback": NOTHING}, "dead", id="nothing, in words"),
        pytest.param({"fallback": {"total": 0}}, "degrade", id="a fallback"),
        pytest.param({"fallback": {"total": 0}, "on_exhausted": "dead"}, "dead", id="a fallback for other occasions"),
        pytest.param({"on_exhausted": "fail"}, "fail", id="fail"),
    ],
)
def test_where_there_is_a_fallback_it_stands_in_unless_declared_otherwise(
    declared: dict[str, Any], expected: str
) -> None:
    assert spec_of(add, **declared).policy.on_exhausted == expected


def test_none_may_stand_in_for_what_may_be_none() -> None:
    def maybe() -> int | None:
        return 1

    fallback = spec_of(maybe, fallback=None).fallback
    assert fallback is not None
    assert (fallback.value, fallback.place) == (None, "value")


def test_a_function_gets_what_it_names_with_the_action_s_defaults() -> None:
    def guess(b: int, why: Cause) -> Total:
        return Total(total=b + len(why.rule))

    fallback = spec_of(add, fallback=guess).fallback
    assert fallback is not None
    cause = Cause("out of retries", None)
    context: Any = object()
    assert fallback.hook is not None
    assert fallback.cause_name == "why"
    assert fallback.hook.arguments({"a": 1}, context, why=cause) == {"b": 2, "why": cause}
    assert fallback.hook.arguments({"a": 1, "b": 5}, context, why=cause) == {"b": 5, "why": cause}
    assert fallback.place.endswith("guess")


def test_a_lambda_will_do() -> None:
    fallback = spec_of(plain, fallback=lambda a: a).fallback
    assert fallback is not None
    assert fallback.hook is not None
    assert fallback.hook.names == ("a",)


@pytest.mark.parametrize(("declared", "seconds"), [(False, None), (True, 600.0), (0, 0.0), (12.5, 12.5)])
def test_a_true_result_is_tried_for_after_the_longest_backoff_or_as_declared(
    declared: float | bool,  # noqa: FBT001  a parameter of the table
    seconds: float | None,
) -> None:
    assert spec_of(add, fallback=add, supersede=declared).supersede_after == seconds


def test_a_turn_of_a_conversation_is_not_superseded() -> None:
    def say(conversation_id: str) -> int:
        return len(conversation_id)

    with pytest.raises(InvalidAction, match="not for turns of a conversation"):
        spec_of(say, fallback=0, supersede=True, conversation="conversation_id")
