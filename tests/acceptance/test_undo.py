"""Undoing: another job, of the action that the first one's declares for that, through every gate, with a lineage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from producer import ApproverRefused, InvalidRequest, JobNotUndoable, Producer, State
from producer.job import Job
from tests.acceptance.test_cli import json_lines, surefoot
from tests.houses import House, until


@pytest.fixture
def book(tmp_path: Path) -> str:
    return str(tmp_path / "book")


def lines(book: str) -> list[dict[str, Any]]:
    return [json.loads(each) for each in Path(book).read_text().splitlines()]


def done(producer: Producer, action: str, **params: Any) -> Job:
    job = producer.enqueue(action, params, request_id="undo-me", agent_id="desk", user_id="cleo")
    assert job.wait(20).state is State.SUCCEEDED
    return job


def test_what_a_job_did_is_taken_back_by_the_action_that_it_declares_with_what_it_left(house: House, book: str) -> None:
    job = done(house.producer, "note.write", book=book, words="hello")
    undo = house.producer.undo(job.id, reason="it was a mistake", who="ada")
    assert (undo.outcome, undo.wait(20).state, undo.result) == ("created", State.SUCCEEDED, "struck")
    assert lines(book) == [{"wrote": "hello"}, {"struck": 1}]
    assert (undo.record.action, undo.record.params) == ("note.strike", {"book": book, "result": 1})
    assert (undo.record.user_id, undo.record.reasoning) == ("ada", "it was a mistake")


def test_the_lineage_is_in_the_chain_in_the_history_and_among_the_acts(house: House, book: str) -> None:
    job = done(house.producer, "note.write", book=book, words="hello")
    undo = house.producer.undo(job.id, reason="it was a mistake", who="ada").wait(20)
    assert (undo.record.parent_job_id, undo.record.request_id) == (job.id, "undo-me")
    assert undo.id in [record.id for record in house.producer.chain("undo-me")]
    event = job.events[-1]
    assert (event.kind, (event.data or {})["job_id"], (event.data or {})["who"]) == ("undo_asked", str(undo.id), "ada")
    (act, *_) = house.producer.acts(job_id=job.id)
    assert (act.act, act.who, act.reason, act.data) == ("undo", "ada", "it was a mistake", {"by": str(undo.id)})
    told = [line.text for line in house.producer.explain(job.id).lines]
    assert any(f"had job {undo.id} (note.strike, succeeded) undo it: “it was a mistake”." in each for each in told)
    (origin,) = [line.text for line in house.producer.explain(undo.id).lines if "It is to undo" in line.text]
    assert origin == f"It is to undo job {job.id} (note.write, succeeded)."


def test_it_is_taken_back_once_however_often_that_is_asked_for(house: House, book: str) -> None:
    job = done(house.producer, "note.write", book=book, words="hello")
    first = house.producer.undo(job.id, reason="a mistake")
    again = house.producer.undo(job.id, reason="a mistake, I said")
    assert (again.id, again.outcome) == (first.id, "replayed")
    first.wait(20)
    assert len(lines(book)) == 2
    assert [act.act for act in house.producer.acts(job_id=job.id)] == ["undo"]


def test_an_undo_that_came_to_nothing_may_be_asked_for_again(house: House, book: str) -> None:
    job = done(house.producer, "note.tear", book=book)
    Path(f"{book}.torn").touch()
    assert house.producer.undo(job.id, reason="a mistake").wait(20).state is State.FAILED
    Path(f"{book}.torn").unlink()
    again = house.producer.undo(job.id, reason="it can be mended now")
    assert (again.outcome, again.wait(20).state) == ("created", State.SUCCEEDED)


def test_it_goes_through_the_gates_and_who_wants_it_may_not_approve_it(house: House, book: str) -> None:
    job = done(house.producer, "note.pay", book=book, amount=7)
    undo = house.producer.undo(job.id, reason="paid twice", who="ada")
    until(lambda: undo.refresh().state is State.AWAITING_APPROVAL)
    assert lines(book) == [{"paid": 7}]
    (asked,) = house.producer.approvals.of_job(undo.id)
    assert asked.params == {"book": book, "result": "payment 1", "amount": 7}
    with pytest.raises(ApproverRefused):
        house.producer.approvals.approve(asked.id, digest=asked.digest, by="ada", reason="mine")
    house.producer.approvals.approve(asked.id, digest=asked.digest, by="ben", reason="so it was")
    assert undo.wait(20).state is State.SUCCEEDED
    assert lines(book)[1] == {"refunded": 7, "of": "payment 1"}


@pytest.mark.parametrize(
    ("action", "state", "why"),
    [
        ("note.for_good", State.SUCCEEDED, "the action note.for_good declares no undo="),
        ("test.raise", State.FAILED, "it is failed, and only what succeeded can be taken back"),
    ],
)
def test_what_cannot_be_undone_is_refused_and_says_why(
    house: House, book: str, action: str, state: State, why: str
) -> None:
    params = {"kind": "refused"} if state is State.FAILED else {"book": book}
    job = house.producer.enqueue(action, params, idempotency_key=book).wait(20)
    assert job.state is state
    with pytest.raises(JobNotUndoable, match=why):
        house.producer.undo(job.id, reason="a mistake")
    assert job.events[-1].kind != "undo_asked"


@pytest.mark.parametrize("reason", ["", " ", None])
def test_who_gives_no_reason_is_refused(house: House, book: str, reason: Any) -> None:
    job = done(house.producer, "note.write", book=book, words="hello")
    with pytest.raises(InvalidRequest, match="reason"):
        house.producer.undo(job.id, reason=reason)


def test_the_command_undoes_and_explain_says_how(house: House, book: str) -> None:
    job = done(house.producer, "note.write", book=book, words="hello")
    (step,) = house.producer.explain(job.id).next_steps
    assert step.text == "To have it undone by note.strike"
    command = (step.command or "").replace("REASON", "mistaken").split()
    (answer,) = json_lines(surefoot(house, *command[1:], "--json"))
    assert (answer["outcome"], answer["action"]) == ("created", "note.strike")
    house.producer.job(answer["id"]).wait(20)
    assert surefoot(house, *command[1:]).stdout.startswith(f"replayed {answer['id']} (note.strike): succeeded")
    refused = surefoot(house, "undo", answer["id"], "--reason", "no")
    assert (refused.returncode, "declares no undo=" in refused.stderr) == (2, True)
