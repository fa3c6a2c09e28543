"""Schedules that code declares: published at each start, changed when they changed, and never over a person's word."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from producer import Producer, Settings
from producer.declaration import declare
from producer.ledger.engine import open_engine, transaction_on
from producer.ledger.schedules import Declared, ScheduleRecord, declare_all, lock_declaring, withdraw
from tasks import DeclaredSchedule
from tests.houses import until
from tests.integration.ticking import INTERVAL, PARAMS, keys_made, make_due, tick
from worker.declare import publish_schedules

MODULE = "acme.actions"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'starting' AND wait_event_type = 'Lock'"


def declared(name: str = "nightly", *, module: str = MODULE, **changed: Any) -> DeclaredSchedule:
    rule: dict[str, Any] = {"cron": "0 3 * * *", "every": None, "zone": "Europe/Berlin", "missed": "all"}
    return DeclaredSchedule(declare(name, "test.add", **({"params": PARAMS} | rule | changed)), module)


def publish(engine: Engine, *schedules: DeclaredSchedule, imported: Iterable[str] = (MODULE,)) -> list[tuple[str, str]]:
    """Start a worker whose code declares these; return what it has to say of which."""
    with engine.connect() as connection, capture_logs() as logs:
        publish_schedules(connection, schedules, tenant="default", imported=list(imported))
    return [(line["event"], line["schedule"]) for line in logs]


def read(producer: Producer, name: str = "nightly") -> ScheduleRecord:
    return producer.schedules.get(name)


def test_a_declared_schedule_stands_as_declared_with_its_module(engine: Engine, lone_producer: Producer) -> None:
    assert publish(engine, declared(), declared("other", cron=None, zone=None, every=60)) == []
    found = read(lone_producer)
    assert (found.declared_by, found.declared_in, found.rule.cron) == ("code", MODULE, "0 3 * * *")
    assert read(lone_producer, "other").rule.every == 60


def test_publishing_it_unchanged_leaves_it_as_it_stands(engine: Engine, lone_producer: Producer) -> None:
    publish(engine, declared(cron=None, zone=None, every=int(INTERVAL.total_seconds())))
    make_due(engine, "nightly", late=3)
    before = read(lone_producer)
    assert publish(engine, declared(cron=None, zone=None, every=int(INTERVAL.total_seconds()))) == []
    assert read(lone_producer) == before  # what it missed while no worker ran is still to be made up for
    tick(engine)
    assert len(keys_made(engine)) == 4


def test_another_rule_counts_from_now_and_other_params_leave_its_ticks_alone(
    engine: Engine, lone_producer: Producer
) -> None:
    every = int(INTERVAL.total_seconds())
    publish(engine, declared(cron=None, zone=None, every=every))
    at = make_due(engine, "nightly", late=3)
    publish(engine, declared(cron=None, zone=None, every=every, params={"a": 5, "b": 5}))
    assert (read(lone_producer).next_tick, read(lone_producer).params) == (at, {"a": 5, "b": 5})
    publish(engine, declared(cron=None, zone=None, every=every + 1))
    assert read(lone_producer).next_tick > at + 3 * INTERVAL
    publish(engine, declared(zone="Asia/Tokyo"))
    assert read(lone_producer).next_tick.hour == 18


def test_a_persons_pause_survives_whatever_code_declares(engine: Engine, lone_producer: Producer) -> None:
    publish(engine, declared())
    paused = lone_producer.schedules.pause("nightly")
    publish(engine, declared())
    publish(engine, declared(cron="0 4 * * *", version=2))
    publish(engine)
    publish(engine, declared(cron="0 4 * * *", version=2))
    after = read(lone_producer)
    assert (after.paused_at, after.paused_by, after.rule.cron) == (paused.paused_at, "person", "0 4 * * *")


def test_an_older_version_that_starts_later_changes_nothing_and_says_so(
    engine: Engine, lone_producer: Producer
) -> None:
    publish(engine, declared(cron="0 4 * * *", version=2))
    before = read(lone_producer)
    assert publish(engine, declared(version=1)) == [("schedule.not_declared", "nightly")]
    assert read(lone_producer) == before


def test_of_two_declarations_of_one_version_the_last_to_start_stands(engine: Engine, lone_producer: Producer) -> None:
    publish(engine, declared(cron="0 4 * * *"))
    publish(engine, declared(cron="0 5 * * *"))
    assert read(lone_producer).rule.cron == "0 5 * * *"


def test_what_its_module_declares_no_more_makes_no_more_jobs_until_it_is_declared_again(
    engine: Engine, lone_producer: Producer
) -> None:
    publish(engine, declared(), declared("stays"))
    assert publish(engine, declared("stays")) == [("schedule.withdrawn", "nightly")]
    withdrawn = read(lone_producer)
    assert (withdrawn.paused_by, withdrawn.declared_in) == ("code", None)
    assert read(lone_producer, "stays").paused_at is None
    assert publish(engine, declared("stays")) == []  # told once
    make_due(engine, "nightly", late=2)
    tick(engine)
    assert keys_made(engine) == []
    publish(engine, declared(), declared("stays"))
    assert read(lone_producer).paused_at is None
    assert read(lone_producer).next_tick - withdrawn.next_tick < timedelta(days=2)
    tick(engine)
    assert keys_made(engine) == []  # its ticks meanwhile are not missed ones


def test_a_worker_without_the_module_says_nothing_of_its_schedules(engine: Engine, lone_producer: Producer) -> None:
    publish(engine, declared())
    publish(engine, imported=["others.actions"])
    assert read(lone_producer).paused_at is None


def test_a_schedule_that_moves_to_another_module_goes_on(engine: Engine, lone_producer: Producer) -> None:
    publish(engine, declared())
    assert publish(engine, declared(module="acme.schedules"), imported=[MODULE, "acme.schedules"]) == []
    assert (read(lone_producer).declared_in, read(lone_producer).paused_at) == ("acme.schedules", None)


def test_a_persons_schedule_is_not_taken_over_by_code(engine: Engine, lone_producer: Producer) -> None:
    made = lone_producer.schedules.add("nightly", "test.add", PARAMS, every=60)
    assert publish(engine, declared()) == [("schedule.not_declared", "nightly")]
    assert read(lone_producer) == made


def test_a_person_may_have_what_code_withdrew_go_on_or_remove_it(engine: Engine, lone_producer: Producer) -> None:
    publish(engine, declared())
    publish(engine)
    lone_producer.schedules.resume("nightly")
    publish(engine)
    assert read(lone_producer).paused_at is None
    lone_producer.schedules.remove("nightly")
    publish(engine, declared())
    assert read(lone_producer).declared_in == MODULE


def test_a_start_that_fails_has_published_nothing(engine: Engine, lone_producer: Producer) -> None:
    with engine.connect() as connection:
        connection.execute(text("ALTER TABLE schedules ADD CHECK (name <> 'b')"))
    with pytest.raises(Exception, match="violates check constraint"):
        publish(engine, declared("a"), declared("b"))
    assert lone_producer.schedules.list() == []


def test_workers_of_two_versions_that_start_at_once_do_not_wait_for_each_other_in_a_ring(
    engine: Engine, settings: Settings, lone_producer: Producer
) -> None:
    publish(engine, declared("old"), declared("new"))
    own = open_engine(settings.database_url, connections=1, name="starting")
    with ThreadPoolExecutor(1) as starts, engine.connect() as first, engine.connect() as observer:
        with transaction_on(first):
            lock_declaring(first)
            declare_all(first, [on_its_way(lone_producer, "old")])
            second = starts.submit(publish, own, declared("new"))
            until(lambda: observer.execute(text(WAITING)).scalar())
            assert withdraw(first, "default", modules=[MODULE], names=["old"]) == ["new"]
        assert second.result(20) == [("schedule.withdrawn", "old")]
    own.dispose()
    assert read(lone_producer, "new").paused_at is None


def on_its_way(producer: Producer, name: str) -> Declared:
    """What a worker's start writes of a schedule."""
    tick, of = read(producer, name).next_tick, {"tenant": "default", "declared_by": "code", "declared_in": MODULE}
    return Declared(declaration=declared(name).declaration, id=uuid4(), next_tick=tick, **of)  # type: ignore[arg-type]
