"""Scripts about jobs that belong together: turns, follow-ups, ticks of a schedule, a batch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text

from producer.ledger.states import State
from tests.chaos.evidence import ScheduleFacts
from tests.chaos.expectations import LOSES_ITS_LEASE
from tests.chaos.scenarios.stage import Stage

TICKS = 3
EVERY_SECONDS = 1
CHILDREN = 3
# Refused for good, as often as they are asked for.
REFUSED = [422] * 9
TICKED = text("SELECT idempotency_key FROM jobs WHERE tenant = :run AND idempotency_key LIKE :key")


def turns(stage: Stage) -> None:
    """Three turns of a conversation. Whoever has the first one dies, while the others wait for it or come after it."""
    said = {"conversation": stage.piece.name, "says": 2}
    stage.arm(stage.point)
    first = stage.ask("chaos.turn", said)
    victim = stage.there(stage.point, first)
    others = [*stage.ask("chaos.turn", said), *stage.ask("chaos.turn", said)]
    if stage.point == "effect.held":  # at the other points the victim takes nothing up that it is rung for
        stage.until_waiting(others, "conversation")
    stage.strike(victim)
    stage.expect([*first, *others], State.SUCCEEDED)


def follow_ups(stage: Stage) -> None:
    """A job asks for others, and whoever has it dies before, while or after its outcome is written."""
    stage.arm(stage.point)
    parents = stage.ask("chaos.parent", {"children": CHILDREN})
    stage.strike(stage.there(stage.point, parents))
    stage.expect(parents, State.SUCCEEDED)


def batch(stage: Stage) -> None:
    """Six jobs in one ring, every other one refused for good: each is settled by itself."""
    stage.arm(stage.point)
    answers: list[list[int]] = [REFUSED, [], REFUSED, [], REFUSED, []]
    jobs = stage.ask("chaos.answered", *({"answers": each} for each in answers))
    stage.strike(stage.there(stage.point, jobs))
    # Who is refused now may have had its effect before, if its worker died after the intent.
    doubted = {State.IN_DOUBT} if stage.point == "settle.before" and stage.piece.death in LOSES_ITS_LEASE else set()
    stage.expect(jobs[::2], State.FAILED, *doubted)
    stage.expect(jobs[1::2], State.SUCCEEDED)


def ticks(stage: Stage) -> None:
    """A schedule ticks; whoever makes a tick's job dies, while another worker looks for ticks, too."""
    stage.arm(stage.point)
    begin = {"first": stage.schedule("first", "chaos.keyed", {"wait": False}, every=EVERY_SECONDS)}
    victim = stage.there(stage.point)
    # Proof that another worker has looked: it has made a job of a schedule that came later.
    begin["second"] = stage.schedule("second", "chaos.keyed", {"wait": False}, every=EVERY_SECONDS)
    stage.until(lambda: _ticked(stage, "second"), "another worker's tick")
    stage.strike(victim)
    before = len(_ticked(stage, "first"))
    stage.until(lambda: len(_ticked(stage, "first")) >= before + TICKS, "further ticks")
    ended = {name: _last(_ticked(stage, name)) for name in begin}
    for name in begin:
        stage.pause(name)
    stage.schedules = tuple(
        ScheduleFacts(
            name=name, action="chaos.keyed", every=EVERY_SECONDS, since=first - EVERY_SECONDS, until=ended[name]
        )
        for name, first in begin.items()
    )


def _ticked(stage: Stage, schedule: str) -> list[str]:
    """Return the keys of the jobs that a schedule has made so far."""
    with stage.lane.engine.connect() as connection:
        asked = {"run": stage.piece.name, "key": f"schedule:{schedule}:%"}
        return list(connection.execute(TICKED, asked).scalars())


def _last(keys: Sequence[str]) -> float:
    """Return the moment of the last of these ticks, whatever a defect adds to their keys."""
    moments = (key.split(":", 2)[2].partition("/")[0] for key in keys)
    return max(datetime.fromisoformat(moment).timestamp() for moment in moments)
