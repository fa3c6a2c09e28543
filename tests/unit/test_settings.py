"""Settings of both sides: read once, checked at once, and named by their variable where they are wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from producer.broker import celery_url, transport_options
from producer.errors import SettingsError
from producer.settings import Settings
from tests.unit.json_values import CANARY
from worker.settings import WorkerSettings

ENVIRON = {
    "SUREFOOT_DATABASE_URL": f"postgresql://me:{CANARY}@db/surefoot",
    "SUREFOOT_REDIS_URL": f"redis://:{CANARY}@cache/0",
}
WORKER = WorkerSettings.from_env(ENVIRON)


def refusal(**changed: str) -> str:
    with pytest.raises(SettingsError) as caught:
        WorkerSettings.from_env(ENVIRON | {f"SUREFOOT_{name}": text for name, text in changed.items()})
    return str(caught.value)


def test_two_urls_are_all_that_is_needed() -> None:
    settings = Settings.from_env(ENVIRON)
    assert settings.database_url == ENVIRON["SUREFOOT_DATABASE_URL"]
    assert (settings.tenant, settings.queue, settings.ring_timeout_seconds) == ("default", "actions", 1.0)


def test_the_process_s_own_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (ENVIRON | {"SUREFOOT_TENANT": "acme"}).items():
        monkeypatch.setenv(name, text)
    assert Settings.from_env().tenant == "acme"


def test_each_variable_becomes_a_value_of_its_field_s_type() -> None:
    given = {
        "SUREFOOT_LEASE_SECONDS": "60",
        "SUREFOOT_CRASH_CAP": "5",
        "SUREFOOT_ACTION_MODULES": " shop.actions, ,crm.actions ",
        "SUREFOOT_LOG": "json",
    }
    settings = WorkerSettings.from_env(ENVIRON | given)
    assert (settings.lease_seconds, settings.crash_cap, settings.log) == (60.0, 5, "json")
    assert settings.action_modules == ("shop.actions", "crm.actions")


def test_an_override_wins_over_the_environment() -> None:
    assert Settings.from_env(ENVIRON | {"SUREFOOT_TENANT": "a"}, tenant="b").tenant == "b"


def test_an_override_that_is_none_does_not() -> None:
    assert Settings.from_env(ENVIRON | {"SUREFOOT_TENANT": "a"}, tenant=None).tenant == "a"


def test_an_override_that_is_no_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="'tenent' is not a setting of Settings"):
        Settings.from_env(ENVIRON, tenent="a")


def test_a_variable_that_is_no_setting_of_this_side_is_left_alone() -> None:
    Settings.from_env(ENVIRON | {"SUREFOOT_CRASH_CAP": "many"})


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "DATABASE_URL",
            "",
            "SUREFOOT_DATABASE_URL is not set; give it a URL such as postgresql://user:password@host/0",
        ),
        ("REDIS_URL", "", "SUREFOOT_REDIS_URL is not set; give it a URL such as redis://"),
        (
            "DATABASE_URL",
            "mysql://db",
            "SUREFOOT_DATABASE_URL begins with 'mysql'; it must begin with one of postgresql",
        ),
        ("REDIS_URL", "http://x", "SUREFOOT_REDIS_URL begins with 'http'; it must begin with one of redis, rediss"),
        ("REDIS_URL", "cache:6379", "SUREFOOT_REDIS_URL is not a URL; it must begin with one of redis"),
        ("TENANT", "", "SUREFOOT_TENANT must have 1 to 64 printable characters, not 0"),
        ("TENANT", "t" * 65, "SUREFOOT_TENANT must have 1 to 64 printable characters, not 65"),
        ("TENANT", "a\nb", "SUREFOOT_TENANT must have 1 to 64 printable"),
        ("TENANT", "\udcff", "SUREFOOT_TENANT must have 1 to 64 printable"),
        ("QUEUE", "", "SUREFOOT_QUEUE must have 1 to 255 printable characters, not 0"),
        ("RING_TIMEOUT_SECONDS", "soon", "SUREFOOT_RING_TIMEOUT_SECONDS='soon' is not float"),
        ("RING_TIMEOUT_SECONDS", "nan", "SUREFOOT_RING_TIMEOUT_SECONDS='nan' is not float"),
        ("RING_TIMEOUT_SECONDS", "inf", "SUREFOOT_RING_TIMEOUT_SECONDS='inf' is not float"),
        ("RING_TIMEOUT_SECONDS", "0", "SUREFOOT_RING_TIMEOUT_SECONDS=0 must be more than 0"),
        ("LEASE_SECONDS", "", "SUREFOOT_LEASE_SECONDS='' is not float"),
        ("CRASH_CAP", "3.5", "SUREFOOT_CRASH_CAP='3.5' is not int"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_setting_that_is_wrong_is_named_by_its_variable(name: str, text: str, problem: str) -> None:
    assert refusal(**{name: text}).startswith(problem)


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://me:{CANARY}@db/x",
        f"me:{CANARY}@db/x",
        f"{CANARY}:x@db/x",
        f"://me:{CANARY}@db",
        f"//me:{CANARY}@[db",
        CANARY,
    ],
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_no_message_holds_a_password(name: str, url: str) -> None:
    assert CANARY not in refusal(**{name: url})


@pytest.mark.parametrize("url", ["postgres://db", "postgresql://db", "postgresql+psycopg2://db", "POSTGRESQL://db"])
def test_every_name_of_postgres_will_do(url: str) -> None:
    assert Settings.from_env(ENVIRON | {"SUREFOOT_DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize("url", ["redis://c", "rediss://c", "sentinel://c,d:1/0?master=m", "amqp://q", "amqps://q"])
def test_every_broker_will_do(url: str) -> None:
    assert Settings.from_env(ENVIRON | {"SUREFOOT_REDIS_URL": url}).redis_url == url


def test_settings_do_not_show_the_urls_that_may_hold_passwords() -> None:
    assert CANARY not in repr(Settings.from_env(ENVIRON))
    assert CANARY not in repr(WORKER)


# ---- a worker's own --------------------------------------------------------------------------------------------


def test_the_defaults_of_a_worker_can_work_and_do_not_surprise() -> None:
    assert list(WORKER.errors()) == []
    assert list(WORKER.warnings()) == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"renew_seconds": 16.0}, "SUREFOOT_RENEW_SECONDS=16 is more than half of SUREFOOT_LEASE_SECONDS=30: one late"),
        ({"renew_seconds": 0.0}, "SUREFOOT_RENEW_SECONDS=0 is no time to wait"),
        ({"relay_seconds": -1.0}, "SUREFOOT_RELAY_SECONDS=-1 is no time to wait"),
        ({"threads": 0}, "SUREFOOT_THREADS=0 must be 1 or more"),
        ({"threads_left_behind_cap": 0}, "SUREFOOT_THREADS_LEFT_BEHIND_CAP=0 must be 1 or more"),
        ({"soft_shutdown_seconds": -1.0}, "SUREFOOT_SOFT_SHUTDOWN_SECONDS=-1 is no time to wait"),
        ({"log": "xml"}, "SUREFOOT_LOG='xml' is not json, console or auto"),
        ({"log_level": "INFO"}, "SUREFOOT_LOG_LEVEL='INFO' is not debug, info, warning or error"),
        ({"crash_cap": 0}, "SUREFOOT_CRASH_CAP=0 leaves no job a first try"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_an_error(changed: dict[str, object], problem: str) -> None:
    (error,) = replace(WORKER, **changed).errors()  # type: ignore[arg-type]  # one of several types
    assert error.startswith(problem)


def test_a_worker_need_not_wait_when_it_stops() -> None:
    assert list(replace(WORKER, soft_shutdown_seconds=0.0).errors()) == []


def test_a_short_lease_is_a_warning() -> None:
    (warning,) = replace(WORKER, lease_seconds=2.0, renew_seconds=0.5).warnings()
    assert warning.startswith("SUREFOOT_LEASE_SECONDS=2 is short")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sentinel:///0?master=m", "names no Sentinel"),
        ("sentinel://one:26379/0", "does not say which master"),
        ("sentinel://one:x/0?master=m", "port is no number"),
        ("sentinel://one/name?master=m", "database that is no number"),
    ],
)
def test_a_url_of_sentinels_that_lacks_something_is_refused_without_being_shown(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.from_env(ENVIRON | {"SUREFOOT_REDIS_URL": url})


def test_a_url_of_sentinels_becomes_one_of_celery_s_for_each_of_them() -> None:
    url = "sentinel://:p%40ss@one:1,two/3?master=m&sentinel_password=s"
    assert celery_url(url) == "sentinel://:p%40ss@one:1/3;sentinel://:p%40ss@two:26379/3"
    assert transport_options(url, 1.0)["master_name"] == "m"
    assert transport_options(url, 1.0)["sentinel_kwargs"]["password"] == "s"


def test_a_setting_may_come_from_a_file_which_wins(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://of-the-file/x\n")
    told = ENVIRON | {"SUREFOOT_DATABASE_URL_FILE": str(tmp_path / "url")}
    assert Settings.from_env(told).database_url == "postgresql://of-the-file/x"
    with pytest.raises(SettingsError, match=r"SUREFOOT_DATABASE_URL_FILE=.* cannot be read"):
        Settings.from_env(ENVIRON | {"SUREFOOT_DATABASE_URL_FILE": str(tmp_path / "none")})
