"""Schedules that modules declare: checked when they are imported, with the module's name in what is said."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from producer.errors import InvalidSchedule
from producer.ticks import Rule
from tasks import _registry as actions
from tasks import _schedules as registry
from tasks import action, declared_schedules, load, schedule

DAILY: dict[str, Any] = {"cron": "0 3 * * *"}


@pytest.fixture(autouse=True)
def _schedules_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    load()  # first, or what is imported here for the first time would be missing in every later test
    monkeypatch.setattr(registry, "_schedules", {})
    monkeypatch.setattr(actions, "_actions", {})


def test_a_declared_schedule_is_known_with_the_module_that_declares_it() -> None:
    schedule("nightly", action="report.send", params={"to": "a"}, **DAILY, zone="Europe/Berlin", missed="skip")
    found = declared_schedules()["nightly"]
    assert found.module == __name__
    assert (found.declaration.action, found.declaration.params) == ("report.send", {"to": "a"})
    assert (found.declaration.rule, found.declaration.missed) == (Rule("0 3 * * *", None, "Europe/Berlin"), "skip")


def test_an_interval_may_be_a_timedelta() -> None:
    schedule("often", action="report.send", every=timedelta(minutes=5))
    assert declared_schedules()["often"].declaration.rule.every == 300


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"name": "Nightly", "action": "report.send"} | DAILY, "name: 'Nightly' is not a schedule's name"),
        ({"name": "nightly", "action": "report.send", "cron": "0 0 31 6 *"}, "cron: '0 0 31 6 *': there is no day 31"),
        ({"name": "nightly", "action": "report.send", "every": 0}, "every: 0 is not"),
        ({"name": "nightly", "action": "report.send", "version": 0} | DAILY, "version: 0 is not"),
        ({"name": "nightly", "action": "report.send", "params": {"a": {1}}} | DAILY, "params.a: "),
        ({"name": "nightly", "action": None} | DAILY, "action: is missing"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused_with_its_name_and_module(declared: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        schedule(**declared)
    assert str(caught.value).startswith(says)
    assert str(caught.value).endswith(f"(schedule {declared['name']!r} in {__name__})")
    assert not declared_schedules()


def test_a_module_that_is_imported_anew_declares_its_schedules_anew() -> None:
    schedule("nightly", action="report.send", **DAILY)
    schedule("nightly", action="report.send", cron="0 4 * * *")
    assert declared_schedules()["nightly"].declaration.rule.cron == "0 4 * * *"


def test_two_modules_cannot_declare_schedules_of_one_name() -> None:
    schedule("nightly", action="report.send", **DAILY)
    elsewhere = {"schedule": schedule, "__name__": "elsewhere"}
    with pytest.raises(InvalidSchedule, match=f"declared twice: in {__name__} and in elsewhere"):
        exec("schedule('nightly', action='report.send', cron='0 3 * * *')", elsewhere)  # noqa: S102  a module of its own


def test_params_that_do_not_fit_an_action_of_this_process_are_refused_when_all_are_loaded() -> None:
    @action("report.send", effect="pure")
    def send(to: str) -> None: ...

    schedule("nightly", action="report.send", params={"too": "a"}, **DAILY)
    with pytest.raises(InvalidSchedule, match=r"params\.too: is not a parameter; did you mean 'to'"):
        load()


def test_a_schedule_of_another_workers_action_is_left_to_its_ticks() -> None:
    schedule("nightly", action="elsewhere.send", params={"too": "a"}, **DAILY)
    assert load() is not None


def test_the_documented_declaration_declares_what_it_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(block, {"__name__": "documented"})  # noqa: S102  our own page
    assert {name: each.module for name, each in declared_schedules().items()} == {
        "nightly.report": "documented",
        "inbox.look": "documented",
    }
