"""I7 and I13: moves that there are not, rows that are not the sum of their events, and histories with a gap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from producer.ledger.states import MOVES, State
from tests.chaos.checker.judge import judge
from tests.chaos.checker.moves import WAITS, moved_to
from tests.chaos.ledger_rows import EventRow, Ledger
from tests.unit.chaos.story import JobStory, Story
from tests.unit.chaos.verdicts import broken, findings, the_finding
from worker.performance import EVENT_KINDS


def calm(action: str = "chaos.pure") -> tuple[Story, JobStory]:
    story = Story(expect_faults=False)
    return story, story.accepted(action)


def done() -> tuple[Story, JobStory]:
    story, job = calm()
    return story, job.claimed().intended().settled()


# ---- I7: moves -------------------------------------------------------------------------------------------------


def test_an_outcome_that_is_overwritten() -> None:
    story, job = done()
    job.row |= {"lease_owner": "w1"}
    job.settled(State.FAILED)
    assert "I7" in broken(story)
    assert "a legal move from succeeded / to failed" in said(story)


def test_a_job_that_is_claimed_once_it_has_ended() -> None:
    story, job = done()
    job.claimed("w2").intended().settled()
    assert "a legal move from succeeded / to claimed" in said(story)


def test_an_intent_without_a_claim() -> None:
    story, job = calm()
    job.intended().settled()
    assert "a legal move from queued / to running" in said(story)


def test_a_success_without_an_intent() -> None:
    story, job = calm()
    job.claimed().settled()
    assert broken(story) == {"I7"}
    assert the_finding(story, "I7") == "a legal move from claimed / to succeeded"


def test_a_job_that_is_accepted_twice() -> None:
    story, job = calm()
    job.noted("accepted").claimed().intended().settled()
    assert "a legal move from queued / to queued" in said(story)


def test_a_person_s_word_on_a_job_that_was_not_in_doubt() -> None:
    story, job = calm()
    job.claimed().intended().resolved("happened", State.SUCCEEDED)
    job.row |= {"lease_owner": None, "lease_expires_at": None, "fence": job.row["fence"]}
    assert broken(story) == set(), "from running a success is legal"
    job.resolved("retry", State.WAITING)
    assert "a legal move from succeeded / to waiting" in said(story)


@pytest.mark.parametrize("source", State)
@pytest.mark.parametrize("target", State)
def test_every_move_that_the_table_lacks_is_found_and_no_other(source: State, target: State) -> None:
    """By way of the events that say where they move a job, from a history that leads anywhere."""
    story, job = calm()
    job.noted("resolved", fence=1, data={"to": str(source)})
    job.noted("resolved", fence=2, data={"to": str(target)})
    illegal = f"a legal move from {source} / to {target}" in said(story)
    assert illegal == (target not in MOVES[source])


def test_an_event_of_no_kind_that_there_is() -> None:
    story, job = done()
    job.noted("vanished")
    assert the_finding(story, "I7") == "an event of a known kind / 'vanished'"


@pytest.mark.parametrize("kind", ["rescued", "resolved", "verified"])
def test_a_move_that_does_not_say_where(kind: str) -> None:
    story, job = calm()
    job.claimed().noted(kind, fence=2, data={"from": "claimed", "to": "nowhere", "crashes": 1})
    assert "an event that says where it moved the job / to 'nowhere'" in said(story)


@pytest.mark.parametrize(("field", "value"), [("from", "running"), ("crashes", 2)])
def test_a_rescue_that_says_otherwise_than_its_history(field: str, value: object) -> None:
    story = Story()
    job = story.accepted("chaos.pure").claimed()
    story.fault("sigkill")
    job.rescued().claimed("w2").intended().settled()
    job.events[2]["data"][field] = value
    assert {"I7"} <= broken(story)
    assert any(each.startswith("a rescue from claimed, crash 1 / ") for each in said(story))


def test_a_rescue_from_somebody_who_had_it_no_more() -> None:
    story = Story()
    job = story.accepted("chaos.pure").claimed("w1").intended()
    story.fault("sigkill")
    job.rescued(worker="w2").claimed("w2").intended()
    story.fault("sigstop", "w3")
    job.rescued(worker="w3").claimed("w2").intended().settled()
    job.events[-4]["data"]["silent"] = "w1"  # as one says who saw it silent, and took it over by its id alone
    assert said(story) == {"a rescue from its owner, w2 / from w1"}


def test_an_attempt_that_is_counted_twice() -> None:
    story, job = done()
    job.events[2]["attempt"] = 2
    job.events[3]["attempt"] = 2
    assert the_finding(story, "I7") == "attempt 1 / attempt 2"


def test_a_hold_after_the_intent_gives_its_attempt_back() -> None:
    story, job = calm()
    job.claimed().intended().parked("rate").claimed().intended().settled()
    assert (broken(story), job.row["attempt"]) == (set(), 1)


def test_a_replay_a_request_to_cancel_and_a_look_that_found_nothing_move_nothing() -> None:
    kinds = [
        ("replayed", None),
        ("cancel_requested", None),
        ("late_result", None),
        ("verified", {"verdict": "unknown"}),
    ]
    for kind, data in kinds:
        assert moved_to(event(kind, data)) is None


def test_the_kinds_that_say_that_a_job_waits_are_those_that_a_worker_writes() -> None:
    assert set(WAITS) == set(EVENT_KINDS.values())


def event(kind: str, data: dict[str, Any] | None) -> EventRow:
    return EventRow(job_id="j", seq=1, at=1.0, kind=kind, attempt=None, fence=None, worker=None, data=data)


# ---- I7: the row -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("state", "failed"),
        ("attempt", 2),
        ("crashes", 1),
        ("fence", 2),
        ("fence", 0),
        ("lease_owner", "w1"),
        ("waiting_for", "retry"),
    ],
    ids=str,
)
def test_a_row_that_is_not_what_its_events_say(column: str, value: object) -> None:
    story, job = done()
    job.row[column] = value
    assert any(each.endswith(f" / {column} {value}") for each in said(story))


def test_a_row_that_was_changed_without_an_event() -> None:
    """As by a statement that moves a job and forgets to say so."""
    story, job = calm()
    job.claimed().intended()
    job.row |= {"state": "succeeded", "lease_owner": None, "lease_expires_at": None, "finished_at": story.now}
    assert "state running, as its events say / state succeeded" in said(story)


@pytest.mark.parametrize("finished", [True, False])
def test_a_job_that_ended_has_a_moment_of_its_end_and_no_other_job_has(finished: bool) -> None:  # noqa: FBT001
    story, job = calm()
    if finished:
        job.claimed().intended().settled()
        job.row["finished_at"] = None
    else:
        job.row["finished_at"] = story.now
    assert any(each.startswith("a moment of its end") for each in said(story))


def test_a_look_that_raised_the_fence_and_has_not_spoken_yet_is_no_lie() -> None:
    story = Story()
    job = story.accepted("chaos.verifiable").claimed().intended().requested("applied", "dropped")
    story.fault("sigkill")
    job.rescued(State.IN_DOUBT).row["fence"] += 1
    assert broken(story) == set()


def said(story: Story) -> set[str]:
    return {f"{finding.expected} / {finding.found}" for finding in findings(story, "I7")}


# ---- I13 -------------------------------------------------------------------------------------------------------


def test_an_event_that_is_missing() -> None:
    story, job = calm()
    call = story.asked("chaos.pure", "key-1")
    job.noted("replayed")
    story.answered(call, job, "replayed")
    job.claimed().intended().settled()
    del job.events[1]
    assert broken(story) == {"I13"}
    assert [each.found for each in findings(story, "I13")] == ["[1, 3, 4, 5]", "4 events"]


def test_a_history_whose_end_was_cut_off() -> None:
    story, job = done()
    del job.events[-1]
    assert "I13" in broken(story)


def test_a_history_that_begins_in_the_middle() -> None:
    story, job = calm()
    job.events[0]["kind"] = "replayed"
    assert "a history that begins with the acceptance" in {each.expected for each in findings(story, "I13")}


def test_a_job_without_events() -> None:
    story, job = calm()
    job.events.clear()
    assert "[]" in {each.found for each in findings(story, "I13")}


def test_events_out_of_the_order_of_their_moments() -> None:
    story, job = done()
    job.events[2]["at"] = job.events[1]["at"] - 0.01
    assert "events in the order of their moments" in {each.expected for each in findings(story, "I13")}


def test_a_job_without_its_decision() -> None:
    story, _ = done()
    evidence = story.evidence()
    bare = replace(evidence.ledger.first, decisions=())
    found = [each for each in judge(replace(evidence, ledger=Ledger(bare, bare))) if each.invariant == "I13"]
    assert [each.expected for each in found] == ["a decision for every job"]


def test_events_and_decisions_of_a_job_that_is_not_there() -> None:
    story, _ = done()
    evidence = story.evidence()
    bare = replace(evidence.ledger.first, jobs=())
    found = [each for each in judge(replace(evidence, ledger=Ledger(bare, bare))) if each.invariant == "I13"]
    assert [each.expected for each in found] == ["no event without its job", "no decision without its job"]


@pytest.mark.parametrize("table", ["jobs", "decisions", "events", "messages"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_two_exports_that_differ(table: str, how: str) -> None:
    story, job = done()
    job.in_conversation("c").said(2)
    evidence = story.evidence()
    rows = {
        "jobs": [job.row],
        "decisions": [job.decision],
        "events": list(job.events),
        "messages": list(story.messages),
        "approvals": [],
        "reservations": [],
        "accounts": [],
    }
    first = rows[table][0]
    rows[table] = rows[table][1:]
    if how == "changed":
        changes: dict[str, dict[str, Any]] = {
            "jobs": {"ring_at": 0.0},
            "decisions": {"input": "x"},
            "events": {"worker": "w9"},
            "messages": {"content": "something else"},
        }
        rows[table] = [dict(first) | changes[table], *rows[table]]
    second = type(evidence.ledger.first).of({"at": story.now, **rows}, "second")
    found = judge(replace(evidence, ledger=Ledger(evidence.ledger.first, second)))
    assert [each.invariant for each in found] == ["I13"]
    named = "default/c/1" if table == "messages" else job.id
    assert found[0].found.startswith(f"1 {table} differ: {named}")
