"""How an attempt can end, in the words that actions use and the worker decides by.

An action returns its result, or raises. What it raises says two things: whether the effect may have happened, and
whether trying again makes sense. An exception that says neither is taken for the worst: unknown.
"""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from typing import Any, Literal

from producer.errors import SurefootError
from producer.redact import redact_text

Effect = Literal["none", "refused", "unknown"]
Advice = Literal["retry", "hold", "refuse", "return"]
# What the end of a call says of whom was called: that it is not well; that it is there, since it answered; or neither.
Says = Literal["ill", "answered", "nothing"]

TRACEBACK_LIMIT = 16_384
MESSAGE_LIMIT = 4_096
ANSWER_LIMIT = 16_384


class ActionError(SurefootError):
    """An attempt did not succeed.

    Attributes:
        effect: ``none`` where nothing can have happened outside, ``refused`` where the other side said that it did
            nothing; ``unknown`` where something may have.
        advice: ``retry`` by the action's policy, ``hold`` without spending an attempt, or ``refuse`` for good.
        after: Seconds that the other side asked us to wait; None where it did not say.
        says: What it says of whom was called; None is as `says_of` has it.
    """

    effect: Effect = "unknown"
    advice: Advice = "retry"
    after: float | None = None
    says: Says | None = None

    def __init__(self, message: str | None = None, *, after: float | None = None) -> None:
        """Keep `after` beside the message."""
        super().__init__(message)
        self.after = None if after is None else float(after)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the constructor, which an action's own kind of error may have changed."""
        return _rebuild, (type(self), self.args), dict(vars(self))


class Retry(ActionError):
    """Nothing happened outside; trying again later may work."""

    effect: Effect = "none"


class Hold(ActionError):
    """Nothing happened outside, and the other side asks for patience: no attempt is spent."""

    effect: Effect = "none"
    advice: Advice = "hold"


class Refused(ActionError):
    """The other side said no for good, and did nothing."""

    effect: Effect = "refused"
    advice: Advice = "refuse"


class Unknown(ActionError):
    """The request left and no answer settles whether it had its effect."""


class InvalidAnswer(ActionError):
    """The other side answered, and with nothing that the action can use; a model is asked to repair it.

    Attributes:
        answer: What it said.
    """

    def __init__(self, message: str | None = None, *, answer: Any = None) -> None:
        """Keep the answer beside the message."""
        super().__init__(message)
        self.answer = answer


class BudgetShort(ActionError):
    """A budget has too little left for a further call of the attempt; that call must not be made.

    What it made before may have had its effect, and only its action knows: where nothing has happened yet, that says
    so with `Retry` or `Refused`.

    Attributes:
        budget: Its name.
    """

    says: Says | None = "nothing"

    def __init__(
        self, message: str | None = None, *, budget: str = "", after: float | None = None, advice: Advice = "retry"
    ) -> None:
        """Keep what the budget says follows: ``retry`` after so many seconds, or ``refuse``."""
        super().__init__(message, after=after)
        self.budget, self.advice = budget, advice


class AttemptTimeout(Unknown):
    """The attempt did not end within the action's timeout."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt, as data.

    Attributes:
        effect: See `ActionError`.
        advice: See `ActionError`; or ``return`` where the worker stops and gives the job back: it does not count.
        after: See `ActionError`; seconds.
        error: ``{"type", "message", "traceback"}``, secrets redacted, as the ledger records it.
        says: What it says of whom was called, which is its breaker's business and not the job's.
    """

    effect: Effect
    advice: Advice
    after: float | None
    error: dict[str, Any]
    says: Says = "ill"


@dataclass(frozen=True, slots=True)
class InvalidResult:
    """The action returned what its declared type refuses, or the other side answered so; the effect, if any, happened.

    Attributes:
        answer: What it was, as text, for the attempt that repairs it.
    """

    error: dict[str, Any]
    answer: str = ""


@dataclass(frozen=True, slots=True)
class FollowUpsRefused:
    """The action succeeded, but asked for follow-ups that cannot be accepted; the effect, if any, has happened."""

    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Success:
    """The action's result as plain JSON."""

    result: Any


Outcome = Success | InvalidResult | FollowUpsRefused | Failure


def says_of(effect: Effect, advice: Advice) -> Says:
    """Return what a call that ended so says of whom was called, as far as these two tell."""
    if advice == "retry":
        return "ill"
    return "answered" if advice == "refuse" and effect != "none" else "nothing"


def describe(error: BaseException) -> dict[str, Any]:
    """Return an exception as the ledger records it, secrets redacted, long texts cut in the middle.

    Whatever the error's own methods raise is only noted, be it SystemExit: this is called on a worker's loop.
    """
    try:
        lines = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001  an exception that cannot be printed must be recorded all the same
        lines = "(its traceback cannot be had)"
    return {
        "type": type(error).__name__,
        "message": told(_message(error), MESSAGE_LIMIT),
        "traceback": told(lines, TRACEBACK_LIMIT),
    }


def invalid(error: BaseException, answer: Any) -> InvalidResult:
    """Return what came of an answer that cannot be used, which may be of any kind."""
    try:
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, default=repr)
    except BaseException:  # noqa: BLE001  as above: what it is made of may raise anything
        text = f"(a {type(answer).__name__})"
    return InvalidResult(describe(error), _clipped(text, ANSWER_LIMIT, 0))


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as second:  # noqa: BLE001  an error that cannot say what it is must be recorded all the same
        return f"(its message cannot be had: {type(second).__name__})"


def told(text: str, limit: int) -> str:
    """Return a text as the ledger and the log may have it: secrets redacted, cut in the middle if it is long."""
    # Cut first, amply: looking through megabytes for secrets would hold everybody else up.
    left_out = max(0, len(text) - 4 * limit)
    if left_out:
        text = text[: 2 * limit] + text[-2 * limit :]
    return _clipped(redact_text(text), limit, left_out)


def _clipped(text: str, limit: int, left_out: int) -> str:
    # Postgres refuses U+0000, and half a surrogate pair is not text; an error must be recorded all the same.
    text = text.replace("\x00", "\\x00").encode(errors="backslashreplace").decode()
    half, more = limit // 2, len(text) - limit
    if more <= 0:
        return text
    return f"{text[:half]}\n… {more + left_out:,} characters …\n{text[-half:]}"


def _rebuild(kind: type[ActionError], args: tuple[Any, ...]) -> ActionError:
    return kind.__new__(kind, *args)
