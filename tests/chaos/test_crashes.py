"""A slice of the crash matrix, each point once at least; and the matrix itself, held against deliberate defects."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.chaos.judged import Judged
from tests.chaos.matrix import CELLS, MUTANTS, Matrix
from tests.chaos.mutants import FOUND

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

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def judged() -> Iterator[Mapping[str, Judged]]:
    folder = Path(tempfile.mkdtemp(prefix="crashes-"))  # a short path: there are sockets in it
    cells = [cell for cell in CELLS if cell.name in SLICE]
    yield {each.cell.name: each for each in Matrix(folder / "m").play([*MUTANTS, *cells], lanes=LANES)}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("cell", SLICE)
def test_a_death_on_a_jobs_way_loses_nothing_and_repeats_nothing(cell: str, judged: Mapping[str, Judged]) -> None:
    assert (judged[cell].verdict, judged[cell].why) == ("held", ())


@pytest.mark.parametrize("mutant", FOUND)
def test_the_matrix_finds_a_defect(mutant: str, judged: Mapping[str, Judged]) -> None:
    found = FOUND[mutant]
    cell = judged[f"{mutant}-{found.cell}"]
    assert cell.breaks(found.invariant), (cell.verdict, cell.why)
