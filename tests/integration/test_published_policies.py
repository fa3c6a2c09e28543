"""What of published policies is kept: the newest version's word, and how often any of it has changed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from producer import InvalidRequest, PolicyNotFound, Producer
from producer.ledger.engine import transaction_on
from producer.ledger.policies import DeclaredPolicy, news, policies_in_force, publish_declared, retire
from tasks import Rule, allow
from tests.integration.test_statements import claimed, writer_of
from worker.published import Published, doubts


def declared(name: str = "p", version: int = 1, pattern: str = "a.*") -> DeclaredPolicy:
    return DeclaredPolicy(name=name, version=version, pattern=pattern, declared_in=f"here.{name}")


def rule(name: str = "p", version: int = 1, pattern: str = "a.*") -> Rule:
    return Rule(name=name, version=version, pattern=pattern, function=lambda _: allow(), place="here")


def publish(connection: Connection, *policies: DeclaredPolicy) -> list[str]:
    return publish_declared(connection, policies)


def changed(connection: Connection) -> int:
    return max(each.changed for each in news(connection, None))


def test_a_worker_that_only_starts_changes_nothing_that_others_would_have_to_read(engine: Engine) -> None:
    with engine.connect() as connection:
        assert news(connection, None) == []
        assert publish(connection, declared("p"), declared("q")) == ["p", "q"]
        before = changed(connection)
        assert publish(connection, declared("p"), declared("q")) == []
        assert changed(connection) == before
        assert news(connection, before) == []
        assert publish(connection) == []


def test_an_older_version_never_replaces_a_newer_one(engine: Engine) -> None:
    with engine.connect() as connection:
        publish(connection, declared(version=2, pattern="a.*"))
        assert publish(connection, declared(version=1, pattern="b.*")) == []
        (policy,) = policies_in_force(connection)
        assert (policy.version, policy.patterns) == (2, ("a.*",))
        assert publish(connection, declared(version=3, pattern="b.*")) == ["p"]
        (policy,) = policies_in_force(connection)
        assert (policy.version, policy.patterns) == (3, ("b.*",))


def test_code_of_one_version_with_another_pattern_widens_what_is_guarded_and_never_narrows_it(engine: Engine) -> None:
    with engine.connect() as connection:
        publish(connection, declared(pattern="a.*"))
        assert publish(connection, declared(pattern="a.b")) == ["p"]
        (policy,) = policies_in_force(connection)
        assert policy.patterns == ("a.*", "a.b")
        assert publish(connection, declared(pattern="a.*")) == []


def test_what_is_retired_is_published_anew_by_any_version_that_declares_it(engine: Engine) -> None:
    with engine.connect() as connection:
        publish(connection, declared(version=2))
        with transaction_on(connection):
            assert retire(connection, "p")
        assert policies_in_force(connection) == []
        with transaction_on(connection):
            assert not retire(connection, "p")
        before = changed(connection)
        assert publish(connection, declared(version=1)) == ["p"]
        assert changed(connection) > before


def test_changes_are_numbered_in_the_order_of_their_commits(engine: Engine) -> None:
    # Whoever has read change 2 would never look for a change 1 that is committed after it.
    with engine.connect() as one:
        with transaction_on(one):
            publish(one, declared("p"))
            other = threading.Thread(target=_publish, args=(engine, declared("q")))
            other.start()
            other.join(0.2)
            assert other.is_alive()
        other.join(20)
        assert [(each.name, each.changed) for each in news(one, None)] == [("p", 1), ("q", 2)]


def _publish(engine: Engine, policy: DeclaredPolicy) -> None:
    with engine.connect() as connection:
        publish(connection, policy)


def test_every_claim_says_how_often_policies_have_changed(engine: Engine, lone_producer: Producer) -> None:
    writer = writer_of(engine)
    jobs = [lone_producer.enqueue("test.add", {"a": number, "b": 2}) for number in range(2)]

    assert claimed(writer, jobs[0]).policies is None
    with engine.connect() as connection:
        publish(connection, declared("p"), declared("q"))
    assert claimed(writer, jobs[1]).policies == 1


@pytest.mark.parametrize(
    ("rules", "lacks"),
    [
        ([], True),
        ([rule()], True),
        ([rule(version=2)], False),
        ([rule(version=3)], False),
        ([rule(name="other", version=2)], True),
    ],
    ids=["none", "an older version", "the version", "a newer one", "another one"],
)
def test_a_process_lacks_what_it_has_not_loaded_in_that_version(
    engine: Engine,
    rules: Sequence[Rule],
    lacks: bool,  # noqa: FBT001  a row of the table
) -> None:
    published = Published(["a.b", "c.d"], {"a.b": rules} if rules else {})
    with engine.connect() as connection:
        publish(connection, declared(version=2))
        published.read(connection)
    assert (published.lacking("a.b") is not None) is lacks
    assert published.lacking("c.d") is None
    assert published.changed == 1


def test_code_that_declares_a_policy_for_other_actions_is_told_so(engine: Engine) -> None:
    with engine.connect() as connection:
        publish(connection, declared(pattern="*"))
        (doubt,) = doubts(["a.b", "c.d"], {"a.b": [rule(pattern="a.*")]}, policies_in_force(connection))
    assert "policy p (version 1, here.p) is published, and this code has it for other actions: jobs of c.d are" in doubt


def test_a_policy_is_retired_for_a_reason_and_by_its_name(producer: Producer, engine: Engine) -> None:
    with engine.connect() as connection:
        publish(connection, declared("payouts"))
    with pytest.raises(InvalidRequest, match="reason"):
        producer.policies.retire("payouts", reason=" ")
    with pytest.raises(PolicyNotFound, match="did you mean 'payouts'"):
        producer.policies.retire("payout", reason="it is gone")
    producer.policies.retire("payouts", reason="it is gone")
    assert producer.policies.list() == []
    (act,) = producer.acts()
    assert (act.act, act.target, act.reason) == ("retire policy", "payouts", "it is gone")
