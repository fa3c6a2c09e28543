"""Which scenarios there are: what jobs are to one another, the point at which somebody dies, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.chaos.deaths import Death
from tests.chaos.lane import Crew

Kind = Literal[
    "turns",
    "follow_ups",
    "ticks",
    "batch",
    "cancel",
    "deadline",
    "hold",
    "poison",
    "late_arrival",
    "clock",
    "approval",
    "budget",
    "gates",
]
HOUR_SECONDS = 3_600.0
ACTIONS = (
    "chaos.pure",
    "chaos.keyed",
    "chaos.verifiable",
    "chaos.unsafe",
    "chaos.answered",
    "chaos.parent",
    "chaos.turn",
    "chaos.approved",
    "chaos.budgeted",
    "chaos.approved_budgeted",
)
ALWAYS = ("I1", "I2", "I7")
# What a scenario is for: without anything of it to judge it says nothing. What is late is never claimed.
ALSO: dict[Kind, tuple[str, ...]] = {
    "turns": ("I8", "I19"),
    "hold": ("I8", "I12"),
    "deadline": ("I17",),
    "cancel": ("I8", "I18"),
    "approval": ("I8", "I20"),
    "budget": ("I8", "I21"),
    "gates": ("I8", "I20", "I21"),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario with one death.

    Attributes:
        kind: Which script is played; what it is about, the script says.
        point: Where whoever dies is; a point of `injected`, or where the effect server keeps the first request.
        mutant: The defect that the workers and the asker have.
        tries: 2 where the first one said nothing.
    """

    kind: Kind
    point: str
    death: Death
    mutant: str | None = None
    tries: int = 1

    @property
    def name(self) -> str:
        """Also the name of its evidence's folder, its tenant, and its part of the effect server."""
        name = f"{self.kind}.{self.point}-{self.death}" + ("" if self.tries == 1 else f"-{self.tries}")
        return name if self.mutant is None else f"{self.mutant}-{name}"

    @property
    def row(self) -> str:
        """The line of a table that it belongs to."""
        return f"{self.kind}: {self.point}"

    @property
    def crew(self) -> Crew:
        """Who plays it."""
        return Crew(mutant=self.mutant, clock_ahead=HOUR_SECONDS if self.kind == "clock" else 0.0)

    @property
    def workers(self) -> int:
        """How many play it: one is left whoever dies."""
        return 2

    @property
    def actions(self) -> tuple[str, ...]:
        """What its jobs may ask for."""
        return ACTIONS

    @property
    def must_judge(self) -> tuple[str, ...]:
        """Invariants that must have had something to judge."""
        return (*ALWAYS, *ALSO.get(self.kind, ("I8",)))


PLAYED: tuple[tuple[Kind, str, tuple[Death, ...]], ...] = (
    ("turns", "turn.committed", ("sigkill", "sigstop", "terminate_backend")),
    ("turns", "effect.held", ("sigkill", "sigstop", "redis_loss")),
    ("turns", "bring.before", ("sigkill", "sigstop")),
    ("turns", "bring.committed", ("sigkill", "terminate_backend")),
    ("follow_ups", "effect.held", ("sigkill",)),
    ("follow_ups", "bring.before", ("sigkill", "sigstop")),
    ("follow_ups", "bring.committed", ("sigkill", "terminate_backend", "redis_kill")),
    ("ticks", "tick.accepted", ("sigkill", "sigstop", "terminate_backend")),
    ("ticks", "tick.committed", ("sigkill", "redis_loss")),
    ("batch", "claim.committed", ("sigkill",)),
    ("batch", "settle.before", ("sigkill", "sigstop", "redis_kill")),
    ("batch", "settle.committed", ("terminate_backend",)),
    ("cancel", "claim.committed", ("sigkill",)),
    ("cancel", "effect.held", ("sigkill", "redis_kill")),
    ("cancel", "settle.committed", ("sigkill", "terminate_backend")),
    ("cancel", "retry.waiting", ("sigkill", "terminate_backend")),
    ("deadline", "claim.before", ("sigkill", "sigstop", "terminate_backend")),
    ("hold", "settle.committed", ("sigkill", "redis_kill")),
    ("poison", "perform.before", ("sigkill",)),
    ("late_arrival", "request.arrived", ("sigkill", "sigstop")),
    ("clock", "claim.committed", ("sigkill",)),
    ("clock", "effect.held", ("sigkill", "sigstop")),
    ("approval", "review.before", ("sigkill", "sigstop")),
    ("approval", "review.committed", ("sigkill", "terminate_backend")),
    ("approval", "bring.before", ("sigkill", "sigstop", "terminate_backend")),
    ("approval", "bring.committed", ("sigkill", "sigstop", "terminate_backend")),
    ("approval", "approve.before", ("sigkill",)),
    ("approval", "approve.committed", ("sigkill", "redis_loss")),
    ("approval", "expire.before", ("sigkill", "sigstop")),
    ("approval", "expire.committed", ("sigkill", "terminate_backend")),
    ("approval", "consume.before", ("sigkill", "sigstop", "terminate_backend")),
    ("approval", "consume.committed", ("sigkill", "sigstop", "terminate_backend")),
    ("approval", "effect.held", ("sigkill", "sigstop")),
    ("approval", "settle.committed", ("sigkill", "terminate_backend")),
    ("budget", "reserve.before", ("sigkill", "sigstop", "terminate_backend")),
    ("budget", "reserve.committed", ("sigkill", "sigstop", "terminate_backend")),
    ("budget", "effect.held", ("sigkill", "sigstop", "redis_kill")),
    ("budget", "spend.before", ("sigkill", "sigstop", "terminate_backend")),
    ("budget", "spend.committed", ("sigkill", "sigstop", "terminate_backend")),
    ("gates", "consume.before", ("sigkill", "sigstop", "terminate_backend")),
    ("gates", "consume.committed", ("sigkill", "sigstop", "terminate_backend")),
    ("gates", "spend.committed", ("sigkill", "terminate_backend")),
)
SCENARIOS = tuple(Scenario(kind, point, death) for kind, point, deaths in PLAYED for death in deaths)
