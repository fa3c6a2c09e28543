"""Taking parts of a worker out of its jobs' way, to see what they cost. Tests of what they do are elsewhere.

What stands in for a part does nothing at all, so that of a part that is awaited the awaiting is left, a tenth of a
microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from tasks._outcomes import Outcome, Success, invalid
from worker import parts, statements
from worker.budgets import Budgets
from worker.performance import Performance
from worker.policies import Policies
from worker.sealer import Sealer
from worker.statements import Granted
from worker.validation import Validation

WITHOUT = "BENCH_WITHOUT"
SEALING, GATES = "sealing", "gates"
# What these parts have every job pay for in the ledger itself.
INDEXES = ("events_by_time", "jobs_to_fund")


def bypass(names: Iterable[str]) -> None:
    """Put the parts that are named out of this process's way, for good; before it makes any.

    Raises:
        AttributeError: If a part is not where it was: what is measured would be nothing.
    """
    for name in names:
        PARTS[name]()


def _without_sealing() -> None:
    _put(Sealer, "seal", lambda _self, _connection: None)


def _without_gates() -> None:
    """Ask no policy and no budget, hold results to no checks, leave no digest of them, and look for no late word."""
    _put(Policies, "review", _lets_through)
    _put(Budgets, "intend", _plain_intent)
    _put(Validation, "outcome", _typed)
    _put(statements, "with_digest", lambda data, _result: data)
    _put(parts, "sweep_approvals", lambda _connection, **_: 0)


async def _lets_through(_self: object, _performance: Performance) -> None:
    return None


async def _plain_intent(self: Any, performance: Performance, *, seconds_left: Callable[[], float]) -> Granted:
    granted: Granted = await self._writer.intend(performance.intent(), seconds_left=seconds_left)
    return granted


async def _typed(_self: object, performance: Performance, returned: Any) -> Outcome:
    try:
        return Success(performance.spec.plain_result(returned))
    except BaseException as error:  # noqa: BLE001  as in what it stands for
        return invalid(error, returned)


def _put(place: Any, name: str, instead: Callable[..., Any]) -> None:
    getattr(place, name)
    setattr(place, name, instead)


PARTS: Mapping[str, Callable[[], None]] = MappingProxyType({SEALING: _without_sealing, GATES: _without_gates})
