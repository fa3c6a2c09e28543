"""Deliberate defects of the product, injected into the workers as the parking places are: the matrix must find each.

A matrix in which everything holds says something only if it would not where something is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import text

import worker.rescue
import worker.runner
from producer.ledger.prepared import Prepared
from tasks import Context
from tasks._outcomes import Failure, classify
from worker.leases import Leases
from worker.relay import Relay
from worker.runner import Runner
from worker.statements import SETTLE

MUTANT = "CHAOS_MUTANT"


@dataclass(frozen=True, slots=True)
class Found:
    """Where a defect shows: in a cell, to an invariant of the checker's, or ``late`` to the cell's own look."""

    cell: str
    invariant: str


FOUND: Mapping[str, Found] = {
    "settle_unfenced": Found("effect.answered-unsafe-sigstop", "I8"),
    "rescue_requeues": Found("effect.held-unsafe-sigkill", "I3"),
    "effect_after_lease": Found("intend.committed-unsafe-sigstop", "late"),
    "intent_after_effect": Found("effect.held-unsafe-sigkill", "I2"),
    "key_per_attempt": Found("effect.held-keyed-sigkill", "I3"),
    "unknown_is_none": Found("effect.dropped-unsafe-terminate_backend", "I3"),
    "outcome_unrecorded": Found("ack.after-pure-terminate_backend", "I7"),
    "relay_is_deaf": Found("ring.received-idempotent-sigkill", "I1"),
}


def mutate(name: str) -> None:
    """Break the product in the named way, in this process.

    Raises:
        LookupError: If there is no such defect, or the product no longer has the place where it would be.
    """
    _DEFECTS[name]()


def _settle_unfenced() -> None:
    """Whoever brings an outcome has it written, also one whose job is another's by now."""
    _rewrite(SETTLE, r"coalesce\(j\.fence = a\.fence AND .+?, false\) AS mine", "true AS mine")


def _outcome_unrecorded() -> None:
    """An outcome changes the job's row, and is no event of it."""
    _rewrite(SETTLE, r"data FROM moved", "data FROM moved WHERE false")


def _rescue_requeues() -> None:
    """What its worker died of is tried again, whatever its effect class."""
    requeued = worker.rescue.RESCUE.text
    for wrong, right in (("beyond_repeat OR (capped AND doubtful)", "false"), ("s.doubtful", "false")):
        if wrong not in requeued:
            raise LookupError(wrong)
        requeued = requeued.replace(wrong, right)
    worker.rescue.RESCUE = text(requeued)


def _intent_after_effect() -> None:
    """The effect first, and then the word that it is about to happen."""
    intend, perform = Runner.intend, Runner.perform

    async def nothing_yet(_self: Runner, _performance: Any) -> None:
        return None

    async def both(self: Runner, performance: Any) -> Any:
        returned = await perform(self, performance)
        await intend(self, performance)
        return returned

    _put(Runner, "intend", nothing_yet)
    _put(Runner, "perform", both)


def _effect_after_lease() -> None:
    """A worker that stood still takes its lease for granted."""
    _put(Leases, "seconds_left", lambda _self, _job_id, _fence: 1.0)


def _key_per_attempt() -> None:
    """Each attempt hands the other side another key."""

    def downstream_key(self: Context, step: int | str = 0) -> str:
        return f"{self.job_id}:{step}:{self.attempt}"

    _put(Context, "downstream_key", downstream_key)


def _unknown_is_none() -> None:
    """An attempt that was not answered counts as one without an effect."""

    def hopeful(*args: Any, **policy: Any) -> Failure:
        return replace(classify(*args, **policy), effect="none")

    _put(worker.runner, "classify", hopeful)


def _relay_is_deaf() -> None:
    """Nobody rings what nobody rang."""
    _put(Relay, "_ring_due", lambda _self, _connection: 0)


_DEFECTS: Mapping[str, Callable[[], None]] = {
    "settle_unfenced": _settle_unfenced,
    "rescue_requeues": _rescue_requeues,
    "effect_after_lease": _effect_after_lease,
    "intent_after_effect": _intent_after_effect,
    "key_per_attempt": _key_per_attempt,
    "unknown_is_none": _unknown_is_none,
    "outcome_unrecorded": _outcome_unrecorded,
    "relay_is_deaf": _relay_is_deaf,
}


def _put(owner: Any, name: str, defect: Any) -> None:
    if not hasattr(owner, name):
        raise LookupError(name)
    setattr(owner, name, defect)


def _rewrite(statement: Prepared, wrong: str, right: str) -> None:
    """Change a statement's text, prepared or not."""
    for form in ("_prepare", "_plain"):
        before = getattr(statement, form)
        after = re.sub(wrong, right, before, flags=re.DOTALL)
        if after == before:
            raise LookupError(wrong)
        setattr(statement, form, after)
