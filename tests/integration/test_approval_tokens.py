"""Links by which a person decides: one word on one thing, once, soon, by whoever it was made for."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from producer import (
    ApprovalClosed,
    ApprovalMismatch,
    ApprovalNotFound,
    ApprovalState,
    ApproverRefused,
    InvalidRequest,
    Producer,
    Settings,
    SettingsError,
    TokenRefused,
    tokens,
)
from tests.integration.approving import WHY, enqueued, waiting

KEY = "k" * 32


@pytest.fixture
def signing(lone_producer: Producer) -> Iterator[Producer]:
    made = Producer(replace(lone_producer.settings, signing_key=KEY))
    yield made
    made.close()


def test_a_token_says_its_one_word_once(engine: Engine, signing: Producer) -> None:
    approval = waiting(engine, signing)
    token = signing.approvals.token(approval.id, "approve", person="ben")
    seen, verdict, person = signing.approvals.read_token(token)
    assert (seen.id, verdict, person, seen.state) == (approval.id, "approve", "ben", ApprovalState.PENDING)
    decided = signing.approvals.use_token(token, reason=WHY, address="192.0.2.7")
    (vote,) = decided.votes
    assert (decided.state, vote.by, vote.via, vote.address, vote.reason) == (
        ApprovalState.APPROVED,
        "ben",
        "link",
        "192.0.2.7",
        WHY,
    )
    for act in (signing.approvals.use_token, signing.approvals.read_token):
        with pytest.raises(TokenRefused, match="used before"):
            act(token)


def test_the_ledger_has_a_hash_and_no_token(engine: Engine, signing: Producer) -> None:
    approval = waiting(engine, signing)
    token = signing.approvals.token(approval.id, "reject", person="ben")
    with engine.connect() as connection:
        stored = str(connection.execute(text("SELECT * FROM approval_tokens")).all())
    assert token not in stored
    assert token.rpartition(".")[2] not in stored
    assert token != signing.approvals.token(approval.id, "reject", person="ben")


def test_of_many_who_use_one_token_at_once_one_does(engine: Engine, signing: Producer) -> None:
    approval = waiting(engine, signing, quorum=2)
    token = signing.approvals.token(approval.id, "approve", person="ben")

    def use(_: int) -> bool:
        try:
            signing.approvals.use_token(token)
        except TokenRefused:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(use, range(8))) == 1
    assert len(signing.approvals.get(approval.id).votes) == 1


def test_a_token_for_one_job_says_nothing_of_another(engine: Engine, signing: Producer, settings: Settings) -> None:
    approval = waiting(engine, signing)
    other = waiting(engine, signing, job=enqueued(signing, idempotency_key="k"))
    token = signing.approvals.token(approval.id, "approve", person="ben")
    body, _, signature = token.removeprefix("sfa_").partition(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    for change in ({"approval": str(other.id)}, {"person": "eve"}, {"verdict": "reject"}, {"tenant": "other"}):
        forged = base64.urlsafe_b64encode(json.dumps(claims | change).encode()).rstrip(b"=").decode()
        with pytest.raises(TokenRefused, match="not genuine"):
            signing.approvals.use_token(f"sfa_{forged}.{signature}")
    with pytest.raises(TokenRefused, match="another tenant's"):
        signing.for_tenant("other").approvals.use_token(token)
    stranger = Producer(replace(settings, signing_key="x" * 32))
    with pytest.raises(TokenRefused, match="not genuine"):
        stranger.approvals.use_token(token)
    with pytest.raises(TokenRefused, match="there is no such token"):
        signing.approvals.use_token(tokens.sign({**claims, "verdict": "reject"}, KEY))  # by whoever has the key
    stranger.close()
    assert signing.approvals.get(other.id).votes == ()
    for nonsense in ("", "sfa_", "sfa_x.y", "sf_abc", f"{token}x", token[:-1], "sfa_\u00fc.y"):
        with pytest.raises(TokenRefused):
            signing.approvals.use_token(nonsense)
    assert signing.approvals.get(approval.id).votes == ()


def test_what_was_altered_in_the_ledger_is_not_what_was_signed(engine: Engine, signing: Producer) -> None:
    approval = waiting(engine, signing)
    token = signing.approvals.token(approval.id, "reject", person="ben")
    with engine.connect() as connection:
        connection.execute(text("UPDATE approval_tokens SET verdict = 'approve', person = 'eve'"))
    with pytest.raises(TokenRefused, match="not what it was"):
        signing.approvals.use_token(token)
    assert signing.approvals.get(approval.id).votes == ()


def test_a_token_ends_with_its_time_and_with_the_question_s(engine: Engine, signing: Producer) -> None:
    approval = waiting(engine, signing)
    token = signing.approvals.token(approval.id, "approve", person="ben", seconds=3_600)
    with engine.connect() as connection:
        until, end = connection.execute(
            text("SELECT t.expires_at, p.expires_at FROM approval_tokens t JOIN approvals p ON p.id = t.approval_id")
        ).one()
        assert until == end
        connection.execute(text("UPDATE approval_tokens SET expires_at = clock_timestamp() - interval '1 s'"))
    with pytest.raises(TokenRefused, match="time is over"):
        signing.approvals.use_token(token)
    with pytest.raises(TokenRefused, match="time is over"):
        signing.approvals.read_token(token)


def test_a_token_gives_nobody_a_right_that_he_has_not(engine: Engine, signing: Producer) -> None:
    approval = waiting(engine, signing)
    for person, why in (("ada", "somebody else has to decide"), ("mallory", "none of those who may decide")):
        token = signing.approvals.token(approval.id, "approve", person=person)
        with pytest.raises(ApproverRefused, match=why):
            signing.approvals.use_token(token)
        assert signing.approvals.read_token(token)[2] == person  # the refusal has not used it up


def test_a_token_decides_nothing_that_is_decided_or_altered(engine: Engine, signing: Producer) -> None:
    approval = waiting(engine, signing)
    late, early = (signing.approvals.token(approval.id, "approve", person=person) for person in ("ben", "eve"))
    with engine.connect() as connection:
        connection.execute(text('UPDATE decisions SET params = \'{"a": 9, "b": 9}\''))
    with pytest.raises(ApprovalMismatch):
        signing.approvals.use_token(early)
    signing.approvals.withdraw(approval.id, by="ada", reason="never mind")
    with pytest.raises(ApprovalClosed, match="is withdrawn by ada"):
        signing.approvals.use_token(late)


def test_without_a_key_worth_its_name_there_are_no_tokens(engine: Engine, lone_producer: Producer) -> None:
    approval = waiting(engine, lone_producer)
    with pytest.raises(SettingsError, match="SUREFOOT_SIGNING_KEY must have 32 characters"):
        lone_producer.approvals.token(approval.id, "approve", person="ben")


def test_what_no_token_can_be_for_is_refused(engine: Engine, signing: Producer) -> None:
    approval = waiting(engine, signing)
    with pytest.raises(ApprovalNotFound):
        signing.approvals.token("00000000-0000-0000-0000-000000000000", "approve", person="ben")
    for seconds in (0, -1, True, "9", 8 * 86_400, float("nan")):
        with pytest.raises(InvalidRequest, match="seconds"):
            signing.approvals.token(approval.id, "approve", person="ben", seconds=seconds)  # type: ignore[arg-type]  # the point
    with pytest.raises(InvalidRequest, match="verdict"):
        signing.approvals.token(approval.id, "perhaps", person="ben")  # type: ignore[arg-type]  # the point
