"""docs/reference.md says what is: every log event, every setting and every exit status, and no other."""

from __future__ import annotations

import re
from dataclasses import Field, fields
from typing import Any

import click
import pytest
from click.testing import CliRunner

from producer import cli
from producer.api.settings import ApiSettings
from producer.cli.speaking import REFUSED
from producer.settings import PREFIX, Settings
from tests.unit.log_events import logged_events
from tests.unit.markdown import tables
from worker import cli as worker_cli
from worker.settings import WorkerSettings

LOG_EVENTS, SETTINGS, EXITS = tables("reference.md")

LOGGED = logged_events()
REQUIRED = ("database_url", "redis_url")
# What the actions that come with Surefoot read; they have no dataclass, since each is read where it is needed.
OF_ACTIONS = {"SUREFOOT_HTTP_HOSTS": "any", "SUREFOOT_SMTP_URL": "required", "SUREFOOT_PRICES_FILE": "none"}


def test_every_event_that_is_logged_is_listed_and_no_other_once_and_in_order() -> None:
    assert [row["event"] for row in LOG_EVENTS] == sorted(LOGGED)


@pytest.mark.parametrize("row", LOG_EVENTS, ids=lambda row: row["event"])
def test_an_event_is_listed_with_the_levels_and_keys_that_it_is_logged_with(row: dict[str, str]) -> None:
    event = LOGGED[row["event"]]
    assert set(row["level"].split(", ")) == event.levels
    assert set(row["keys"].split(", ")) == event.keys


def shown(field: Field[Any]) -> str:
    default: object = field.default
    if isinstance(default, tuple):
        return ",".join(default) or "none"
    if default == "":
        return "required" if field.name in REQUIRED else "none"
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_every_setting_is_listed_with_its_default_in_order_and_no_other() -> None:
    of_the_api = fields(ApiSettings)[len(fields(Settings)) :]
    expected = {PREFIX + field.name.upper(): shown(field) for field in (*fields(WorkerSettings), *of_the_api)}
    assert {row["variable"]: row["default"] for row in SETTINGS} == expected | OF_ACTIONS
    assert [row["variable"] for row in SETTINGS] == [*expected, *OF_ACTIONS]


def test_the_first_settings_are_the_producer_s() -> None:
    producers = [PREFIX + field.name.upper() for field in fields(Settings)]
    assert [row["variable"] for row in SETTINGS][: len(producers)] == producers


@pytest.mark.parametrize("row", [*LOG_EVENTS, *SETTINGS, *EXITS], ids=lambda row: next(iter(row.values())))
def test_every_row_says_what_it_means_in_a_sentence(row: dict[str, str]) -> None:
    assert row["meaning"].endswith(".")


@pytest.mark.parametrize("row", [row for row in EXITS if row["command"] != "any"], ids=lambda row: row["command"])
def test_every_command_that_is_listed_is_one(row: dict[str, str]) -> None:
    group = {"surefoot": cli.main, "surefoot-worker": worker_cli.main}[row["command"].split()[0]]
    assert row["command"].split()[1] in group.list_commands(click.Context(group))


def test_the_statuses_listed_are_those_there_are() -> None:
    assert sorted({int(row["status"]) for row in EXITS}) == [0, 1, REFUSED]
    assert REFUSED == worker_cli.REFUSED


def test_a_command_line_that_is_wrong_is_refused() -> None:
    assert CliRunner().invoke(cli.main, ["jobs", "--state", "lost"]).exit_code == REFUSED


def test_a_setting_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUREFOOT_DATABASE_URL", raising=False)
    result = CliRunner().invoke(cli.main, ["jobs"])
    assert (result.exit_code, result.output.partition(";")[0]) == (
        REFUSED,
        "surefoot: SUREFOOT_DATABASE_URL is not set",
    )


def test_every_fault_is_told_with_what_follows_what_one_sees_and_the_test_that_brings_it_about() -> None:
    faults = [row for table in tables("failure-modes.md") for row in table]
    assert len(faults) > 30
    for fault in faults:
        assert all(fault[column] for column in ("fault", "what happens", "what you see")), fault
        assert fault["test"].startswith("[test_"), fault


def test_the_events_that_the_faults_show_in_the_log_are_logged() -> None:
    shown_events = {
        word
        for table in tables("failure-modes.md")
        for row in table
        for word in re.findall(r"\b[a-z]+\.[a-z_]+\b", row["what you see"])
    }
    assert shown_events
    assert shown_events <= set(LOGGED)
