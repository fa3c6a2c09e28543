"""Who watches: that no worker is alive, and that a server is away, told by a process that performs nothing."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from producer import Producer, Settings
from producer.ledger.engine import open_engine
from tests.alert_channel import ChannelStandIn, alerting, watching, workers
from tests.houses import ROOT, until, worker_environment
from tests.ledger_away import ledger_away
from worker.dev.servers import Servers, Valkey

SECONDS = 30.0


def test_who_watches_tells_that_no_worker_is_alive_and_that_one_is_again(
    settings: Settings, lone_producer: Producer, tmp_path: Path, told: ChannelStandIn
) -> None:
    environment = alerting(told.url, SUREFOOT_ALERT_SILENT_SECONDS="2")
    with watching(settings, tmp_path, environment):
        lone_producer.enqueue("test.add", {"a": 1, "b": 2})
        until(lambda: told.taken)
        assert told.taken[0]["title"].startswith("Surefoot: no worker is alive, for ")
        assert "surefoot-worker start" in told.taken[0]["message"]
        with workers(settings, tmp_path, {}):
            until(lambda: len(told.taken) == 2)
    assert told.titles()[1] == "a worker is alive again"
    assert told.taken[1]["type"] == "success"


def test_that_redis_is_away_is_told_once_with_two_who_look_and_that_it_is_back(
    settings: Settings, tmp_path: Path, told: ChannelStandIn
) -> None:
    environment = alerting(told.url, SUREFOOT_ALERT_SILENT_SECONDS="1")
    with Valkey(tmp_path) as valkey:
        house = replace(settings, redis_url=valkey.url)
        with watching(house, tmp_path, environment), watching(house, tmp_path, environment, name="other"):
            valkey.kill()
            until(lambda: told.taken)
            valkey.start()
            until(lambda: len(told.taken) > 1)
    first, second = told.titles()
    assert first.startswith("Redis is away, for ")
    assert second == "Redis is back"


def test_that_the_ledger_is_away_is_told_once_with_two_who_watch_and_that_it_is_back(
    settings: Settings, dev_servers: Servers, tmp_path: Path, told: ChannelStandIn
) -> None:
    environment = alerting(told.url, SUREFOOT_ALERT_SILENT_SECONDS="1")
    with watching(settings, tmp_path, environment), watching(settings, tmp_path, environment, name="other"):
        with ledger_away(settings, dev_servers):
            until(lambda: told.taken)
        until(lambda: len(told.taken) > 1)
    first, second = told.titles()
    assert first.startswith("the ledger is away, for ")
    assert second == "the ledger is back"


def test_a_second_outage_is_counted_from_its_own_beginning(
    settings: Settings, dev_servers: Servers, tmp_path: Path, told: ChannelStandIn
) -> None:
    environment = alerting(told.url, SUREFOOT_ALERT_SILENT_SECONDS="1000")
    name = make_url(settings.database_url).database
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    with watching(settings, tmp_path, environment) as watcher:
        until(lambda: has_looked(dev_servers, str(name)))
        administer(dev_servers, end)  # a blip, which is none to tell of
        until(lambda: watcher.events("watch.ledger_unreachable"))
        until(lambda: has_looked(dev_servers, str(name)))
        blips = len(watcher.events("watch.ledger_unreachable"))
        administer(dev_servers, end)
        until(lambda: len(watcher.events("watch.ledger_unreachable")) > blips)
    lines = watcher.events("watch.ledger_unreachable")
    assert lines[blips]["away_seconds"] < lines[blips - 1]["away_seconds"] + 0.5
    assert lines[blips]["away_seconds"] < 0.5


def has_looked(dev_servers: Servers, name: str) -> bool:
    """Whether the watcher has had an answer from the ledger on the connection that it now holds."""
    engine = open_engine(dev_servers.database_url, connections=1, name="tests")
    looked = text(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = :name AND state = 'idle' AND query = 'SELECT 1')"
    )
    with engine.connect() as connection:
        found = connection.execute(looked, {"name": name}).scalar_one()
    engine.dispose()
    return bool(found)


def administer(dev_servers: Servers, statement: str) -> None:
    engine = open_engine(dev_servers.database_url, connections=1, name="tests")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def alert_test(settings: Settings, *urls: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from worker.cli import main; main()", "alert-test"],
        cwd=ROOT,
        env=worker_environment(settings) | {"SUREFOOT_ALERT_URLS": ",".join(urls)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_alert_test_sends_to_every_url_and_says_which_took_it(
    settings: Settings, told: ChannelStandIn, other: ChannelStandIn
) -> None:
    other.goes = "refused"
    result = alert_test(settings, f"error={told.url}", other.url)
    assert result.returncode == 1
    first, second = result.stdout.splitlines()
    assert first.split() == ["ok", "1:json"]
    assert second.startswith("failed  2:json: ")
    assert told.titles() == ["a test"]
    assert "s3cr3t-token" not in result.stdout + result.stderr
    assert alert_test(settings, told.url).returncode == 0


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        pytest.param("ntfy://127.0.0.1:{port}/s3cr3t-topic", ["s3cr3t"], id="a topic"),
        pytest.param("ntfy://ada:hunter2@127.0.0.1:{port}/S3cr3tTopic", ["hunter2", "s3cr3t", "ada"], id="a password"),
        pytest.param("ntfy://127.0.0.1:{port}/s3cr3t%5Ftopic", ["s3cr3t", "_topic"], id="spelled otherwise"),
        pytest.param("ntfy://127.0.0.1:1/s3cr3t-topic", ["s3cr3t", "127.0.0.1"], id="nobody listens"),
        pytest.param("json://127.0.0.1:{port}/?+X-Key=s3cr3t", ["s3cr3t"], id="a header"),
    ],
)
def test_what_apprise_says_of_a_channel_that_does_not_take_it_is_told_without_anything_of_its_url(
    settings: Settings, told: ChannelStandIn, url: str, secrets: list[str]
) -> None:
    told.goes = "refused"
    result = alert_test(settings, url.format(port=told.port))
    assert result.returncode == 1
    line = result.stdout.strip()
    assert re.match(r"failed +1:(ntfy|json): \S+ \S+", line)  # in words, all the same
    assert not [secret for secret in secrets if secret in (result.stdout + result.stderr).lower()]


@pytest.mark.parametrize(
    ("urls", "problem"),
    [((), "SUREFOOT_ALERT_URLS is not set"), (("slak://s3cr3t",), "1:slak is no URL that Apprise can send to")],
    ids=["none", "unknown"],
)
def test_without_a_url_that_can_be_sent_to_it_is_refused(
    settings: Settings, urls: tuple[str, ...], problem: str
) -> None:
    result = alert_test(settings, *urls)
    assert result.returncode == 2
    assert problem in result.stderr
    assert "s3cr3t" not in result.stderr


def test_a_watch_ends_in_good_order(settings: Settings, tmp_path: Path, told: ChannelStandIn) -> None:
    with watching(settings, tmp_path, alerting(told.url)) as watcher:
        watcher.process.send_signal(signal.SIGTERM)
        assert watcher.process.wait(SECONDS) == 0
