"""The fleet's breakers from a terminal, with a real worker: what they show, and what an operator's word does."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producer import Settings, State
from producer.cli.speaking import REFUSED
from producer.job import Job
from tests.acceptance.test_cli import run
from tests.gates import whys
from tests.houses import House, house_of, until

SECONDS = 60.0


@pytest.fixture
def house(settings: Settings, tmp_path: Path) -> Iterator[House]:
    with house_of(settings, tmp_path, concurrency=20) as made:
        yield made


def surefoot(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    return run(settings, "surefoot", *words)


def done(settings: Settings, *words: str) -> str:
    result = surefoot(settings, *words)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def facts(settings: Settings, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done(settings, *words, "--json"))
    return found


def ask(house: House, count: int, first: int = 0) -> list[Job]:
    return house.producer.enqueue_many(
        {"action": "down.call", "params": {"say": "value"}, "idempotency_key": f"k{n}"}
        for n in range(first, first + count)
    )


def test_an_operator_shuts_a_dependency_off_sees_who_waits_and_lets_them_go_the_oldest_first(house: House) -> None:
    settings = house.settings
    assert re.search(r"^down +closed ", done(settings, "breakers"), re.MULTILINE)
    opened = done(settings, "breaker", "down", "open", "--for", "10m", "--reason", "they deploy", "--who", "ada")
    assert re.search(r"^down +open \(forced\) ", opened, re.MULTILINE)
    jobs = ask(house, 8)
    until(lambda: all(job.refresh().record.waiting_for == "breaker" for job in jobs))
    assert {job.record.waiting_on for job in jobs} == {"down"}
    assert "breaker of down until" in done(settings, "jobs")
    assert "breaker of down, due" in done(settings, "show", str(jobs[0].id))
    assert facts(settings, "breaker", "down")["held"] == 8
    done(settings, "breaker", "down", "close", "--reason", "deployed")
    assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
    assert {job.record.waiting_on for job in jobs} == {None}
    assert {tuple(whys(job)) for job in jobs} == {("breaker open", "succeeded")}
    came_back = [job.record.due_at for job in sorted(jobs, key=lambda job: str(job.id))]
    assert came_back == sorted(set(came_back))
    assert facts(settings, "breaker", "down", "auto", "--reason", "by itself again")["forced"] is None
    history = facts(settings, "breaker", "down")["history"]
    assert [(line["becomes"], line["reason"]) for line in history] == [
        ("closed", "by itself again"),
        ("closed", "deployed"),
        ("open", "they deploy"),
    ]
    assert history[-1]["who"] == "ada"


def test_an_operator_s_word_ends_by_itself_and_one_call_tries(house: House) -> None:
    settings = house.settings
    done(settings, "breaker", "down", "open", "--for", "2s", "--reason", "for a moment")
    jobs = ask(house, 5)
    assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
    until(lambda: len(facts(settings, "breaker", "down")["history"]) == 4)
    history = facts(settings, "breaker", "down")["history"]
    assert [line["becomes"] for line in history] == ["closed", "half-open", "open", "open"]
    assert history[0]["job_id"] in {str(job.id) for job in jobs}  # the one that tried
    assert len(house.worker.events("breaker.noted")) == 4 - 1  # the operator wrote down the first


def test_a_dependency_that_asked_for_patience_is_shown_with_how_long_why_and_how_many_wait(
    house: House, tmp_path: Path
) -> None:
    settings, mark = house.settings, tmp_path / "mark"
    assert "asked for patience" not in done(settings, "breakers")
    mark.write_text("hold for an hour")
    requests = [
        {"action": "probed.call", "params": {"of": "cli", "mark": str(mark)}, "idempotency_key": f"p{n}"}
        for n in range(3)
    ]
    jobs = house.producer.enqueue_many(requests)
    until(lambda: all(job.refresh().record.waiting_for == "rate" for job in jobs))
    shown = done(settings, "breakers")
    assert "asked for patience" in shown
    assert re.search(
        r"^probed of=cli +[-0-9]{10} [:0-9]{8} +[01]:[0-5][0-9]:[0-5][0-9] +3, next .* patience$", shown, re.MULTILINE
    )
    stands = facts(settings, "breaker", "probed of=cli")
    assert (stands["hold_jobs"], stands["hold_reason"]) == (3, "patience")
    assert 3_000 < stands["hold_seconds"] <= 3_600
    (listed,) = [
        line for line in map(json.loads, done(settings, "breakers", "--json").splitlines()) if line["hold_jobs"]
    ]
    assert (listed["name"], listed["hold_jobs"]) == ("probed of=cli", 3)
    assert "probed of=cli asked for patience" in done(settings, "explain", str(jobs[0].id))
    mark.write_text("well")
    done(settings, "breaker", "probed of=cli", "auto", "--reason", "they are back")
    assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
    assert "asked for patience" not in done(settings, "breakers")


def test_auto_has_who_waits_try_at_once_where_it_opened_by_itself_for_long(house: House) -> None:
    settings = house.settings
    failing = house.producer.enqueue_many(
        {"action": "down.call", "params": {"say": "retry later"}, "idempotency_key": f"f{n}"} for n in range(5)
    )
    assert {job.wait(SECONDS).state for job in failing} == {State.DEAD}
    jobs = ask(house, 3)
    until(lambda: all(job.refresh().record.waiting_for == "breaker" for job in jobs))
    assert min((job.record.due_at - job.record.accepted_at).total_seconds() for job in jobs) > 3_000
    done(settings, "breaker", "down", "auto", "--reason", "they say that they are back")
    assert {job.wait(SECONDS).state for job in jobs} == {State.SUCCEEDED}
    history = facts(settings, "breaker", "down")["history"]
    assert [line["becomes"] for line in history] == ["closed", "half-open", "open", "open"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("breaker", "down", "open"), "reason: is missing"),
        (("breaker", "downn", "open", "--reason", "x"), "did you mean 'down'?"),
        (("breaker", "down", "open", "--for", "soon", "--reason", "x"), "'soon' is no interval; write seconds"),
        (("breaker", "down", "auto", "--for", "10m", "--reason", "x"), "belongs to open and close"),
        (("breaker", "down", "--reason", "x"), "word: is missing: one of open, close, auto"),
        (("breaker", "down", "shut", "--reason", "x"), "is not one of 'open', 'close', 'auto'"),
    ],
    ids=["no reason", "unknown", "no interval", "an end of auto", "no word", "no such word"],
)
def test_what_cannot_be_is_refused_in_words(lone_settings: Settings, words: tuple[str, ...], problem: str) -> None:
    result = surefoot(lone_settings, *words)
    assert result.returncode == REFUSED
    assert problem in result.stderr


@pytest.fixture
def lone_settings(settings: Settings, lone_producer: object) -> Settings:
    """Where actions are published, and no worker runs."""
    assert lone_producer
    return settings


def test_with_redis_away_a_line_says_so(lone_settings: Settings) -> None:
    away = Settings(database_url=lone_settings.database_url, redis_url="redis://127.0.0.1:1/0")
    for words in (("breakers",), ("breaker", "down", "open", "--reason", "x")):
        result = surefoot(away, *words)
        assert result.returncode == REFUSED
        assert result.stderr.startswith("surefoot: Redis cannot be asked, so that each worker process breaks by itself")
