"""What follows an attempt that failed, as an action declares it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks._fallback import OnExhausted
from tasks._signature import InvalidAction


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What follows an attempt that failed. The names are Celery's.

    Attributes:
        autoretry_for: Exceptions that are tried again.
        dont_autoretry_for: Those of them that are not.
        max_retries: Further attempts after the first; None never gives up.
        max_repairs: Further attempts after an answer that cannot be used, of a pure action; they are counted apart. 0
            has such an answer tried again as any failure.
        retry_backoff: Seconds before the first retry at most; doubles with each. True is 1, False tries at once.
        retry_backoff_max: The longest of these delays, in seconds.
        retry_jitter: Whether a delay is drawn evenly from 0 to that bound, so that a crowd does not return as one.
        timeout: Seconds that one attempt may take.
        on_exhausted: What becomes of a job for which all of that was tried, and nothing happened: ``dead``, ``degrade``
            (the fallback stands in) or ``fail``.
    """

    autoretry_for: tuple[type[BaseException], ...] = (Exception,)
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    max_retries: int | None = 3
    max_repairs: int = 0
    retry_backoff: float = 1.0
    retry_backoff_max: float = 600.0
    retry_jitter: bool = True
    timeout: float = 60.0
    on_exhausted: OnExhausted = "dead"

    def published(self) -> dict[str, Any]:
        """Return the policy as plain JSON, exceptions by name."""
        return {
            "autoretry_for": [kind.__name__ for kind in self.autoretry_for],
            "dont_autoretry_for": [kind.__name__ for kind in self.dont_autoretry_for],
            "max_retries": self.max_retries,
            "max_repairs": self.max_repairs,
            "retry_backoff": self.retry_backoff,
            "retry_backoff_max": self.retry_backoff_max,
            "retry_jitter": self.retry_jitter,
            "timeout": self.timeout,
            "on_exhausted": self.on_exhausted,
        }


def check_numbers(name: str, declared: Mapping[str, Any], policy: Policy) -> None:
    """Refuse numbers that an attempt cannot keep to."""
    from_zero = {
        word: getattr(policy, word) for word in ("max_retries", "max_repairs", "retry_backoff", "retry_backoff_max")
    }
    above_zero = {"timeout": policy.timeout, "version": declared["version"], "key_ttl": declared["key_ttl"]}
    for word, number in (from_zero | above_zero).items():
        if number is None:
            continue
        if not 0 <= number < math.inf or (word in above_zero and not number):
            raise InvalidAction(
                f"{name}: {word}={number!r} must be {'more than 0' if word in above_zero else '0 or more'}"
            )


def check_exceptions(name: str, policy: Policy) -> None:
    """Refuse what is no tuple of exceptions."""
    for word in ("autoretry_for", "dont_autoretry_for"):
        kinds = getattr(policy, word)
        if not isinstance(kinds, tuple) or not all(isinstance(k, type) and issubclass(k, BaseException) for k in kinds):
            raise InvalidAction(f"{name}: {word}={kinds!r} must be a tuple of exceptions, such as (TimeoutError,)")
