"""What an attempt may cost, by its author's word: asked for what it reserves, and for who has to approve it."""

from __future__ import annotations

from tasks import Cost
from tasks._outcomes import describe
from worker.log import log
from worker.performance import Performance


def cost_of(performance: Performance) -> Cost | None:
    """Return what the attempt may cost; not known where its author's function cannot say it."""
    hook = performance.spec.cost
    if hook is None:
        return None
    try:
        return hook.of(performance.arguments, performance.context)
    except BaseException as error:  # noqa: BLE001  the author's function may raise anything, SystemExit too
        log.warning("budget.cost_unknown", error=describe(error)["message"], error_type=type(error).__name__)
        return Cost(usd=None, tokens=None)
