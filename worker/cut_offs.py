"""What an attempt that was cut off, or never came to its effect, means for its job."""

from __future__ import annotations

from tasks._outcomes import AttemptTimeout, Effect, Failure
from worker.loop import cut_off

# What such an attempt is recorded as.
CUT_OFF = "CutOff"
LEASE_OVER = "its lease was over before its effect"


def reason_of_cut_off() -> str | None:
    """Return why the attempt under way is being cut off; None as long as it is not."""
    cut = cut_off.get(None)
    return None if cut is None else cut.reason


def cut_off_failure(reason: str, *, effect: Effect) -> Failure:
    """Say what an attempt that was cut off means; one that its worker could not go on with does not count."""
    error = {"type": CUT_OFF, "message": f"the attempt was cut off: {reason}", "traceback": ""}
    if reason in ("stopping", LEASE_OVER):  # a deploy cuts off hundreds at once, and says nothing of whom they called
        return Failure(effect, "return", None, error, "nothing")
    return Failure(effect, "retry", None, error)


def without_time() -> Failure:
    """Say what an attempt means whose time was over before its effect: it counts, or it might go on for ever.

    That is a worker with too much to do, or an action's `timeout` that is too short. Whom it would have called has
    nothing to do with it.
    """
    error = {"type": AttemptTimeout.__name__, "message": "no time was left for its effect", "traceback": ""}
    return Failure("none", "retry", None, error, "nothing")
