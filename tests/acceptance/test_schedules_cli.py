"""``surefoot schedules``, as a person and as a script use it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from producer import Producer, Settings
from tests.acceptance.test_cli import json_lines, run
from tests.houses import ROOT
from worker.declare import publish_schedules

NIGHTLY = ("nightly", "test.add", '{"a": 1, "b": 2}', "--cron", "0 3 * * *", "--zone", "Europe/Berlin")


@pytest.fixture(autouse=True)
def _published(lone_producer: Producer) -> None:
    assert lone_producer.actions()


def schedules(settings: Settings, *command: str) -> subprocess.CompletedProcess[str]:
    return run(settings, "surefoot", "schedules", *command)


def said(settings: Settings, *command: str) -> dict[str, Any]:
    done = schedules(settings, *command, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (facts,) = json_lines(done)
    return facts


def test_a_schedule_is_added_listed_paused_resumed_and_removed(settings: Settings) -> None:
    added = schedules(settings, "add", *NIGHTLY)
    assert re.fullmatch(
        r"nightly: next \d{4}-\d\d-\d\d 03:00:00 \+0[12]00 Europe/Berlin, \d{4}-\d\d-\d\d 0[12]:00:00 UTC\n",
        added.stdout,
    )
    listed = schedules(settings, "list").stdout
    assert "0 3 * * * Europe/Berlin" in listed
    assert "03:00:00 +0" in listed
    assert re.match(r"nightly: paused by a person since .* UTC\n", schedules(settings, "pause", "nightly").stdout)
    assert "paused by a person since" in schedules(settings, "list").stdout
    assert schedules(settings, "resume", "nightly").stdout == added.stdout
    assert schedules(settings, "remove", "nightly").stdout == "removed nightly\n"
    assert schedules(settings, "list", "--json").stdout == ""


def test_its_next_ticks_are_shown_in_its_zone_and_in_utc(settings: Settings) -> None:
    schedules(settings, "add", *NIGHTLY, "--reasoning", "the books")
    shown = schedules(settings, "show", "nightly", "--next", "3").stdout
    assert "the books" in shown
    assert len(re.findall(r"03:00:00 \+0[12]00 +\d{4}-\d\d-\d\d 0[12]:00:00", shown)) == 3
    facts = said(settings, "show", "nightly", "--next", "2")
    assert [datetime.fromisoformat(tick).hour in (1, 2) for tick in facts["next_ticks"]] == [True, True]
    assert facts["next_tick"] == facts["next_ticks"][0]
    assert "in UTC" not in schedules(settings, "show", "nightly", "--next", "0").stdout


def test_everything_that_a_schedule_may_say_can_be_said(settings: Settings) -> None:
    facts = said(
        settings,
        *("add", "often", "test.add", '{"a": 1, "b": 2}', "--every", "90s", "--missed", "all", "--priority", "1"),
        *("--queue", "slow", "--agent", "planner", "--user", "ada", "--request-id", "books", "--reasoning", "why"),
    )
    expected = {
        "name": "often",
        "action": "test.add",
        "params": {"a": 1, "b": 2},
        "cron": None,
        "every": 90,
        "zone": "UTC",
        "missed": "all",
        "priority": 1,
        "queue": "slow",
        "agent_id": "planner",
        "user_id": "ada",
        "request_id": "books",
        "reasoning": "why",
        "declared_by": "person",
        "paused_at": None,
    }
    assert facts.items() >= expected.items()


@pytest.mark.parametrize(("interval", "seconds"), [("30", 30), ("5m", 300), ("1h", 3600), ("1d", 86_400)])
def test_an_interval_may_be_written_with_its_unit(settings: Settings, interval: str, seconds: int) -> None:
    assert said(settings, "add", "often", "test.add", '{"a": 1, "b": 2}', "--every", interval)["every"] == seconds


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            ("add", "n", "test.add", '{"a": 1, "b": 2}', "--cron", "0 0 30 2 *"),
            "cron: '0 0 30 2 *': there is no day",
        ),
        (("add", "n", "test.add", '{"a": 1, "b": 2}', "--every", "0"), "every: 0 is not a whole number of seconds"),
        (("add", "n", "test.add", '{"a": 1, "b": 2}', "--every", "soon"), "every: 'soon' is no interval"),
        (("add", "n", "test.add", '{"a": 1, "b": 2}'), "cron: a schedule has either cron or every"),
        (("add", "n", "test.add", '{"a": 1}', "--every", "60"), "params: 'b' is a required property"),
        (("add", "n", "test.ad", "{}", "--every", "60"), "'test.ad' is not an action; did you mean 'test.add'?"),
        (("add", "n", "test.add", "{", "--every", "60"), "params"),
        (("pause", "n"), "there is no schedule 'n'"),
        (("resume", "n"), "there is no schedule 'n'"),
        (("remove", "n"), "there is no schedule 'n'"),
        (("show", "n"), "there is no schedule 'n'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(settings: Settings, command: tuple[str, ...], says: str) -> None:
    done = schedules(settings, *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"surefoot: {says}")
    assert done.stderr.count("\n") == 1


def test_the_documented_commands_answer_as_they_are_documented(settings: Settings) -> None:
    page = (ROOT / "docs" / "schedules.md").read_text()
    (console,) = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    asked = re.findall(r"^\$ surefoot schedules (.*)\n((?:(?!\$).*\n)*)", console, re.MULTILINE)
    assert len(asked) == 5
    for command, expected in asked:
        done = schedules(settings, *shlex.split(command))
        assert undated(done.stdout + done.stderr) == undated(expected)


def undated(shown: str) -> list[str]:
    """The lines without what hangs on the day, or, of what is due every few minutes, on the hour."""
    lines = re.sub(r"\d{4}-\d\d-\d\d", "<date>", shown).splitlines()
    return [re.sub(_on_the_hour(line), "<time>", line.rstrip()) for line in lines]


def _on_the_hour(line: str) -> str:
    daily = "" if line.startswith("health") else "(?!03:00:00)"
    return rf"(?<=<date> ){daily}\d\d:\d\d:\d\d|(?<=[+])0[12]00"


def test_why_a_tick_was_refused_is_listed_without_its_secrets(settings: Settings, engine: Engine) -> None:
    schedules(settings, "add", *NIGHTLY)
    with engine.connect() as connection:
        connection.execute(text("UPDATE schedules SET last_error = 'password=hunter2 \x1b[2Jis wrong'"))
    listed = schedules(settings, "list").stdout
    assert "is wrong" in " ".join(listed.split())
    assert "hunter2" not in listed
    assert "\x1b" not in listed


def test_who_removes_what_code_declares_is_told_that_it_comes_back(settings: Settings, engine: Engine) -> None:
    from tasks import DeclaredSchedule, declared_schedules  # noqa: PLC0415  beside its only use
    from tests import schedule_actions  # noqa: PLC0415  declares it

    declared: DeclaredSchedule = declared_schedules()["declared.nightly"]
    with engine.connect() as connection:
        publish_schedules(connection, [declared], tenant="default", imported=[])
    assert json.loads(schedules(settings, "list", "--json").stdout)["declared_in"] == schedule_actions.__name__
    done = schedules(settings, "remove", "declared.nightly")
    assert (done.returncode, done.stdout) == (0, "removed declared.nightly\n")
    assert "tests.schedule_actions declares declared.nightly again when a worker starts" in done.stderr


def test_a_worker_says_which_schedules_it_would_publish_and_does_not_start_with_one_that_cannot_be(
    settings: Settings, tmp_path: Path
) -> None:
    modules = {"SUREFOOT_ACTION_MODULES": "tests.schedule_actions"}
    assert "1 schedules: declared.nightly" in run(settings, "surefoot-worker", "check", **modules).stdout
    (tmp_path / "never.py").write_text(
        "from tasks import schedule\nschedule('nightly', action='test.add', cron='0 0 30 2 *')\n"
    )
    never = {"SUREFOOT_ACTION_MODULES": "never", "PYTHONPATH": str(tmp_path)}
    for command in ("check", "publish"):
        done = run(settings, "surefoot-worker", command, **never)
        assert done.returncode == 2
        assert "cron: '0 0 30 2 *': there is no day 30 in month 2 of any year" in done.stderr
        assert done.stderr.rstrip().endswith("(schedule 'nightly' in never)")
