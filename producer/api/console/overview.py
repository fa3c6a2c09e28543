"""The first page: how things stand, and what somebody should look at."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from producer.api.console.entry import ConsoleRoute, Looker
from producer.api.console.page import Visitor, page
from producer.breakers import BreakerRecord
from producer.errors import BreakersUnavailable
from producer.ledger.glance import BEAT_SECONDS, Beat
from producer.ledger.states import State

LIVE_SECONDS = 4
SHOWN = 8
CHART_HEIGHT = 48
# The last few seconds are still coming in, and are no rate yet.
RATE_BEATS = 12

router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


@router.get("")
def overview(request: Request, visitor: Looker) -> Response:
    """Show how this tenant's jobs stand."""
    producer = visitor.caller.producer
    glance = producer.glance()
    breakers, is_redis_away = _breakers(visitor)
    return page(
        request,
        visitor,
        "overview.html",
        title="Overview",
        live_seconds=LIVE_SECONDS,
        glance=glance,
        bars=_bars(glance.pulse),
        rate=sum(beat.accepted for beat in glance.pulse[-RATE_BEATS - 1 : -1]) / (RATE_BEATS * BEAT_SECONDS),
        chart_height=CHART_HEIGHT,
        in_doubt=producer.jobs(state=State.IN_DOUBT, limit=SHOWN) if glance.standing.jobs[State.IN_DOUBT] else [],
        dead=producer.jobs(state=State.DEAD, limit=SHOWN) if glance.standing.jobs[State.DEAD] else [],
        asked=producer.approvals.list(limit=SHOWN) if glance.standing.jobs[State.AWAITING_APPROVAL] else [],
        breakers=breakers,
        is_redis_away=is_redis_away,
        not_closed=[each for each in breakers or () if each.state != "closed" or each.forced],
        held=[each for each in breakers or () if each.hold_until],
    )


def _breakers(visitor: Visitor) -> tuple[Sequence[BreakerRecord] | None, bool]:
    """Return how breakers stand, None where that is not his to know; and whether nobody can say, as Redis is away."""
    if not visitor.may("admin"):
        return None, False
    try:
        return visitor.caller.producer.breakers.list(), False
    except BreakersUnavailable:
        return None, True


def _bars(pulse: Sequence[Beat]) -> list[dict[str, int]]:
    """Return the heights of a chart's bars, in its own units: what went well, badly, and is not known yet."""
    most = max((beat.accepted for beat in pulse), default=0) or 1

    def height(count: int) -> int:
        return -(-count * CHART_HEIGHT // most)  # rounded up: one job shows

    return [
        {"well": height(b.well), "badly": height(b.badly), "open": height(b.accepted - b.well - b.badly)} for b in pulse
    ]
