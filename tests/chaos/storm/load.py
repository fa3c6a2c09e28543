"""What a producer of a storm asks for: drawn from a seed, without end. Pure: reads no clock and asks nobody."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

How = Literal["single", "batch", "within"]

# By weight; talks and parents bring more than one job each.
ACTIONS: Mapping[str, float] = {
    "storm.pure": 14,
    "storm.idempotent": 14,
    "storm.keyed": 24,
    "storm.verifiable": 10,
    "storm.unsafe": 5,
    "storm.sync": 6,
    "storm.narrow": 6,
    "storm.parent": 6,
    "storm.talk": 6,
    "storm.versioned": 6,
}
WAYS: Mapping[How, float] = {"single": 84, "batch": 10, "within": 6}
BATCH = (3, 20)
# Shares of all requests.
LATER, DEADLINE, CANCELLED = 0.08, 0.05, 0.03
# Shares of all orders: a key that was asked for before, the same or for something else.
AGAIN, CONFLICT, SHARED = 0.05, 0.02, 0.02
# One turn of a talk waits for the one before, and for whatever holds that up: so many that each has one in 15 seconds.
TALKS, REMEMBERED = 36, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One request.

    Attributes:
        run_in: Seconds from now until it is due; None is at once.
        deadline_in: Seconds from now until it is of no use any more; None where it always is.
        cancel_in: Seconds from its acceptance until it is cancelled; None where it is not.
    """

    action: str
    params: dict[str, Any]
    key: str
    run_in: float | None = None
    deadline_in: float | None = None
    cancel_in: float | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for at once."""

    how: How
    requests: tuple[Wanted, ...]


@dataclass(slots=True)
class Load:
    """What one thread of a producer asks for.

    Attributes:
        name: Unique in the run; begins its keys.
        seed: Of the storm.
    """

    name: str
    seed: int
    _count: int = 0
    _known: list[Wanted] = field(default_factory=list)
    _drawing: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Begin the drawing."""
        self._drawing = random.Random(f"load {self.seed} {self.name}")  # noqa: S311  not for secrets

    def next(self) -> Order:
        """Return the next order."""
        draw = self._drawing.random()
        if self._known and draw < AGAIN + CONFLICT:
            known = self._drawing.choice(self._known)
            # Another request under the same key is one that the ledger must refuse.
            params = known.params if draw < AGAIN else {**known.params, "n": -1 - known.params["n"]}
            return Order("single", (Wanted(action=known.action, params=params, key=known.key),))
        if draw > 1 - SHARED:  # other processes ask for the same at about the same time
            return Order("single", (self._shared(),))
        (how,) = self._drawing.choices(list(WAYS), list(WAYS.values()))
        count = self._drawing.randint(*BATCH) if how == "batch" else 1
        requests = tuple(self._request() for _ in range(count))
        self._known = [*self._known, *requests][-REMEMBERED:]
        return Order(how, requests)

    def _request(self) -> Wanted:
        self._count += 1
        drawing = self._drawing
        (action,) = drawing.choices(list(ACTIONS), list(ACTIONS.values()))
        params: dict[str, Any] = {"n": self._count}
        if action == "storm.parent":
            params["children"] = drawing.randint(1, 3)
        elif action == "storm.talk":
            params |= {"talk": f"talk-{drawing.randrange(TALKS)}", "says": 2}
        return Wanted(
            action=action,
            params=params,
            key=f"{self.name}-{self._count}",
            run_in=drawing.uniform(0.5, 4.0) if drawing.random() < LATER else None,
            deadline_in=drawing.uniform(0.5, 20.0) if drawing.random() < DEADLINE else None,
            cancel_in=drawing.uniform(0.0, 0.5) if drawing.random() < CANCELLED else None,
        )

    def _shared(self) -> Wanted:
        number = self._count // 10
        return Wanted(action="storm.keyed", params={"n": number}, key=f"shared-{number}")
