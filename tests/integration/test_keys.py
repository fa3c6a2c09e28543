"""Keys for the HTTP API: shown once, kept as a hash, refused once they have ended."""

from __future__ import annotations

import math

import pytest
from sqlalchemy import Engine, text

from producer import Producer
from producer.errors import InvalidRequest, KeyNotFound
from producer.keys import hash_of, is_secret_of, parts_of
from producer.ledger.keys import key_by_id


@pytest.fixture
def other(lone_producer: Producer) -> Producer:
    """Another tenant's producer, over the same connections."""
    return lone_producer.for_tenant("other")


def test_a_key_is_shown_once_and_only_its_hash_is_kept(engine: Engine, lone_producer: Producer) -> None:
    record, key = lone_producer.keys.create("billing", ["read", "enqueue"], who="ada")
    assert (record.tenant, record.name, record.scopes, record.standing) == (
        "default",
        "billing",
        ("enqueue", "read"),
        "active",
    )
    parts = parts_of(key)
    assert parts is not None
    assert parts[0] == record.id
    with engine.connect() as connection:
        found = key_by_id(connection, record.id)
        everything = str(connection.execute(text("SELECT * FROM api_keys")).all())
    assert found is not None
    assert is_secret_of(parts[1], found[1])
    assert not is_secret_of(parts[1][::-1], found[1])
    assert parts[1] not in everything


def test_a_revoked_key_is_so_at_once_and_says_who_did_it(lone_producer: Producer) -> None:
    record, _ = lone_producer.keys.create("billing", ["read"])
    ended = lone_producer.keys.revoke(record.id, who="ada")
    assert (ended.standing, ended.revoked_by) == ("revoked", "ada")
    with pytest.raises(KeyNotFound):
        lone_producer.keys.revoke(record.id)


def test_a_key_that_is_revoked_for_later_goes_on_until_then_and_may_be_revoked_for_sooner(
    engine: Engine, lone_producer: Producer
) -> None:
    record, _ = lone_producer.keys.create("billing", ["read"])
    later = lone_producer.keys.revoke(record.id, in_seconds=3_600)
    assert (later.standing, later.expires_at is None) == ("active", False)
    with engine.connect() as connection:
        connection.execute(text("UPDATE api_keys SET expires_at = clock_timestamp()"))
    assert [key.standing for key in lone_producer.keys.list()] == ["expired"]
    assert lone_producer.keys.revoke(record.id).standing == "revoked"


def test_a_key_has_the_life_it_was_given(lone_producer: Producer) -> None:
    record, _ = lone_producer.keys.create("billing", ["read"], seconds=3_600)
    assert record.expires_at is not None
    assert round((record.expires_at - record.created_at).total_seconds()) == 3_600


def test_another_tenants_keys_are_not_there(lone_producer: Producer, other: Producer) -> None:
    record, _ = lone_producer.keys.create("billing", ["read"])
    assert list(other.keys.list()) == []
    with pytest.raises(KeyNotFound):
        other.keys.revoke(record.id)
    assert [key.standing for key in lone_producer.keys.list()] == ["active"]


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        pytest.param({"name": ""}, "name", id="no name"),
        pytest.param({"scopes": []}, "scopes", id="no scope"),
        pytest.param({"scopes": ["root"]}, "scopes", id="unknown scope"),
        pytest.param({"scopes": "read"}, "scopes", id="text for scopes"),
        pytest.param({"seconds": 0}, "seconds", id="no life"),
        pytest.param({"seconds": math.nan}, "seconds", id="no number"),
        pytest.param({"rate_per_second": True}, "rate_per_second", id="truth for a rate"),
        pytest.param({"rate_per_second": -1}, "rate_per_second", id="negative rate"),
    ],
)
def test_what_cannot_be_a_key_is_refused_and_nothing_is_written(
    lone_producer: Producer, asked: dict[str, object], where: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        lone_producer.keys.create(**{"name": "billing", "scopes": ["read"]} | asked)  # type: ignore[arg-type]
    assert refused.value.where == where
    assert list(lone_producer.keys.list()) == []


@pytest.mark.parametrize("text_", ["", "sf_", "sf_abc_def", "Bearer x", "sf_" + "a" * 12 + "_" + "é" * 43])
def test_what_is_no_key_has_no_parts(text_: str) -> None:
    assert parts_of(text_) is None


def test_a_hash_has_as_many_bytes_as_the_ledger_wants() -> None:
    assert len(hash_of("x")) == 32


@pytest.mark.parametrize("key_id", ["", "nothing", "\0" * 12, "a" * 13, "é" * 12, "' OR 1=1 --"])
def test_what_is_no_key_s_id_revokes_nothing(lone_producer: Producer, key_id: str) -> None:
    record, _ = lone_producer.keys.create("billing", ["read"])
    with pytest.raises(KeyNotFound):
        lone_producer.keys.revoke(key_id)
    assert [(key.id, key.standing) for key in lone_producer.keys.list()] == [(record.id, "active")]
