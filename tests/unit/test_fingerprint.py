"""What makes two requests the same: the fingerprint, and the key that is derived where none was given."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from datetime import timedelta, timezone
from typing import Any

import pytest

from producer.envelope import Request
from tests.unit.test_envelope import NOW, TRACE, sealed


def test_the_fingerprint_is_the_sha_256_of_version_and_canonical_params() -> None:
    expected = hashlib.sha256(b'2\n{"a":1,"b":"x"}').hexdigest()
    assert sealed(version=2, params={"b": "x", "a": 1.0}).fingerprint == expected


OTHERWISE: dict[str, Any] = {
    "action": "email.other",
    "idempotency_key": "k",
    "user_id": "u",
    "request_id": "r",
    "agent_id": "a",
    "input": {"a": 1},
    "reasoning": "because",
    "trace": TRACE,
    "run_at": NOW,
    "deadline": NOW + timedelta(days=1),
    "priority": 0,
    "queue": "q",
    "on_closed": "rerun",
}


def test_the_table_of_other_fields_is_whole() -> None:
    assert {field.name for field in fields(Request)} == {*OTHERWISE, "params"}


@pytest.mark.parametrize(("name", "value"), OTHERWISE.items(), ids=OTHERWISE)
def test_no_other_field_changes_the_fingerprint(name: str, value: Any) -> None:
    assert sealed(**{name: value}).fingerprint == sealed().fingerprint


@pytest.mark.parametrize("changed", [{"version": 2}, {"params": {"to": "b@example.com"}}, {"params": {}}])
def test_version_and_params_change_the_fingerprint(changed: dict[str, Any]) -> None:
    assert sealed(**changed).fingerprint != sealed().fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"tenant": "other"}, id="tenant"),
        pytest.param({"action": "email.other"}, id="action"),
        pytest.param({"user_id": "u"}, id="user"),
        pytest.param({"params": {}}, id="params"),
        pytest.param({"now": NOW + timedelta(minutes=30)}, id="UTC date"),
    ],
)
def test_a_derived_key_changes_with(changed: dict[str, Any]) -> None:
    assert sealed(**changed).idempotency_key != sealed().idempotency_key


@pytest.mark.parametrize(
    "changed",
    [
        *(
            pytest.param({name: value}, id=name)
            for name, value in OTHERWISE.items()
            if name not in ("action", "idempotency_key", "user_id")
        ),
        pytest.param({"version": 2}, id="version"),
        pytest.param({"now": NOW.replace(hour=0, minute=0)}, id="time of day"),
        pytest.param({"now": NOW.astimezone(timezone(timedelta(hours=9)))}, id="the clock's zone"),
    ],
)
def test_a_derived_key_does_not_change_with(changed: dict[str, Any]) -> None:
    asked = {"user_id": None, **changed}
    assert sealed(**asked).idempotency_key == sealed().idempotency_key


def test_a_derived_key_is_told_from_a_given_one() -> None:
    assert sealed().key_derived


def test_no_user_and_a_user_of_that_name_have_different_keys() -> None:
    assert sealed(user_id="null").idempotency_key != sealed(user_id=None).idempotency_key
