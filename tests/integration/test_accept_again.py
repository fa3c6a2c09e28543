"""A request that is sent again, because its answer was lost: it finds its own job, whatever its key stands for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text
from uuid_utils.compat import uuid7

from producer.envelope import Envelope, Request, seal
from producer.ledger.accept import Answer, accept
from producer.ledger.states import State


def rerun() -> Envelope:
    request = Request(action="test.add", params={"a": 1, "b": 2}, idempotency_key="k", on_closed="rerun")
    return seal(request, tenant="default", version=1, queue="actions", now=datetime.now(UTC), new_id=uuid7)


def asked(engine: Engine, *envelopes: Envelope) -> list[Answer]:
    with engine.connect() as connection:
        return accept(connection, envelopes, rings=True, prepared=True)


def end_all(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET state = 'failed'"))


@pytest.mark.parametrize("later_ended", [False, True])
def test_a_request_sent_again_finds_its_own_job_and_not_a_later_one_under_its_key(
    engine: Engine, *, later_ended: bool
) -> None:
    first, later = rerun(), rerun()
    for envelope in (first, later):
        (answer,) = asked(engine, envelope)
        assert (answer.outcome, answer.job_id) == ("created", envelope.id)
        if envelope is first or later_ended:
            end_all(engine)
    (answer,) = asked(engine, first)
    assert (answer.outcome, answer.job_id, answer.state) == ("created", first.id, State.FAILED)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar() == 2
