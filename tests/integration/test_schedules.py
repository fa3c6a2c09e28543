"""Schedules that people add: looked at, paused, resumed and removed by name, and refused before anything is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from producer import (
    InvalidRequest,
    InvalidSchedule,
    Producer,
    ScheduleExists,
    ScheduleNotFound,
    Settings,
    UnknownAction,
)

PARAMS = {"a": 1, "b": 2}
NIGHTLY: dict[str, Any] = {"cron": "0 3 * * *", "zone": "Europe/Berlin"}


def now_of(engine: Engine) -> datetime:
    with engine.connect() as connection:
        now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def test_a_schedule_is_due_at_its_first_tick_from_now_on_by_the_databases_clock(
    engine: Engine, lone_producer: Producer
) -> None:
    made = lone_producer.schedules.add("nightly", "test.add", PARAMS, **NIGHTLY, missed="skip", reasoning="books")
    local = made.next_tick.astimezone(ZoneInfo("Europe/Berlin"))
    assert (local.hour, local.minute) == (3, 0)
    assert timedelta(0) < made.next_tick - now_of(engine) <= timedelta(hours=25)
    assert (made.declared_by, made.missed, made.reasoning, made.params) == ("person", "skip", "books", PARAMS)
    assert (made.paused_at, made.last_tick, made.last_error) == (None, None, None)
    assert lone_producer.schedules.list() == [made] == [lone_producer.schedules.get("nightly")]


def test_adding_the_same_schedule_again_changes_nothing(lone_producer: Producer) -> None:
    made = lone_producer.schedules.add("nightly", "test.add", PARAMS, **NIGHTLY)
    assert lone_producer.schedules.add("nightly", "test.add", {"b": 2, "a": 1}, **NIGHTLY) == made


def test_another_schedule_under_the_same_name_is_refused_with_what_differs(lone_producer: Producer) -> None:
    made = lone_producer.schedules.add("nightly", "test.add", PARAMS, **NIGHTLY)
    with pytest.raises(ScheduleExists) as caught:
        lone_producer.schedules.add("nightly", "test.add", {"a": 1, "b": 3}, cron="0 4 * * *", zone="Europe/Berlin")
    assert (caught.value.name, caught.value.fields) == ("nightly", ("params", "cron"))
    assert lone_producer.schedules.get("nightly") == made


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"name": "Nightly report"}, "name"),
        ({"name": "n" * 101}, "name"),
        ({"name": ".nightly"}, "name"),
        ({"name": None}, "name"),
        ({"params": {"a": "x", "b": 2}}, "params.a"),
        ({"params": {"a": 1}}, "params"),
        ({"params": [1]}, "params"),
        ({"params": {"a": float("nan"), "b": 1}}, "params.a"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"zone": "Europe/Berlni"}, "zone"),
        ({"cron": None, "every": 0.5, "zone": None}, "every"),
        ({"missed": "some"}, "missed"),
        ({"priority": 10}, "priority"),
        ({"queue": ""}, "queue"),
        ({"request_id": "a\nb"}, "request_id"),
        ({"agent_id": 5}, "agent_id"),
        ({"reasoning": "x" * 70_000}, "reasoning"),
    ],
)
def test_what_every_tick_would_be_refused_for_is_refused_when_it_is_added(
    lone_producer: Producer, changed: dict[str, Any], where: str
) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        lone_producer.schedules.add(**({"name": "nightly", "action": "test.add", "params": PARAMS} | NIGHTLY | changed))
    assert caught.value.where == where
    assert lone_producer.schedules.list() == []


def test_a_schedule_of_an_action_that_no_worker_has_is_refused(lone_producer: Producer) -> None:
    with pytest.raises(UnknownAction, match=r"did you mean 'test\.add'"):
        lone_producer.schedules.add("nightly", "test.ad", PARAMS, **NIGHTLY)


def test_a_schedule_is_paused_and_resumed_from_its_next_tick_on(engine: Engine, lone_producer: Producer) -> None:
    lone_producer.schedules.add("often", "test.add", PARAMS, every=1)
    paused = lone_producer.schedules.pause("often")
    assert (paused.paused_by, paused.paused_at is None) == ("person", False)
    assert lone_producer.schedules.pause("often") == paused
    with engine.connect() as connection:
        connection.execute(text("UPDATE schedules SET next_tick = '2020-01-01Z'"))
    resumed = lone_producer.schedules.resume("often")
    assert (resumed.paused_by, resumed.paused_at) == (None, None)
    assert abs(resumed.next_tick - now_of(engine)) < timedelta(seconds=10)
    assert lone_producer.schedules.resume("often") == resumed


def test_a_removed_schedule_is_not_there_any_more_and_its_name_is_free(lone_producer: Producer) -> None:
    lone_producer.schedules.add("nightly", "test.add", PARAMS, **NIGHTLY)
    assert lone_producer.schedules.remove("nightly").name == "nightly"
    assert lone_producer.schedules.list() == []
    lone_producer.schedules.add("nightly", "test.add", PARAMS, every=60)


@pytest.mark.parametrize("verb", ["get", "pause", "resume", "remove"])
def test_a_schedule_that_is_not_there_is_said_so_with_what_was_meant(lone_producer: Producer, verb: str) -> None:
    ask = getattr(lone_producer.schedules, verb)
    with pytest.raises(ScheduleNotFound, match=r"there is no schedule 'nihgtly'$"):
        ask("nihgtly")
    lone_producer.schedules.add("nightly", "test.add", PARAMS, **NIGHTLY)
    with pytest.raises(ScheduleNotFound, match="did you mean 'nightly'"):
        ask("nihgtly")


@pytest.mark.parametrize("verb", ["get", "pause", "resume", "remove"])
@pytest.mark.parametrize("name", ["\udcff", "a\x00b", "", "x" * 256, 7], ids=ascii)
def test_a_name_that_no_schedule_can_have_is_refused(lone_producer: Producer, verb: str, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        getattr(lone_producer.schedules, verb)(name)
    assert refused.value.where == "name"


def test_another_tenants_schedules_are_not_there(lone_producer: Producer, settings: Settings) -> None:
    lone_producer.schedules.add("nightly", "test.add", PARAMS, **NIGHTLY)
    other = Producer(Settings(database_url=settings.database_url, redis_url=settings.redis_url, tenant="other"))
    assert other.schedules.list() == []
    with pytest.raises(ScheduleNotFound):
        other.schedules.remove("nightly")
    other.schedules.add("nightly", "test.add", PARAMS, every=60)
    other.close()
    assert len(lone_producer.schedules.list()) == 1


def test_the_next_ticks_are_told_ahead_where_it_is_paused_too(lone_producer: Producer) -> None:
    lone_producer.schedules.add("leap", "test.add", PARAMS, cron="0 0 29 2 *")
    lone_producer.schedules.pause("leap")
    ahead = lone_producer.schedules.next_ticks("leap", 3)
    assert [f"{tick:%m-%d %H:%M}" for tick in ahead] == ["02-29 00:00"] * 3
    assert [tick.year - ahead[0].year for tick in ahead] == [0, 4, 8]
    assert ahead[0].tzinfo is UTC
