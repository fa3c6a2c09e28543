"""Erasing: the words go, and the record stays whole."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from producer import InvalidRequest, JobNotDead, Producer
from producer.ledger.states import State
from tests.integration.sealing import LATER, Sealing, history

SECRET = "Jane Roe, born 1980"


@pytest.fixture
def sealing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Sealing:
    return Sealing(engine, monkeypatch)


def said(producer: Producer, key: str) -> UUID:
    """Return a job that holds somebody's words wherever it can, and has ended."""
    job = producer.enqueue(
        "test.fail",
        {"times": 1, "message": SECRET},
        idempotency_key=key,
        run_at=LATER,
        input={"who": SECRET},
        reasoning=SECRET,
    )
    job.cancel(SECRET)
    return job.id


def everything_of(engine: Engine, job_id: UUID) -> str:
    with engine.connect() as connection:
        rows = [
            connection.execute(text(f"SELECT CAST(t AS text) FROM {table} t WHERE {column} = :id"), {"id": job_id})
            for table, column in (("jobs", "id"), ("decisions", "job_id"), ("events", "job_id"))
        ]
        return "\n".join(str(row[0]) for found in rows for row in found)


def test_what_was_said_goes_and_the_record_is_sound_before_and_after_it_is_sealed(
    lone_producer: Producer, sealing: Sealing, engine: Engine
) -> None:
    sealed, fresh = said(lone_producer, "one"), said(lone_producer, "two")
    history(lone_producer, "other")
    sealing.seal()
    unsealed = said(lone_producer, "three")
    assert SECRET in everything_of(engine, sealed)
    for job_id in (sealed, fresh, unsealed):
        lone_producer.erase(job_id, reason="asked for by the customer", who="ada")
        assert SECRET not in everything_of(engine, job_id)
    assert lone_producer.verify().is_sound
    sealing.seal()
    found = lone_producer.verify()
    assert (found.findings, found.unsealed) == ([], 0)


def test_that_it_was_erased_is_an_event_and_an_act_and_explain_says_so(
    lone_producer: Producer, sealing: Sealing
) -> None:
    job_id = said(lone_producer, "one")
    sealing.seal()
    lone_producer.erase(job_id, reason="asked for by the customer", who="ada")
    event = lone_producer.job(job_id).events[-1]
    assert (event.kind, (event.data or {})["who"], (event.data or {})["reason"]) == (
        "erased",
        "ada",
        "asked for by the customer",
    )
    (newest, *_) = lone_producer.acts(job_id=job_id)
    assert (newest.act, newest.who) == ("erase", "ada")
    told = [line.text for line in lone_producer.explain(job_id).lines]
    assert any(line.startswith("ada (") and "erased its words" in line for line in told)


def test_an_event_that_is_changed_once_the_words_are_gone_is_found_still(
    lone_producer: Producer, sealing: Sealing, engine: Engine
) -> None:
    job_id = said(lone_producer, "one")
    sealing.seal()
    lone_producer.erase(job_id, reason="asked for")
    with engine.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(
            text("""UPDATE events SET data = CAST(:data AS json) WHERE job_id = :id AND seq = 2"""),
            {"id": job_id, "data": '{"erased":"' + "0" * 64 + '"}'},
        )
        connection.execute(text("SET session_replication_role = DEFAULT"))
    (finding,) = lone_producer.verify().findings
    assert finding.text == f"Event 2 of job {job_id} was changed."


def test_again_changes_nothing_that_counts(lone_producer: Producer, sealing: Sealing) -> None:
    job_id = said(lone_producer, "one")
    for _ in range(2):
        lone_producer.erase(job_id, reason="asked for")
        sealing.seal()
    assert lone_producer.verify().is_sound


def test_what_has_not_ended_is_left_alone(lone_producer: Producer) -> None:
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 2}, run_at=LATER)
    with pytest.raises(InvalidRequest, match="is queued; what has not ended needs its words"):
        lone_producer.erase(job.id, reason="asked for")
    assert (job.refresh().record.params, len(job.events)) == ({"a": 1, "b": 2}, 1)


def test_a_job_whose_words_are_gone_is_neither_retried_nor_undone(lone_producer: Producer, engine: Engine) -> None:
    job_id = said(lone_producer, "one")
    lone_producer.erase(job_id, reason="asked for")
    for state, refused in ((State.DEAD, JobNotDead), (State.SUCCEEDED, InvalidRequest)):
        with engine.connect() as connection:
            asked = {"id": job_id, "state": state}
            connection.execute(text("UPDATE jobs SET state = :state, action = 'note.tear' WHERE id = :id"), asked)
        with pytest.raises(refused):
            (lone_producer.retry if state is State.DEAD else lone_producer.undo)(job_id, reason="why")


def test_the_same_key_is_known_still(lone_producer: Producer) -> None:
    job_id = said(lone_producer, "one")
    lone_producer.erase(job_id, reason="asked for")
    again = lone_producer.enqueue(
        "test.fail", {"times": 1, "message": SECRET}, idempotency_key="one", run_at=LATER, reasoning=SECRET
    )
    assert (again.outcome, again.id) == ("replayed", job_id)
