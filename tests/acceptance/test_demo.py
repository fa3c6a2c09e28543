"""What a newcomer runs first."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.houses import ROOT, until

BIN = Path(sys.executable).parent
# The stage keeps its data below the folder it is started in, so each test has its own.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"}
for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "SUREFOOT_DATABASE_URL", "SUREFOOT_REDIS_URL"):
    ENVIRONMENT.pop(name, None)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "surefoot-worker"), *command],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def processes_in(folder: Path) -> list[psutil.Process]:
    """Every process that still works in the folder or names it."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) or str(folder) in process.cwd():
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(300)
def test_the_demo_handles_every_ticket_and_nothing_happens_twice(tmp_path: Path) -> None:
    done = run(tmp_path, "demo")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Nothing happened twice: 206 requests became 103 jobs, 34 mails and 5 refunds" in done.stdout
    assert "STAND-IN" in done.stdout
    assert "Flower at http://demo:" in done.stdout
    assert "Decision chain" in done.stdout
    assert re.search(r"asked for patience: [1-9]", done.stdout)
    for words in (
        "degraded: breaker open; the fallback stands in",
        "breaker: as it should be",
        "says deny: nobody gives so much away",
        "waits for a person",
        "approval: as it should be",
    ):
        assert words in done.stdout
    for kind in ("rate_limit", "unavailable", "timeout", "reset", "lost_answer", "smtp_421", "smtp_451"):
        assert kind in done.stdout
    until(lambda: not processes_in(tmp_path))


@pytest.mark.timeout(120)
def test_a_demo_that_is_killed_leaves_nothing_running(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [str(BIN / "surefoot-worker"), "demo"], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Flower at" in line:
            break
    process.kill()
    process.communicate()
    until(lambda: not processes_in(tmp_path), seconds=60)


@pytest.mark.timeout(300)
def test_the_demo_takes_tickets_of_ones_own(tmp_path: Path) -> None:
    ticket = {
        "id": "T-1",
        "from": "someone@example.com",
        "name": "Someone",
        "subject": "Where is my parcel?",
        "body": "It was due on Monday.",
        "order": None,
        "received_at": "2026-03-02T07:41:12Z",
    }
    (tmp_path / "mine.jsonl").write_text(json.dumps(ticket) + "\n")
    done = run(tmp_path, "demo", "--tickets", "mine.jsonl", "--no-faults")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Nothing happened twice: 4 requests became 2 jobs, 1 mails and 0 refunds" in done.stdout
    (tmp_path / "mine.jsonl").write_text('{"id": "T-1"}\n')
    done = run(tmp_path, "demo", "--tickets", "mine.jsonl")
    assert done.returncode == 2
    assert "mine.jsonl:1 is not a ticket" in done.stderr


@pytest.mark.timeout(120)
def test_the_simulation_tells_of_two_failures_and_a_success_under_one_key(tmp_path: Path) -> None:
    done = run(tmp_path, "simulate", "--failures", "2", "--key", "my-key")
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    told = ["idempotency key my-key", "the same key: replayed", "attempt 1 failed", "retrying in", "attempt 2 failed"]
    places = [said.index(words) for words in [*told, "attempt 3 succeeded", "result: the answer, at attempt 3"]]
    assert places == sorted(places)
    assert said.count("retrying in") == 2


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_servers_for_development_end_with_their_command(tmp_path: Path, how: signal.Signals) -> None:
    process = subprocess.Popen(
        [str(BIN / "surefoot-worker"), "dev"], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    env = tmp_path / ".surefoot" / "demo" / "env"
    until(env.exists, seconds=60)
    until(lambda: "SUREFOOT_REDIS_URL" in env.read_text())
    assert env.stat().st_mode & 0o077 == 0
    listed = subprocess.run(
        ["bash", "-c", f"source {env} && {BIN / 'surefoot'} jobs --json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (listed.returncode, listed.stdout) == (0, "")
    process.send_signal(how)
    process.communicate(timeout=60)
    assert not env.exists()
    until(lambda: not processes_in(tmp_path))


def test_the_servers_for_development_say_when_one_of_them_dies_and_end(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [str(BIN / "surefoot-worker"), "dev"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until((tmp_path / ".surefoot" / "demo" / "env").exists, seconds=60)
    pid = (tmp_path / ".surefoot" / "demo" / "postgres" / "data" / "postmaster.pid").read_text().split()[0]
    os.kill(int(pid), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.partition(";")[0]) == (2, "surefoot-worker: Postgres has ended")
    until(lambda: not processes_in(tmp_path))


def all_ended(tasks: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return tasks if all(task["state"] in ("SUCCESS", "FAILURE") for task in tasks.values()) else {}


@pytest.mark.timeout(300)
def test_flower_shows_the_actions_by_name_to_who_has_the_password(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [str(BIN / "surefoot-worker"), "demo", "--stay", "--no-faults"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Everything is still up"):
            break
    address = next(line for line in lines if "Flower at" in line).split("Flower at ")[1].strip()
    user, _, rest = address.removeprefix("http://").partition(":")
    password, _, host = rest.partition("@")
    try:
        # Flower hears of a task's end a moment after the demo does.
        tasks = until(lambda: all_ended(flower_tasks(host, user, password)))
        assert {"llm.chat", "http.request", "email.send"} <= {task["name"] for task in tasks.values()}
        # One customer names an order that there is not.
        assert [task["name"] for task in tasks.values() if task["state"] != "SUCCESS"] == ["http.request"]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://{host}/api/tasks", timeout=10)
        # Whoever looks on has what the next lines tell: the same servers, from another terminal.
        source = next(line for line in lines if "source " in line).rsplit("source ", 1)[1].strip()
        look = f". {source} && {BIN / 'surefoot'} jobs --limit 1"
        seen = subprocess.run(["sh", "-c", look], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert "demo-" in seen.stdout, seen.stderr
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    until(lambda: not processes_in(tmp_path))


def flower_tasks(host: str, user: str, password: str) -> dict[str, dict[str, str]]:
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(
        f"http://{host}/api/tasks?limit=1000", headers={"Authorization": f"Basic {credentials}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  as above
        found: dict[str, dict[str, str]] = json.loads(answer.read())
    return found if sum(map(jobs_of, found.values())) > 100 else {}


def jobs_of(task: dict[str, str]) -> int:
    """How many jobs the task's ring was for: "3 jobs, the first …", or one job's id."""
    count, _, rest = task["args"].partition(" jobs")
    return int(count) if rest else 1
