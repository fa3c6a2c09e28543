"""Alerts from real workers, and from who watches them, to a real HTTP server that stands in for the channel."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import redis
from sqlalchemy import Engine, text

from producer import Producer, Settings, State
from producer.breaker_words import MOVES
from producer.ledger import breakers as ledger_breakers
from tests.alert_channel import ChannelStandIn, alerting, ask, workers
from tests.houses import until
from tests.verified_actions import lines

SECONDS = 30.0


def test_each_transition_of_a_breaker_is_told_once_with_three_workers(
    settings: Settings, producer: Producer, engine: Engine, tmp_path: Path, told: ChannelStandIn
) -> None:
    book = tmp_path / "calls"
    mark = Path(f"{book}.broken")
    mark.touch()
    with workers(settings, tmp_path, alerting(f"info={told.url}"), count=3):
        jobs = ask(producer, "shaky.call", 30, log=str(book))
        until(lambda: "breaker shaky is open" in told.titles())
        mark.unlink()
        assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
        until(lambda: "breaker shaky is closed" in told.titles())
        with engine.connect() as connection:
            moves = ledger_breakers.history(connection, "shaky", limit=1000)[::-1]
        until(lambda: len(told.of(lambda title: title.startswith("breaker shaky"))) >= len(moves))
    alerts = told.of(lambda title: title.startswith("breaker shaky"))
    assert [alert["title"].rsplit(" ", 1)[1] for alert in alerts] == [move.becomes for move in moves]
    assert alerts[0]["type"] == "warning"
    assert "surefoot breaker shaky" in alerts[0]["message"]
    assert alerts[-1]["type"] == "success"


def test_a_breaker_is_told_by_the_params_that_it_is_named_by_and_no_secret_that_stands_in_one_gets_anywhere(
    settings: Settings, producer: Producer, engine: Engine, tmp_path: Path, told: ChannelStandIn
) -> None:
    secret = "sk-proj-abcdefghijklmnop1234"
    with workers(settings, tmp_path, alerting(told.url)) as (worker,):
        for model in ("small", secret):
            producer.enqueue_many(
                {"action": "model.call", "params": {"model": model, "fails": True}, "idempotency_key": f"{model}-{n}"}
                for n in range(5)
            )
        until(lambda: len(told.taken) == 2)
    assert sorted(told.titles()) == [
        "breaker model tenant=default model=[redacted] is open",
        "breaker model tenant=default model=small is open",
    ]
    with engine.connect() as connection:
        moves = connection.execute(text("SELECT string_agg(to_json(b)::text, '') FROM breaker_events b")).scalar_one()
        waits = connection.execute(text("SELECT string_agg(waiting_on, '') FROM jobs")).scalar_one()
    with redis.Redis.from_url(settings.redis_url) as client:
        kept = [*client.keys("surefoot:*"), client.zrange("surefoot:breakers", 0, -1), client.xrange(MOVES)]
    assert not [place for place in (told.taken, worker.log.read_text(), moves, waits, kept) if secret in str(place)]


def test_twenty_dead_jobs_of_one_action_are_one_alert_with_a_count_and_the_first_ids_over_two_workers(
    settings: Settings, producer: Producer, tmp_path: Path, told: ChannelStandIn
) -> None:
    with workers(settings, tmp_path, alerting(told.url, SUREFOOT_ALERT_GROUP_SECONDS="6"), count=2) as both:
        jobs = ask(producer, "test.raise", 20, kind="secret")
        dead = {str(job.id) for job in jobs if job.wait(SECONDS).state is State.DEAD}
        assert len(dead) == 20
        until(lambda: told.taken)
        until(lambda: sum(len(worker.events("alert.sent")) for worker in both) == 1)
        # A group of something else is told after it: by then a second alert of these would be there.
        (doubt,) = ask(producer, "test.unsafe_unknown")
        until(lambda: len(told.taken) > 1)
    first, second = told.taken
    assert first["title"] == "Surefoot: 20 jobs of test.raise are dead"
    assert first["type"] == "failure"
    assert "and 17 more" in first["message"]
    assert sum(job in first["message"] for job in dead) >= 3
    assert "Why: out of retries (ValueError): 20." in first["message"]
    assert "surefoot jobs --state dead --action test.raise" in first["message"]
    assert "hunter2" not in json.dumps(told.taken)  # the error's own words, and what it was asked with
    assert second["title"] == "Surefoot: 1 job of test.unsafe_unknown is in doubt"
    assert str(doubt.id) in second["message"]
    assert f"surefoot resolve {doubt.id}" in second["message"]


def test_a_dead_channel_hurts_nothing_is_logged_with_a_growing_pause_and_gets_what_it_missed(
    settings: Settings, producer: Producer, tmp_path: Path, told: ChannelStandIn, other: ChannelStandIn
) -> None:
    told.goes = "refused"
    with workers(settings, tmp_path, alerting(told.url, other.url)) as (worker,):
        ask(producer, "test.raise", kind="secret")
        until(lambda: len(worker.events("alert.failed")) > 1)
        failed = worker.events("alert.failed")
        assert [line["pause_seconds"] for line in failed[:2]] == [1.0, 2.0]
        assert failed[0]["channel"] == "1:json"
        assert failed[0]["error"]
        assert producer.enqueue("test.add", {"a": 1, "b": 2}).get(SECONDS) == {"total": 3}
        until(lambda: other.taken)  # a channel's failure is its own
        told.goes = "taken"
        until(lambda: told.taken)
    assert told.titles() == other.titles() == ["1 job of test.raise is dead"]
    assert "s3cr3t-token" not in worker.log.read_text()


def test_a_hanging_channel_is_given_up_in_time_and_keeps_neither_jobs_nor_a_stop_nor_other_channels_waiting(
    settings: Settings, producer: Producer, tmp_path: Path, told: ChannelStandIn, other: ChannelStandIn
) -> None:
    told.goes = "hangs"
    with workers(settings, tmp_path, alerting(told.url, other.url)) as (worker,):
        ask(producer, "test.raise", kind="secret")
        until(lambda: other.taken and told.asked)
        assert producer.enqueue("test.add", {"a": 1, "b": 2}).get(SECONDS) == {"total": 3}
        until(lambda: worker.events("alert.failed"))
        ask(producer, "test.unsafe_unknown")
        until(lambda: len(other.taken) == 2)
        assert worker.stop() == 0


def test_over_the_limit_alerts_are_counted_and_told_in_one_when_the_hour_is_over(
    settings: Settings, producer: Producer, tmp_path: Path, told: ChannelStandIn
) -> None:
    with (
        redis.Redis.from_url(settings.redis_url) as client,
        workers(settings, tmp_path, alerting(told.url, SUREFOOT_ALERT_HOURLY="1")),
    ):
        ask(producer, "test.raise", kind="secret")
        until(lambda: told.titles() == ["1 job of test.raise is dead"])
        ask(producer, "test.unsafe_unknown")
        ask(producer, "down.call", say="retry")
        until(lambda: client.hlen("surefoot:alerts:more") == 2)
        assert 0 < int(client.ttl("surefoot:alerts:sent")) <= 3600
        client.delete("surefoot:alerts:sent")  # as when the hour is over
        until(lambda: len(told.taken) == 2)
    assert told.titles()[1] == "and 2 more"
    assert "in_doubt: 1" in told.taken[1]["message"]
    assert "dead: 1" in told.taken[1]["message"]


def test_a_job_that_is_due_for_too_long_is_told_and_that_it_is_not_any_more(
    settings: Settings, lone_producer: Producer, engine: Engine, tmp_path: Path, told: ChannelStandIn
) -> None:
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 2})
    with engine.connect() as connection:  # a version that this worker does not know: as while a deploy is under way
        connection.execute(text("UPDATE jobs SET action_version = 7"))
        with workers(settings, tmp_path, alerting(told.url, SUREFOOT_ALERT_DUE_SECONDS="1")):
            until(lambda: told.taken)
            connection.execute(text("UPDATE jobs SET action_version = 1"))
            job.get(SECONDS)
            until(lambda: len(told.taken) == 2)
    assert told.titles()[0].startswith("jobs are late, the oldest by ")
    assert "1 job is due for too long without a worker" in told.taken[0]["message"]
    assert told.titles()[1] == "no job is late any more"


def test_a_job_whose_last_look_died_with_its_worker_is_told_to_be_in_doubt(
    settings: Settings, lone_producer: Producer, engine: Engine, tmp_path: Path, told: ChannelStandIn
) -> None:
    book = str(tmp_path / "book")
    with workers(settings, tmp_path, {}) as (first,):
        params = {"book": book, "goes": ["astray"], "looks": ["wait", "die"]}
        job = lone_producer.enqueue("verified.transfer", params)
        until(lambda: lines(f"{book}.looks"))
        with engine.connect() as connection:  # as if it had looked eighteen times before
            connection.execute(text("UPDATE jobs SET looks_left = 1"))
        Path(f"{book}.gate").touch()
        until(lambda: first.process.poll() is not None)
    assert job.refresh().state is State.IN_DOUBT
    with workers(settings, tmp_path, alerting(told.url)):
        until(lambda: told.taken)
    assert told.titles() == ["1 job of verified.transfer is in doubt"]
    assert str(job.id) in told.taken[0]["message"]
    assert "surefoot resolve" in told.taken[0]["message"]
    assert book not in json.dumps(told.taken)


def test_what_befell_jobs_while_nobody_alerted_is_told_by_who_comes_next_and_once(
    settings: Settings, producer: Producer, tmp_path: Path, told: ChannelStandIn
) -> None:
    with workers(settings, tmp_path, {}):
        (job,) = ask(producer, "test.raise", kind="secret")
        assert job.wait(SECONDS).state is State.DEAD
    for _ in range(2):
        with workers(settings, tmp_path, alerting(told.url)) as (worker,):
            until(lambda: told.taken)
            ask(producer, "test.add", a=1, b=2)[0].wait(SECONDS)
            until(partial(worker.events, "attempt.settled"))
    assert told.titles() == ["1 job of test.raise is dead"]


def test_a_stop_tells_what_was_being_told_and_leaves_the_rest_to_others(
    settings: Settings, producer: Producer, tmp_path: Path, told: ChannelStandIn
) -> None:
    told.goes = "refused"
    with workers(settings, tmp_path, alerting(told.url)) as (worker,):
        ask(producer, "test.raise", kind="secret")
        until(lambda: worker.events("alert.failed"))
    told.goes = "taken"
    with workers(settings, tmp_path, alerting(told.url)):
        until(lambda: told.taken)
    assert told.titles() == ["1 job of test.raise is dead"]


def test_used_up_retries_are_told_whatever_the_job_became_and_a_plain_no_is_not(
    settings: Settings, producer: Producer, tmp_path: Path, told: ChannelStandIn, other: ChannelStandIn
) -> None:
    with workers(settings, tmp_path, alerting(told.url, f"error={other.url}")):
        ended = {
            State.FAILED: ask(producer, "fallback.fails"),
            State.DEGRADED: ask(producer, "fallback.value"),
        }
        for state, (job,) in ended.items():
            assert job.wait(SECONDS).state is state
        (refused,) = ask(producer, "test.raise", kind="refused")
        assert refused.wait(SECONDS).state is State.FAILED
        until(lambda: len(told.taken) == 2)
        ask(producer, "test.unsafe_unknown")
        until(lambda: len(told.taken) == 3)
    assert sorted(told.titles()[:2]) == [
        "1 job of fallback.fails is failed, its retries exhausted",
        "1 job of fallback.value is degraded, its retries exhausted",
    ]
    assert told.titles()[2] == "1 job of test.unsafe_unknown is in doubt"
    until(lambda: other.taken)
    assert other.titles() == ["1 job of test.unsafe_unknown is in doubt"]


def test_a_ledger_that_will_not_say_what_there_is_to_tell_keeps_no_job_waiting(
    settings: Settings, producer: Producer, engine: Engine, tmp_path: Path, told: ChannelStandIn
) -> None:
    with engine.connect() as connection:
        connection.execute(text("ALTER TABLE breaker_events RENAME TO hidden"))
    with workers(settings, tmp_path, alerting(told.url)) as (worker,):
        until(lambda: worker.events("duty.refused"))
        assert producer.enqueue("test.fail", {"times": 2}).get(SECONDS) == 3
        assert not worker.events("relay.ledger_unreachable")


def test_what_waits_for_people_is_told_once_and_again_where_it_is_escalated(
    settings: Settings, producer: Producer, engine: Engine, tmp_path: Path, told: ChannelStandIn
) -> None:
    with workers(settings, tmp_path, alerting(told.url), count=2):
        jobs = ask(producer, "gated.pay", 3, book=str(tmp_path / "book"), amount=250.0)
        until(lambda: all(job.refresh().state is State.AWAITING_APPROVAL for job in jobs))
        until(lambda: sum(str(job.id) in str(told.taken) for job in jobs) == 3)
        with engine.connect() as connection:
            connection.execute(text("UPDATE approvals SET escalate_at = clock_timestamp(), escalate_to = '{olga}'"))
        until(lambda: "is escalated" in str(told.titles()) or "are escalated" in str(told.titles()))
        until(lambda: len(told.of(lambda title: "escalated" in title)[0]["message"].split("Jobs: ")) == 2)
    asked = told.of(lambda title: "for people" in title)
    assert {each["type"] for each in asked} == {"warning"}
    assert sum(str(each["message"]).count(str(job.id)) for each in asked for job in jobs) == 3
    first = str(asked[0]["message"])
    assert "Policies that ask: large_sums: " in first
    assert "Next: surefoot approvals; surefoot approval " in first
    assert {each["type"] for each in told.of(lambda title: "escalated" in title)} == {"failure"}


def test_what_people_were_asked_and_nobody_decided_in_time_is_told_once_with_three_workers(
    settings: Settings, producer: Producer, tmp_path: Path, told: ChannelStandIn
) -> None:
    with workers(settings, tmp_path, alerting(told.url, TEST_EXPIRES="0.5"), count=3):
        jobs = ask(producer, "gated.pay", 3, book=str(tmp_path / "book"), amount=250.0)
        assert {job.wait(SECONDS).state for job in jobs} == {State.EXPIRED}
        until(lambda: sum(str(job.id) in str(told.of(_is_expired)) for job in jobs) == 3)
    alerts = told.of(_is_expired)
    assert {each["type"] for each in alerts} == {"failure"}
    listed = " ".join(str(each["message"]).split("Jobs: ")[1].split("Next: ")[0] for each in alerts)
    assert [listed.count(str(job.id)) for job in jobs] == [1, 1, 1]
    assert "Why: nobody decided what large_sums asked" in str(alerts[0]["message"])


def _is_expired(title: str) -> bool:
    return "expired, since nobody decided" in title
