"""Taking parts of a worker out of its jobs' way, to see what they cost. Tests of what they do are elsewhere.

What stands in for a part does nothing at all, so that of a part that is awaited the awaiting is left, a tenth of a
microsecond. A part that is switched asks which it is to be at each call, whatever the answer: one byte of a file that
worker and benchmark have in memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tasks._outcomes import Outcome, Success, invalid
from worker import parts, statements
from worker.budgets import Budgets
from worker.metrics import Counting
from worker.performance import Performance
from worker.policies import Policies
from worker.sealer import Sealer
from worker.statements import Granted
from worker.validation import Validation

# What a worker is told: parts out of the way for good, parts that are switched, and the file with the switch.
WITHOUT, SWITCHED, SWITCH = "BENCH_WITHOUT", "BENCH_SWITCHED", "BENCH_SWITCH"
SEALING, GATES, RECORD, COUNTING = "sealing", "gates", "record", "counting"
IN, OUT = b"\0", b"\1"

# A place, a name there, and what stands in for what it has.
Patch = tuple[Any, str, Callable[..., Any]]


def bypass(names: Iterable[str]) -> None:
    """Put the parts that are named out of this process's way, for good; before it makes any.

    Raises:
        AttributeError: If a part is not where it was: what is measured would be nothing.
    """
    for name in names:
        for place, attribute, instead in PARTS[name]:
            getattr(place, attribute)
            setattr(place, attribute, instead)


def switch(names: Iterable[str], path: Path) -> None:
    """Have the parts that are named be out of this process's way while the file says so; before it makes any.

    Raises:
        AttributeError: If a part is not where it was.
    """
    with path.open("rb") as file:
        out = mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)
    for name in names:
        for place, attribute, instead in PARTS[name]:
            setattr(place, attribute, _either(out, getattr(place, attribute), instead))


def _either(out: mmap.mmap, real: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    def either(*args: Any, **kwargs: Any) -> Any:
        return (instead if out[0] else real)(*args, **kwargs)

    return either


def _nothing(*_: object, **__: object) -> None:
    return None


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


PARTS: Mapping[str, Sequence[Patch]] = MappingProxyType(
    {
        SEALING: [(Sealer, "seal", _nothing)],
        # No policy and no budget is looked up, results are held to no checks, and nobody was asked too long ago.
        GATES: [
            (Policies, "review", _lets_through),
            (Budgets, "intend", _plain_intent),
            (Validation, "outcome", _typed),
            (parts, "sweep_approvals", lambda _connection, **_: 0),
        ],
        # No digest of a result is left. The index of events by their time is the ledger's; see paired.py.
        RECORD: [(statements, "with_digest", lambda data, _result: data)],
        COUNTING: [(Counting, name, _nothing) for name in ("claimed", "settled", "wrote", "loop_answered")],
    }
)
