"""What an exception means for its attempt, and how it is recorded."""

from __future__ import annotations

import asyncio
import copy
import pickle
import socket
from typing import Any

import pytest

from tasks import ActionError, Hold, Policy, Refused, Retry, Unknown
from tasks._classify import classify
from tasks._outcomes import MESSAGE_LIMIT, TRACEBACK_LIMIT, AttemptTimeout, describe
from tests.unit.test_spec import plain, spec_of


class OwnError(Refused):
    """An action's own kind, which is built in its own way."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"answered {status}")
        self.status, self.body = status, body


class Undecided(ActionError):
    """An action's own kind, which says nothing of its own."""


class Unspeakable(Exception):
    """An error that fails when it is asked what it is."""

    def __str__(self) -> str:
        raise RuntimeError("not even this")

    __repr__ = __str__


class Exiting(Exception):
    """An error that ends whoever asks it what it is."""

    def __init__(self, way: BaseException) -> None:
        super().__init__()
        self.way = way

    def __str__(self) -> str:
        raise self.way


class ExitingNotes(Exiting):
    """An error that does so when it is asked for more."""

    def __str__(self) -> str:
        return "so far so good"

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # the point
        raise self.way


# What was raised, and what it means: the effect, the advice.
RAISED = {
    "Retry": (Retry("a"), "none", "retry"),
    "Hold": (Hold("a"), "none", "hold"),
    "Refused": (Refused("a"), "refused", "refuse"),
    "Unknown": (Unknown("a"), "unknown", "retry"),
    "AttemptTimeout": (AttemptTimeout("a"), "unknown", "retry"),
    "an own kind of ActionError": (Undecided("a"), "unknown", "retry"),
    "an own kind of Refused": (OwnError(404, ""), "refused", "refuse"),
    # Of which of an action's calls? An earlier one may have had its effect; only the action itself can say.
    "a port that nobody listens on": (ConnectionRefusedError(), "unknown", "retry"),
    "a name that does not resolve": (socket.gaierror(), "unknown", "retry"),
    "a connection reset": (ConnectionResetError(), "unknown", "retry"),
    "TimeoutError": (TimeoutError(), "unknown", "retry"),
    "any exception": (ValueError("a"), "unknown", "retry"),
    "one that is not tried again": (KeyError("a"), "unknown", "refuse"),
    "a subclass of one that is not": (type("MyKeyError", (KeyError,), {})(), "unknown", "refuse"),
    "SystemExit": (SystemExit(3), "unknown", "refuse"),
    "KeyboardInterrupt": (KeyboardInterrupt(), "unknown", "refuse"),
    "CancelledError": (asyncio.CancelledError(), "unknown", "refuse"),
}


@pytest.mark.parametrize(("error", "effect", "advice"), RAISED.values(), ids=RAISED)
def test_an_exception_says_what_may_have_happened_and_what_to_do(
    error: BaseException, effect: str, advice: str
) -> None:
    failure = classify(error, spec_of(plain, policy=Policy(dont_autoretry_for=(KeyError,))))
    assert (failure.effect, failure.advice) == (effect, advice)


def test_an_action_error_is_not_the_policy_s_to_judge() -> None:
    assert classify(Retry(), spec_of(plain, policy=Policy(dont_autoretry_for=(Exception,)))).advice == "retry"


@pytest.mark.parametrize("kind", [Retry, Hold, Refused, Unknown])
def test_the_wait_that_was_asked_for_is_kept(kind: type[ActionError]) -> None:
    assert classify(kind("a", after=3), spec_of(plain)).after == 3.0


def test_a_wait_that_is_no_number_fails_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="soon"):
        Hold("a", after="soon")  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize(
    "error", [Retry("a", after=1.5), Hold(), Refused("b"), OwnError(404, "gone"), AttemptTimeout("c")], ids=repr
)
def test_an_action_error_survives_pickling_and_copying(error: ActionError) -> None:
    through_pickle = pickle.loads(pickle.dumps(error))  # noqa: S301  its own bytes
    for twin in (through_pickle, copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


# ---- as the ledger records it ----------------------------------------------------------------------------------


def raised(error: BaseException) -> dict[str, Any]:
    try:
        raise error
    except type(error) as caught:
        return describe(caught)


def test_an_error_is_recorded_with_type_message_and_traceback() -> None:
    recorded = raised(ValueError("that went wrong"))
    assert (recorded["type"], recorded["message"]) == ("ValueError", "that went wrong")
    assert recorded["traceback"].startswith("Traceback (most recent call last):")
    assert recorded["traceback"].endswith("ValueError: that went wrong\n")


def test_secrets_are_taken_out_of_message_and_traceback() -> None:
    recorded = raised(ValueError("password=hunter2canary and Bearer 0123456789canary"))
    assert "canary" not in str(recorded)
    assert recorded["message"] == "password=[redacted] and Bearer [redacted]"


def test_a_long_message_is_cut_in_the_middle() -> None:
    message = raised(ValueError("begin" + "x" * 100_000 + "end"))["message"]
    assert message.startswith("beginx")
    assert message.endswith("xend")
    assert "\n… 95,912 characters …\n" in message
    assert len(message) < MESSAGE_LIMIT + 50


def test_a_long_traceback_is_cut_in_the_middle() -> None:
    assert len(raised(ValueError("x" * 100_000))["traceback"]) < TRACEBACK_LIMIT + 50


def test_a_secret_is_not_shown_by_half_because_it_was_cut() -> None:
    padding = "x" * (MESSAGE_LIMIT // 2 - 10)
    assert "CANARY" not in raised(ValueError(f"{padding} sk_live_CANARYCANARYCANARYCANARY {padding}"))["message"]


@pytest.mark.parametrize(
    ("text", "recorded"),
    [("a\x00b", "a\\x00b"), ("a\ud800b", "a\\ud800b"), ("ä😀", "ä😀")],
    ids=["U+0000", "half a surrogate", "any other character"],
)
def test_what_postgres_cannot_store_is_written_out(text: str, recorded: str) -> None:
    described = raised(ValueError(text))
    assert described["message"] == recorded
    assert recorded in described["traceback"]


def test_an_error_that_cannot_say_what_it_is_is_recorded_all_the_same() -> None:
    recorded = raised(Unspeakable())
    assert recorded["type"] == "Unspeakable"
    assert recorded["message"] == "(its message cannot be had: RuntimeError)"


@pytest.mark.parametrize(
    "way", [SystemExit(4), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()], ids=repr
)
def test_an_error_that_would_end_whoever_prints_it_is_recorded_all_the_same(way: BaseException) -> None:
    recorded = raised(Exiting(way))
    assert (recorded["type"], recorded["message"]) == ("Exiting", f"(its message cannot be had: {type(way).__name__})")
    recorded = raised(ExitingNotes(way))
    assert (recorded["message"], recorded["traceback"]) == ("so far so good", "(its traceback cannot be had)")


def test_causes_are_recorded_with_the_error() -> None:
    with pytest.raises(Unknown) as caught:
        raise Unknown("no answer") from ConnectionResetError("by peer")
    assert "ConnectionResetError: by peer" in describe(caught.value)["traceback"]


def test_an_endless_recursion_is_recorded_in_few_lines() -> None:
    def recurse() -> None:
        recurse()

    with pytest.raises(RecursionError) as caught:
        recurse()
    assert describe(caught.value)["traceback"].count("\n") < 50
