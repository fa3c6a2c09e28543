"""A slice of the crash matrix, each point once at least, and of the scenarios; and the checker held against defects."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.chaos.judged import Judged
from tests.chaos.matrix import BY_NAME, MUTANTS, Matrix
from tests.chaos.mutants.catalogue import FOUND

LANES = 6
# The effect class and the death that ask most of each point.
SLICE = (
    "accept.before-keyed-sigkill",
    "accept.committed-unsafe-terminate_backend",
    "relay.before_mark-idempotent-terminate_backend",
    "relay.before_ring-pure-sigkill",
    "relay.after_ring-keyed-redis_loss",
    "ring.received-idempotent-redis_kill",
    "claim.before-unsafe-sigstop",
    "claim.committed-unsafe-sigkill",
    "claim.committed-keyed-terminate_backend",
    "intend.before-unsafe-sigstop",
    "intend.committed-unsafe-sigstop",
    "intend.committed-keyed-terminate_backend",
    "perform.before-keyed-sigstop",
    "request.arrived-keyed-sigkill",
    "request.arrived-unsafe-child_kill",
    "effect.held-verifiable-sigkill",
    "effect.held-keyed-sigstop",
    "effect.dropped-unsafe-redis_kill",
    "effect.answered-unsafe-sigstop",
    "renewal.before-pure-terminate_backend",
    "stop.draining-idempotent-redis_kill",
    "settle.before-keyed-sigstop",
    "settle.committed-unsafe-terminate_backend",
    "ack.before-unsafe-sigkill",
    "ack.after-pure-group_kill",
    "retry.waiting-keyed-redis_kill",
    "retry.due-unsafe-terminate_backend",
    "rescue.before-keyed-sigstop",
    "rescue.committed-unsafe-redis_kill",
    "take_up.committed-verifiable-terminate_backend",
    "rule.before-verifiable-sigkill",
    "rule.committed-verifiable-terminate_backend",
)

# A death in the midst of each kind of what belongs together.
SCENARIOS = (
    "turns.effect.held-sigstop",
    "turns.bring.before-sigkill",
    "follow_ups.bring.committed-terminate_backend",
    "ticks.tick.accepted-sigkill",
    "batch.settle.before-redis_kill",
    "cancel.settle.committed-sigkill",
    "deadline.claim.before-terminate_backend",
    "hold.settle.committed-sigkill",
    "clock.claim.committed-sigkill",
    "approval.bring.committed-sigkill",
    "approval.approve.committed-sigkill",
    "approval.expire.before-sigstop",
    "approval.consume.committed-terminate_backend",
    "budget.reserve.committed-sigstop",
    "gates.spend.committed-sigkill",
)
# One defect for each part of the checker; `make mutants` plays all.
DEFECTS = (
    "settle_unfenced",
    "rescue_by_id",
    "rescue_requeues",
    "effect_after_lease",
    "intent_after_effect",
    "outbox_apart",
    "turn_said_twice",
    "deadline_ignored",
    "approval_forgone",
    "spent_twice",
)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def judged() -> Iterator[Mapping[str, Judged]]:
    folder = Path(tempfile.mkdtemp(prefix="crashes-"))  # a short path: there are sockets in it
    cells = [BY_NAME[name] for name in (*SLICE, *SCENARIOS)]
    mutants = [piece for piece in MUTANTS if piece.mutant in DEFECTS]
    yield {each.cell.name: each for each in Matrix(folder / "m").play([*mutants, *cells], lanes=LANES)}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("cell", SLICE)
def test_a_death_on_a_jobs_way_loses_nothing_and_repeats_nothing(cell: str, judged: Mapping[str, Judged]) -> None:
    assert (judged[cell].verdict, judged[cell].why) == ("held", ())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_death_among_jobs_that_belong_together_loses_none_and_repeats_none(
    scenario: str, judged: Mapping[str, Judged]
) -> None:
    assert (judged[scenario].verdict, judged[scenario].why) == ("held", ())


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_checker_finds_a_defect(defect: str, judged: Mapping[str, Judged]) -> None:
    found = FOUND[defect]
    played = judged[f"{defect}-{found.cell}"]
    assert any(map(played.breaks, found.invariants)), (played.verdict, played.why)
