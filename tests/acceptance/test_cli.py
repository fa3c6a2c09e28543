"""The two commands, as a person and as a script use them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import text

from producer import Settings, State
from producer.ledger.engine import open_engine
from producer.ledger.revision import REVISION
from tests.houses import ROOT, House, worker_environment

BIN = Path(sys.executable).parent


def run(
    settings: Settings, *command: str, stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        env=worker_environment(settings) | environment,
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def surefoot(house: House, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return run(house.settings, "surefoot", *command, stdin=stdin)


def json_lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_job_is_enqueued_waited_for_and_shown(house: House) -> None:
    done = surefoot(house, "enqueue", "test.add", '{"a": 1, "b": 2}', "--key", "cli-1", "--wait", "20", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (job,) = json_lines(done)
    assert (job["outcome"], job["state"], job["result"]) == ("created", "succeeded", {"total": 3})
    (shown,) = json_lines(surefoot(house, "show", job["id"], "--json"))
    assert [event["kind"] for event in shown["events"]] == ["accepted", "claimed", "intended", "succeeded"]
    for_people = surefoot(house, "show", job["id"]).stdout
    assert job["id"] in for_people
    assert "cli-1" in for_people


def test_the_chain_of_a_request_is_printed_in_order(house: House) -> None:
    for number in (1, 2):
        params = json.dumps({"a": number, "b": 0})
        surefoot(
            house,
            "enqueue",
            "test.add",
            params,
            "--request-id",
            "cli-chain",
            "--reasoning",
            f"reason {number}",
            "--wait",
            "20",
        )
    links = json_lines(surefoot(house, "chain", "cli-chain", "--json"))
    assert [link["reasoning"] for link in links] == ["reason 1", "reason 2"]
    assert [link["result"] for link in links] == [{"total": 1}, {"total": 2}]
    for_people = surefoot(house, "chain", "cli-chain").stdout
    assert for_people.index("reason 1") < for_people.index("reason 2")
    for word in ("time", "reasoning", "params", "result", "1 attempt"):
        assert word in for_people


def test_jobs_are_listed_by_state(house: House) -> None:
    surefoot(house, "enqueue", "test.raise", '{"kind": "refused"}', "--key", "cli-refused", "--wait", "20")
    failed = json_lines(surefoot(house, "jobs", "--state", "failed", "--json"))
    assert "cli-refused" in [job["idempotency_key"] for job in failed]
    assert {job["state"] for job in failed} == {"failed"}
    assert "cli-refused" in surefoot(house, "jobs", "--state", "failed").stdout


def test_a_job_that_fails_says_why_and_exits_with_1(house: House) -> None:
    done = surefoot(house, "enqueue", "test.raise", '{"kind": "refused"}', "--key", "cli-failed", "--wait", "20")
    assert done.returncode == 1
    assert "Refused: no, and that is final" in done.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["enqueue", "test.ad", "{}"], "did you mean 'test.add'"),
        (["enqueue", "test.add", '{"a": 1}'], "'b' is a required property"),
        (["enqueue", "test.add", "{nope"], "params: is not JSON"),
        (["enqueue", "test.add", '{"a": 1, "a": 2, "b": 3}'], "stands twice"),
        (["enqueue", "test.add", '{"a": NaN, "b": 3}'], "NaN is not a JSON number"),
        (["enqueue", "test.add", "[" * 100_000], "nested deeper"),
        (["enqueue", "test.add", '{"a": 1, "b": 2}', "--key", "two words"], "idempotency_key"),
        (["show", "not-an-id"], "is not a job's id"),
        (["show", "01a20800-0000-7000-8000-000000000000"], "is not in the ledger"),
        (["chain", "no-such-request"], "no decision was made"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value)[:40],
)
def test_what_is_refused_is_said_in_one_line_with_exit_status_2(house: House, command: list[str], words: str) -> None:
    done = surefoot(house, *command)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_file_of_requests_is_enqueued_line_by_line_and_bad_lines_stop_nothing(house: House, tmp_path: Path) -> None:
    lines = [
        '{"action": "test.add", "params": {"a": 1, "b": 1}, "idempotency_key": "file-1"}',
        "",
        '{"action": "test.add", "params": {"a": "one", "b": 1}, "idempotency_key": "file-2"}',
        "not json",
        '{"action": "test.add", "params": {"a": 1, "b": 1}, "idempotency_key": "file-1"}',
        '{"action": "test.add", "params": {"a": 2, "b": 1}, "idempotency_key": "file-1"}',
        '{"action": "test.ad", "params": {}, "idempotency_key": "file-7"}',
        '{"action": "test.add", "params": {"a": 3, "b": 1}, "idempotency_key": "file-6"}',
    ]
    file = tmp_path / "requests.jsonl"
    file.write_text("\n".join(lines))
    done = surefoot(house, "enqueue", "--from", str(file), "--json")
    answers = {answer["line"]: answer["outcome"] for answer in json_lines(done)}
    assert answers == {
        1: "created",
        3: "refused",
        4: "refused",
        5: "replayed",
        6: "conflict",
        7: "refused",
        8: "created",
    }
    assert done.returncode == 2
    assert "2 created, 1 replayed, 1 conflict, 3 refused" in done.stderr
    again = surefoot(house, "enqueue", "--from", "-", stdin=lines[0])
    assert (again.returncode, again.stdout.strip()) == (0, "1 replayed")


def test_what_a_file_says_for_each_line_is_not_said_for_all(house: House) -> None:
    done = surefoot(house, "enqueue", "--from", "-", "--key", "one", "--wait", "5", stdin="")
    assert done.returncode == 2
    assert "each line of a file says for itself what --key, --wait would" in done.stderr


@pytest.mark.parametrize(
    "command", [["chain", "\udcff"], ["jobs", "--action", "\udcff"], ["migrate", "--to", "x", "--yes"]]
)
def test_a_command_that_cannot_be_meant_is_refused_in_a_line(house: House, command: list[str]) -> None:
    done = surefoot(house, *command)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("surefoot: ")


def test_the_published_actions_are_listed_with_their_parameters(house: House) -> None:
    listed = {action["name"]: action for action in json_lines(surefoot(house, "actions", "--json"))}
    assert {"email.send", "http.request", "llm.chat", "test.add"} <= set(listed)
    assert listed["email.send"]["effect"] == "unsafe"
    assert "test.add (a, b)  pure" in surefoot(house, "actions").stdout


def test_a_command_without_settings_says_which_one_is_missing() -> None:
    done = subprocess.run(
        [str(BIN / "surefoot"), "jobs"], env={}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "SUREFOOT_DATABASE_URL is not set" in done.stderr


# ---- surefoot-worker -------------------------------------------------------------------------------------------


def check(settings: Settings, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(settings, "surefoot-worker", "check", **environment)


def test_a_sound_deployment_passes_the_check(settings: Settings) -> None:
    # The tests' own lease is short, which is worth a warning.
    done = check(settings, SUREFOOT_LEASE_SECONDS="30", SUREFOOT_HTTP_HOSTS="*.Example.com")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "http.request may call *.example.com" in done.stdout
    assert "warning" not in done.stdout
    assert "fsync=on" in done.stdout
    assert "noeviction" in done.stdout


def test_the_check_warns_of_a_postgres_that_does_not_wait_for_its_disk(settings: Settings) -> None:
    engine = open_engine(settings.database_url, connections=1, name="tests")
    name = engine.url.database
    with engine.connect() as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
    engine.dispose()
    done = check(settings)
    assert done.returncode == 0
    assert "synchronous_commit=off: an accept that was answered can be lost" in done.stdout


@pytest.fixture
def evicting(settings: Settings) -> Iterator[Settings]:
    with redis.Redis.from_url(settings.redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        yield settings
        client.config_set("maxmemory-policy", "noeviction")


def test_the_check_warns_of_a_redis_that_evicts(evicting: Settings) -> None:
    done = check(evicting)
    assert done.returncode == 0
    assert "maxmemory-policy allkeys-lru" in done.stdout
    assert "set noeviction" in done.stdout


def test_the_check_fails_where_a_worker_could_not_work(settings: Settings, empty_url: str) -> None:
    done = check(settings, SUREFOOT_DATABASE_URL=empty_url, SUREFOOT_REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert "run surefoot migrate" in done.stdout
    assert "Redis cannot be reached" in done.stdout
    done = check(settings, SUREFOOT_RENEW_SECONDS="20", SUREFOOT_HTTP_HOSTS="http://example.com")
    assert done.returncode == 1
    assert "one late renewal would lose the lease" in done.stdout
    assert "SUREFOOT_HTTP_HOSTS: 'http://example.com' is not a host" in done.stdout


def test_a_worker_does_not_start_on_a_schema_it_does_not_know(settings: Settings, empty_url: str) -> None:
    done = run(settings, "surefoot-worker", "start", "-c", "1", SUREFOOT_DATABASE_URL=empty_url)
    assert done.returncode != 0
    assert "run surefoot migrate" in done.stdout + done.stderr


def test_a_worker_does_not_start_without_its_ledger_and_says_so(settings: Settings) -> None:
    away = "postgresql://nobody@127.0.0.1:1/none"
    done = run(settings, "surefoot-worker", "start", "-c", "1", SUREFOOT_DATABASE_URL=away)
    assert done.returncode == 1
    (line,) = [json.loads(line) for line in done.stderr.splitlines() if "worker.not_started" in line]
    assert "127.0.0.1" in line["error"]


def test_actions_are_published_without_starting_a_worker(settings: Settings) -> None:
    assert "test.add" in run(settings, "surefoot-worker", "publish").stdout
    done = run(settings, "surefoot", "enqueue", "test.add", '{"a": 1, "b": 2}')
    assert done.returncode == 0


@pytest.mark.parametrize("command", [["jobs"], ["schedules", "list"], ["conversation", "x"], ["actions"]], ids=" ".join)
def test_a_ledger_of_another_version_is_said_so_in_one_line(
    settings: Settings, empty_url: str, command: list[str]
) -> None:
    done = run(settings, "surefoot", *command, SUREFOOT_DATABASE_URL=empty_url)
    said = "surefoot: the ledger's schema is not this version's: run surefoot migrate (relation"
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(said)


def test_migrating_names_both_revisions_and_going_back_asks_first(settings: Settings, empty_url: str) -> None:
    there = run(settings, "surefoot", "migrate", SUREFOOT_DATABASE_URL=empty_url)
    assert f"schema empty → {REVISION}" in there.stdout
    asked = run(settings, "surefoot", "migrate", "--to", "base", stdin="n\n", SUREFOOT_DATABASE_URL=empty_url)
    assert asked.returncode == 1
    back = run(settings, "surefoot", "migrate", "--to", "base", "--yes", SUREFOOT_DATABASE_URL=empty_url)
    assert "→ empty" in back.stdout


@pytest.fixture
def doubtful(house: House) -> str:
    """The id of a job in doubt."""
    job = house.producer.enqueue("test.add", {"a": 1, "b": 2}, run_at=datetime.now(UTC) + timedelta(hours=1))
    with open_engine(house.settings.database_url, connections=1, name="tests").connect() as connection:
        doubt = "UPDATE jobs SET state = 'in_doubt', waiting_for = NULL, maybe_happened = true WHERE id = :id"
        connection.execute(text(doubt), {"id": job.id})
    return str(job.id)


def test_a_job_in_doubt_is_resolved_with_the_result_that_somebody_found_and_its_history_says_who(
    house: House, doubtful: str
) -> None:
    said = ("--happened", '{"total": 3}', "--reason", "it is in their books", "--who", "ada", "--json")
    done = surefoot(house, "resolve", doubtful, *said)
    assert (done.returncode, json_lines(done)) == (0, [{"id": doubtful, "state": "succeeded"}])
    (shown,) = json_lines(surefoot(house, "show", doubtful, "--json"))
    assert shown["result"] == {"total": 3}
    assert shown["events"][-1]["data"]["who"] == "ada"
    again = surefoot(house, "resolve", doubtful, *said)
    assert (again.returncode, again.stdout) == (2, "")
    assert "is succeeded; only a job in doubt can be resolved" in again.stderr


def test_a_dead_job_is_tried_once_more_and_ends_by_it(house: House, doubtful: str) -> None:
    with open_engine(house.settings.database_url, connections=1, name="tests").connect() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET state = 'dead', maybe_happened = false, finished_at = clock_timestamp() WHERE id = :id"
            ),
            {"id": doubtful},
        )
    done = surefoot(house, "retry", doubtful, "--reason", "their server is up again", "--who", "ada", "--json")
    (said,) = json_lines(done)
    assert (done.returncode, said["id"]) == (0, doubtful)
    assert house.producer.job(doubtful).get(30) == {"total": 3}
    again = surefoot(house, "retry", doubtful, "--reason", "why not")
    assert (again.returncode, again.stdout) == (2, "")
    assert "is succeeded; only a dead job can be retried" in again.stderr


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (("--reason", "why"), "one of --happened RESULT, --retry and --abandon"),
        (("--retry", "--abandon", "--reason", "why"), "one of --happened RESULT, --retry and --abandon"),
        (("--happened", "{", "--reason", "why"), "result"),
        (("--happened", '{"total": "3"}', "--reason", "why"), "result.total: must be integer, not string"),
        (("--retry",), "--reason"),
    ],
)
def test_what_is_no_verdict_is_refused_and_the_doubt_stays(
    house: House, doubtful: str, said: tuple[str, ...], problem: str
) -> None:
    done = surefoot(house, "resolve", doubtful, *said)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert house.producer.job(doubtful).state is State.IN_DOUBT


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(house: House) -> None:
    made = surefoot(house, "keys", "create", "billing", "--scope", "read", "--days", "1", "--who", "ada", "--json")
    (told,) = json_lines(made)
    assert (made.returncode, told["key"].startswith(f"sf_{told['id']}_"), told["created_by"]) == (0, True, "ada")
    listed = surefoot(house, "keys", "list", "--json")
    assert [(key["id"], key["standing"]) for key in json_lines(listed)] == [(told["id"], "active")]
    for_people = surefoot(house, "keys", "list")
    assert "billing" in for_people.stdout
    assert told["key"] not in listed.stdout + for_people.stdout
    assert surefoot(house, "keys", "revoke", told["id"], "--who", "ada").stdout.startswith(f"{told['id']} revoked")
    again = surefoot(house, "keys", "revoke", told["id"])
    assert (again.returncode, "no key" in again.stderr) == (2, True)
    refused = surefoot(house, "keys", "create", "billing", "--scope", "root")
    assert (refused.returncode, refused.stdout) == (2, "")
