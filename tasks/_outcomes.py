"""How an attempt can end, in the words that actions use and the worker decides by.

An action returns its result, or raises. What it raises says two things: whether the effect may have happened, and
whether trying again makes sense. An exception that says neither is taken for the worst: unknown.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any, Literal

from producer.errors import SurefootError
from producer.redact import redact_text

Effect = Literal["none", "unknown"]
Advice = Literal["retry", "hold", "refuse", "return"]

TRACEBACK_LIMIT = 16_384
MESSAGE_LIMIT = 4_096


class ActionError(SurefootError):
    """An attempt did not succeed.

    Attributes:
        effect: ``none`` where nothing can have happened outside; ``unknown`` where it may have.
        advice: ``retry`` by the action's policy, ``hold`` without spending an attempt, or ``refuse`` for good.
        after: Seconds that the other side asked us to wait; None where it did not say.
    """

    effect: Effect = "unknown"
    advice: Advice = "retry"
    after: float | None = None

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

    effect: Effect = "none"
    advice: Advice = "refuse"


class Unknown(ActionError):
    """The request left and no answer settles whether it had its effect."""


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
    """

    effect: Effect
    advice: Advice
    after: float | None
    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class InvalidResult:
    """The action returned what its declared type refuses; the effect, if it has one, has happened."""

    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FollowUpsRefused:
    """The action succeeded, but asked for follow-ups that cannot be accepted; the effect, if any, has happened."""

    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Success:
    """The action's result as plain JSON."""

    result: Any


Outcome = Success | InvalidResult | FollowUpsRefused | Failure


def classify(
    error: BaseException,
    *,
    autoretry_for: tuple[type[BaseException], ...],
    dont_autoretry_for: tuple[type[BaseException], ...],
) -> Failure:
    """Say what an exception means for the attempt that raised it.

    Args:
        error: What the action raised; SystemExit and its like included.
        autoretry_for: The action's policy: what is tried again.
        dont_autoretry_for: What is not, although it is of such a class.
    """
    recorded = describe(error)
    if isinstance(error, ActionError):
        return Failure(error.effect, error.advice, error.after, recorded)
    wanted = isinstance(error, autoretry_for) and not isinstance(error, dont_autoretry_for)
    return Failure("unknown", "retry" if wanted else "refuse", None, recorded)


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
