"""What an error means for the attempt that it ended, as data: docs/errors.md is these tables, held to them by a test.

Kinds of errors are named by their place, so that nothing is imported for them: a worker without the OpenAI SDK does not
load it, and none of its errors can come up there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from producer.canonical import shown
from producer.errors import SurefootError
from tasks._outcomes import ActionError, Advice, Effect, Failure, Hold, Refused, Retry, Says, Unknown, describe, says_of
from tasks._policy import Policy
from tasks._retry_after import retry_after, should_retry
from tasks._signature import InvalidAction


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error means.

    Attributes:
        effect: ``none``: the request did not arrive. ``refused``: it did, and the other side did nothing. ``unknown``.
        advice: See `ActionError`.
        after: Seconds that the other side asked us to wait; None where it did not say.
        told: What it says of whom was called, where that is not what the other two tell.
    """

    effect: Effect
    advice: Advice
    after: float | None = None
    told: Says | None = None

    @property
    def says(self) -> Says:
        """What it says of whom was called."""
        return says_of(self.effect, self.advice) if self.told is None else self.told


# What only the answer can say, which the error holds: by its HTTP status, its SMTP code, or the error that caused it.
By = Literal["status", "code", "cause"]

UNKNOWN = Meaning("unknown", "retry")
# It had the request, and does not say whether it acted on it; but it is there.
CONFLICT = Meaning("unknown", "retry", told="answered")
NEVER_LEFT = Meaning("none", "retry")
NOT_TO_BE_SENT = Meaning("none", "refuse")
# A setting of the worker's is missing or malformed: another worker's, or this one's tomorrow, may not be.
NOT_SET = Meaning("none", "retry", told="nothing")

# By the place of the class. An error is what the nearest of its classes in this table is.
ERRORS: Mapping[str, Meaning | By] = {
    "httpx.ConnectError": NEVER_LEFT,
    "httpx.ConnectTimeout": NEVER_LEFT,
    "httpx.PoolTimeout": NEVER_LEFT,
    "httpx.ProxyError": NEVER_LEFT,
    "httpx.UnsupportedProtocol": NOT_TO_BE_SENT,
    "httpx.InvalidURL": NOT_TO_BE_SENT,
    "httpx.HTTPStatusError": "status",
    "httpx.TooManyRedirects": Meaning("unknown", "refuse"),
    "httpx.HTTPError": UNKNOWN,
    "httpcore.ConnectError": NEVER_LEFT,
    "httpcore.ConnectTimeout": NEVER_LEFT,
    "httpcore.PoolTimeout": NEVER_LEFT,
    "httpcore.ProxyError": NEVER_LEFT,
    "httpcore.UnsupportedProtocol": NOT_TO_BE_SENT,
    "openai.APIStatusError": "status",
    "openai.APIConnectionError": "cause",
    "openai.APIError": UNKNOWN,
    "openai.LengthFinishReasonError": Meaning("unknown", "refuse"),
    "openai.ContentFilterFinishReasonError": Meaning("unknown", "refuse"),
    "openai.OpenAIError": NOT_TO_BE_SENT,
    "smtplib.SMTPConnectError": NEVER_LEFT,
    "smtplib.SMTPHeloError": NEVER_LEFT,
    "smtplib.SMTPNotSupportedError": NOT_TO_BE_SENT,
    "smtplib.SMTPRecipientsRefused": "code",
    "smtplib.SMTPResponseException": "code",
    "smtplib.SMTPException": UNKNOWN,
    "aiosmtplib.errors.SMTPConnectError": NEVER_LEFT,
    "aiosmtplib.errors.SMTPHeloError": NEVER_LEFT,
    "aiosmtplib.errors.SMTPNotSupported": NOT_TO_BE_SENT,
    "aiosmtplib.errors.SMTPRecipientsRefused": "code",
    "aiosmtplib.errors.SMTPResponseException": "code",
    "aiosmtplib.errors.SMTPException": UNKNOWN,
    "socket.gaierror": NEVER_LEFT,
    "ssl.SSLCertVerificationError": NEVER_LEFT,
    "builtins.ConnectionRefusedError": NEVER_LEFT,
    "builtins.ConnectionError": UNKNOWN,
    "builtins.TimeoutError": UNKNOWN,
    "builtins.OSError": UNKNOWN,
}


# What Python itself raises where our own code is wrong, or finds in an answer what it did not expect: no dependency
# that is away shows by these. A library's own kinds of them are the library's word.
OWN_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
)

# Successors with the same errors; the OpenAI SDK calls through them.
SAME_AS = {"httpx2": "httpx", "httpcore2": "httpcore"}


@dataclass(frozen=True, slots=True)
class Statuses:
    """What a range of HTTP statuses, or SMTP codes, means.

    Attributes:
        first: Of the range.
        last: Of the range.
        with_wait: Whether it means so only where the answer also says how long to wait.
    """

    first: int
    last: int
    meaning: Meaning
    with_wait: bool = False


# The first that fits counts.
HTTP_STATUSES = (
    Statuses(429, 429, Meaning("refused", "hold")),
    Statuses(529, 529, Meaning("refused", "hold")),
    Statuses(503, 503, Meaning("unknown", "hold"), with_wait=True),
    Statuses(408, 408, UNKNOWN),
    Statuses(409, 409, CONFLICT),
    Statuses(425, 425, CONFLICT),
    Statuses(300, 399, Meaning("unknown", "refuse")),  # many answer a post that they took with a redirect
    Statuses(400, 499, Meaning("refused", "refuse")),
    Statuses(501, 501, Meaning("refused", "refuse")),
    Statuses(505, 505, Meaning("refused", "refuse")),
    Statuses(500, 599, UNKNOWN),
)
SMTP_CODES = (
    # A mailbox that is busy, or does not know us yet: other recipients' mail is taken meanwhile.
    Statuses(450, 450, Meaning("refused", "retry", told="answered")),
    Statuses(400, 499, Meaning("refused", "retry")),
    Statuses(500, 599, Meaning("refused", "refuse")),
)

Word = ActionError | type[ActionError]
Classify = Mapping[type[BaseException], Word] | Callable[[Any], Word | None]


class Declared(Protocol):
    """What an action declares of errors."""

    @property
    def policy(self) -> Policy:
        """What is tried again."""

    @property
    def classify(self) -> Classify | None:
        """Its own word."""

    @property
    def one_call(self) -> bool:
        """Whether an attempt makes one call at most."""


def classify(error: BaseException, declared: Declared) -> Failure:
    """Say what an exception means for the attempt that raised it.

    The action's own word goes first: an `ActionError`, then its ``classify``. Then the tables above. That a call did
    not arrive, or was refused, says of the attempt that nothing happened only where it makes one call at most: an
    earlier one may have worked.

    Args:
        error: What the action raised; SystemExit and its like included.
        declared: The action. A kind that its ``autoretry_for`` names, other than Exception, is tried again also where
            the tables refuse it.
    """
    recorded = describe(error)
    word = error if isinstance(error, ActionError) else _own_word(error, declared.classify)
    if word is not None:
        says = says_of(word.effect, word.advice) if word.says is None else word.says
        return Failure(word.effect, word.advice, word.after, recorded, says)
    meaning, policy = meaning_of(error), declared.policy
    says = _says(error, meaning, policy)
    effect: Effect = meaning.effect if declared.one_call else "unknown"
    if _is_refused_by(policy, error, meaning):
        return Failure(effect, "refuse", None, recorded, says)
    named = any(isinstance(error, kind) for kind in policy.autoretry_for if kind not in (Exception, BaseException))
    advice = "retry" if named and meaning.advice == "refuse" else meaning.advice
    return Failure(effect, advice, meaning.after, recorded, says)


def _is_refused_by(policy: Policy, error: BaseException, meaning: Meaning) -> bool:
    unwanted = meaning.advice == "retry" and not isinstance(error, policy.autoretry_for)
    return unwanted or isinstance(error, policy.dont_autoretry_for)


def _says(error: BaseException, meaning: Meaning, policy: Policy) -> Says:
    """Say what an error tells of whom was called. Whether it is tried again is another question, and the policy's."""
    if not isinstance(error, Exception):  # what ends a process, or cuts a task off
        return "nothing"
    if any(_place_of(kind) in ERRORS for kind in type(error).__mro__):
        return meaning.says
    is_python_s = isinstance(error, OWN_FAULTS) and type(error).__module__ == "builtins"
    is_our_own = is_python_s or isinstance(error, SurefootError)
    # Of kinds that nobody else knows, the policy knows which are no mishap.
    return "nothing" if is_our_own or _is_refused_by(policy, error, meaning) else meaning.says


def meaning_of(error: BaseException) -> Meaning:
    """Return what the tables say of an error; what they do not name is unknown."""
    for kind in type(error).__mro__:
        found = ERRORS.get(_place_of(kind))
        if found == "status":
            response = getattr(error, "response", None)
            return UNKNOWN if response is None else _meaning_of_answer(response)
        if found == "code":
            return meaning_of_code(_smtp_code(error))
        if found == "cause":
            return UNKNOWN if error.__cause__ is None else meaning_of(error.__cause__)
        if found is not None:
            return found
    return UNKNOWN


def _place_of(kind: type) -> str:
    return f"{SAME_AS.get(kind.__module__, kind.__module__)}.{kind.__qualname__}"


def _meaning_of_answer(response: Any) -> Meaning:
    meaning = meaning_of_status(response.status_code, response.headers)
    # Whoever redirected may have acted on it before; the last answer speaks of the last call alone.
    return replace(meaning, effect="unknown") if getattr(response, "history", None) else meaning


def meaning_of_status(status: int, headers: Mapping[str, str]) -> Meaning:
    """Return what an HTTP answer that is not a success means; `headers` are in lower case.

    ``x-should-retry`` goes before the table's advice: it says not to ask again, or to, but neither what was done nor
    how whoever says so is.
    """
    after = retry_after(headers, now=datetime.now(UTC))
    meaning = _first(HTTP_STATUSES, status, waits=after is not None)
    wanted = should_retry(headers)
    if wanted is False:
        return Meaning(meaning.effect, "refuse", told=meaning.says)
    if wanted and meaning.advice == "refuse":
        return Meaning("unknown", "retry", after, told=meaning.says)
    return replace(meaning, after=None if meaning.advice == "refuse" else after)


def meaning_of_code(code: int) -> Meaning:
    """Return what an SMTP server's answer means."""
    return _first(SMTP_CODES, code, waits=False)


def error_of(meaning: Meaning, message: str) -> ActionError:
    """Return the error that says so in an action."""
    kinds: dict[str, type[ActionError]] = {"hold": Hold, "refuse": Refused, "retry": Retry}
    kind = Unknown if meaning.effect == "unknown" else kinds[meaning.advice]
    error = kind(message, after=meaning.after)
    if (error.effect, error.advice) != (meaning.effect, meaning.advice):
        error.effect, error.advice = meaning.effect, meaning.advice
    error.says = meaning.told
    return error


def unsent(message: str) -> ActionError:
    """Return the error that refuses in an action what cannot be sent, before anybody was called."""
    return error_of(NOT_TO_BE_SENT, message)


def check_classify(name: str, declared: Any) -> Classify | None:
    """Return an action's own table, or function.

    Raises:
        InvalidAction: If it is neither.
    """
    if declared is None or (callable(declared) and not isinstance(declared, (type, Mapping))):
        return declared
    if not isinstance(declared, Mapping):
        raise InvalidAction(f"{name}: classify={shown(declared)} must be a mapping of exceptions, or a function of one")
    for kind, word in declared.items():
        if not (isinstance(kind, type) and issubclass(kind, BaseException)) or not _is_word(word):
            raise InvalidAction(
                f"{name}: classify= maps {shown(kind)} to {shown(word)};"
                " map kinds of exceptions to Retry, Hold, Refused or Unknown"
            )
    return declared


def _own_word(error: BaseException, by: Classify | None) -> ActionError | None:
    if by is None:
        return None
    if isinstance(by, Mapping):
        word = next((by[kind] for kind in type(error).__mro__ if kind in by), None)
    else:
        try:
            word = by(error)
        except Exception:  # noqa: BLE001  it is somebody's code, and the attempt's own error is what counts
            return None
    if not _is_word(word):
        return None
    return word() if isinstance(word, type) else word


def _is_word(word: Any) -> bool:
    return isinstance(word, ActionError) or (isinstance(word, type) and issubclass(word, ActionError))


def _first(table: tuple[Statuses, ...], status: int, *, waits: bool) -> Meaning:
    fitting = (each for each in table if each.first <= status <= each.last and (waits or not each.with_wait))
    return next((each.meaning for each in fitting), UNKNOWN)


def _smtp_code(error: BaseException) -> int:
    """Return the code that a mail server answered; of several recipients, the gravest. 0 where there is none."""
    recipients: Any = getattr(error, "recipients", None)
    if isinstance(recipients, Mapping):  # smtplib's: an address to (code, words)
        return max((int(code) for code, _ in recipients.values()), default=0)
    if recipients:  # aiosmtplib's: an error for each
        return max(map(_smtp_code, recipients))
    code = getattr(error, "smtp_code", None) or getattr(error, "code", None)
    return code if isinstance(code, int) and code < math.inf else 0
