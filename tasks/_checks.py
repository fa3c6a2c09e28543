"""An action's own checks of its result: what the declared type cannot say."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from tasks._hook import Hook, read_hook
from tasks._signature import InvalidAction, place_of

Check = Callable[..., Any]

CHECK_SECONDS = 5.0
# The parameter of a check that is given the result, typed as the action declares it.
RESULT = "result"


def make_checks(name: str, action: Callable[..., Any], declared: Any) -> tuple[Hook, ...]:
    """Read the signatures of an action's checks against its own.

    Raises:
        InvalidAction: Saying of which action, what is wrong, and what to write instead.
    """
    if declared is None:
        return ()
    functions = list(declared) if isinstance(declared, Iterable) else [declared]
    return tuple(_make_check(name, action, function) for function in functions)


def _make_check(name: str, action: Callable[..., Any], function: Any) -> Hook:
    must_be = "a function of the result; write it with def"
    hook = read_hook(name, "checks", action, function, must_be=must_be, own=(RESULT,))
    if RESULT not in inspect.signature(function).parameters:
        raise InvalidAction(
            f"{name}, checks: {place_of(function)} takes no {RESULT!r}, so there is nothing that it checks"
        )
    if RESULT in inspect.signature(action).parameters:
        raise InvalidAction(
            f"{name}, checks: the action's own parameter {RESULT!r} is in the way of the result's; rename it"
        )
    return hook
