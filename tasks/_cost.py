"""What an attempt, or a call of one, may cost at most."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from producer.budget_words import MOST, dollars
from producer.canonical import shown
from producer.errors import InvalidBudget


@dataclass(frozen=True, slots=True, init=False)
class Cost:
    """What is reserved of the budgets before a call; what it did cost takes its place.

    Attributes:
        usd: US dollars; None where the price is not known, which is not zero: no money is given to that.
        tokens: A model's, in and out together; None where that is not known.
        calls: What it counts for where calls are counted.
    """

    usd: Decimal | None
    tokens: int | None
    calls: int

    def __init__(self, *, usd: str | float | Decimal | None, tokens: int | None = 0, calls: int = 1) -> None:
        """Check what is declared: `usd` has no default, since what is not known is not zero.

        Raises:
            InvalidBudget: If one of them cannot be.
        """
        for name, count in (("tokens", tokens), ("calls", calls)):
            if (count is None and name == "calls") or (
                count is not None and (type(count) is not int or not 0 <= count <= MOST)
            ):
                raise InvalidBudget(name, f"{shown(count)} is not a whole number, 0 or more")
        object.__setattr__(self, "usd", None if usd is None else dollars(usd, "usd"))
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "calls", calls)
