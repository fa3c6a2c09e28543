"""A verify hook as it is declared: what is refused, and what it is called with."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tasks import CannotTell, Context, DidNotHappen, EffectClass, Happened, InvalidAction
from tasks._verify import Answer
from tests.unit.test_context import made_context
from tests.unit.test_spec import plain, spec_of


def send(reference: str, ctx: Context, amount: int = 5) -> str:  # noqa: ARG001
    return reference


def find(reference: str) -> Answer:
    return Happened(reference)


async def find_by_key(ctx: Context, amount: int) -> Answer:  # noqa: ARG001
    return CannotTell(ctx.downstream_key())


def many(*references: str) -> Answer:  # noqa: ARG001
    return DidNotHappen()


class Finder:
    """Can be called, and says nothing of its parameters."""

    def __call__(self, reference: str) -> Answer:
        return Happened(reference)


def stranger(iban: str) -> Answer:
    return Happened(iban)


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ({}, r"test\.it is verifiable; declare verify="),
        ({"verify": "find"}, "verify='find' must be a function that looks the effect up"),
        ({"verify": functools.partial(find)}, "must be a function that looks the effect up; write it with def"),
        ({"verify": Finder()}, "must be a function that looks the effect up; write it with def"),
        ({"verify": find, "verify_after": 0}, "verify_after=0 must be a number of seconds, more than 0"),
        ({"verify": find, "verify_every": float("inf")}, "verify_every=inf must be"),
        ({"verify": find, "verify_every": True}, "verify_every=True must be"),
        ({"verify": find, "verify_after": "60"}, "verify_after='60' must be"),
        ({"verify": many}, r"test\.it, verify: \*references: '?str'? cannot be given by name"),
        ({"verify": stranger}, "verify: 'iban' is none of the action's parameters, which are reference, ctx, amount"),
        ({"verify": find, "effect": "pure"}, "has verify= and is pure"),
        ({"verify": find, "effect": "idempotent"}, "has verify= and is idempotent"),
        ({"verify": find, "effect": "unsafe"}, "what a look-up settles is verifiable"),
    ],
)
def test_a_hook_that_cannot_work_is_refused_when_it_is_declared(declared: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidAction, match=problem):
        spec_of(send, **{"effect": "verifiable", **declared})


def test_an_effect_that_turns_out_verifiable_without_a_hook_is_refused() -> None:
    spec = spec_of(plain, effect=lambda _: "verifiable")
    with pytest.raises(InvalidAction, match=r"test\.it, by its params is verifiable; declare verify="):
        spec.effect_of({"a": 1})


def test_a_hook_is_given_what_it_names_with_the_actions_own_defaults() -> None:
    spec = spec_of(send, effect="verifiable", verify=find)
    assert spec.verify is not None
    assert spec.verify.arguments({"reference": "r", "ctx": None}, made_context()) == {"reference": "r"}
    by_key = spec_of(send, effect="keyed", key_ttl=60, verify=find_by_key).verify
    assert by_key is not None
    assert by_key.is_async
    ctx = made_context()
    assert by_key.arguments({"reference": "r"}, ctx) == {"amount": 5, "ctx": ctx}


@pytest.mark.parametrize(
    ("effect", "looked_up"),
    [("pure", False), ("idempotent", False), ("keyed", True), ("verifiable", True), ("unsafe", False)],
)
def test_what_is_looked_up_hangs_on_the_effect_class(effect: str, looked_up: bool) -> None:  # noqa: FBT001
    spec = spec_of(send, effect=lambda _: effect, verify=find)
    assert (spec.hook_for(EffectClass(effect)) is not None) is looked_up
