"""The states and the moves between them: what the picture in docs/house.md shows, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from producer.ledger.states import CLOSED, LEASED, MOVES, RINGABLE, WITHOUT_RESULT, State, in_sql, may_become

HOUSE = Path(__file__).parents[2] / "docs" / "house.md"


def picture() -> dict[str, set[str]]:
    """Read ``queued → claimed | cancelled`` and its like."""
    lines = re.findall(r"^(\w+) +→ ([\w |]+)$", HOUSE.read_text(), re.MULTILINE)
    return {source: set(targets.split(" | ")) for source, targets in lines}


def test_every_state_has_its_moves() -> None:
    assert set(MOVES) == set(State)


def test_the_moves_are_those_of_the_picture() -> None:
    assert {source: targets for source, targets in MOVES.items() if targets} == picture()


# The plain lifecycle, and beside it what an effect that may have happened, a deadline and a crash add.
PLAIN = {
    "awaiting_approval": {"queued", "rejected", "expired", "cancelled"},
    "queued": {"claimed", "cancelled", "expired"},
    "waiting": {"claimed", "cancelled", "expired"},
    "claimed": {"running", "waiting", "queued", "failed", "degraded", "awaiting_approval", "cancelled"},
    "running": {"succeeded", "degraded", "failed", "waiting", "in_doubt", "dead"},
    "in_doubt": {"succeeded", "waiting", "failed", "dead"},
    "dead": {"queued"},
    "degraded": {"succeeded"},
}
ADDED = {"waiting": {"in_doubt"}, "claimed": {"expired", "in_doubt", "dead"}}


@pytest.mark.parametrize("state", State)
def test_a_state_s_moves_are_the_plain_ones_and_the_documented_additions(state: State) -> None:
    assert MOVES[state] == PLAIN.get(state, set()) | ADDED.get(state, set())


def test_a_closed_state_is_left_only_by_the_dead_for_the_queue_and_for_a_true_result() -> None:
    left = {State.DEAD: {State.QUEUED}, State.DEGRADED: {State.SUCCEEDED}}
    assert {state: MOVES[state] for state in CLOSED if MOVES[state]} == left


def test_a_state_is_closed_exactly_if_no_worker_and_no_clock_leads_out_of_it() -> None:
    waits_for_a_person, for_another_job = {State.DEAD}, {State.DEGRADED}
    assert {state for state, moves in MOVES.items() if not moves} | waits_for_a_person | for_another_job == CLOSED


def test_every_state_can_be_reached_from_an_accepted_job_or_an_approval() -> None:
    reached = {State.QUEUED, State.AWAITING_APPROVAL}
    while new := {target for source in reached for target in MOVES[source]} - reached:
        reached |= new
    assert reached == set(State)


def test_no_effect_begins_without_a_claim() -> None:
    assert {source for source, targets in MOVES.items() if State.RUNNING in targets} == {State.CLAIMED}


def test_only_what_waits_is_rung_and_only_what_is_owned_has_a_lease() -> None:
    assert {"queued", "waiting"} == RINGABLE
    assert {"claimed", "running"} == LEASED


def test_what_ended_without_a_result_may_run_again() -> None:
    assert {State.SUCCEEDED, State.DEGRADED} == CLOSED - WITHOUT_RESULT


@pytest.mark.parametrize(
    ("targets", "sources"),
    [
        ([State.CLAIMED], "'queued', 'waiting'"),
        ([State.RUNNING], "'claimed'"),
        ([State.CANCELLED], "'awaiting_approval', 'claimed', 'queued', 'waiting'"),
        ([State.CANCELLED, State.EXPIRED], "'awaiting_approval', 'claimed', 'queued', 'waiting'"),
        ([State.SUCCEEDED, State.FAILED], "'in_doubt', 'running'"),
        ([State.SUCCEEDED, State.QUEUED], ""),
    ],
    ids=lambda value: "" if isinstance(value, str) else " and ".join(value),
)
def test_may_become_names_the_states_that_lead_to_every_target(targets: list[State], sources: str) -> None:
    assert may_become(*targets) == sources


def test_states_are_written_as_sorted_sql_literals() -> None:
    assert in_sql({State.WAITING, State.CLAIMED}) == "'claimed', 'waiting'"
