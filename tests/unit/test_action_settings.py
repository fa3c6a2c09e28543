"""What the actions that come with Surefoot are told from outside: the mail server and the price table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from producer.errors import SettingsError
from tasks._settings import Price, Smtp, cost_of, prices, smtp
from tests.unit.json_values import CANARY


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    smtp.cache_clear()
    prices.cache_clear()
    yield
    smtp.cache_clear()
    prices.cache_clear()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://localhost", Smtp("localhost", 25, "none", None, None)),
        ("smtp://localhost:2525", Smtp("localhost", 2525, "none", None, None)),
        ("smtp+starttls://me:pass@mail", Smtp("mail", 587, "starttls", "me", "pass")),
        ("smtps://me%40example.com:p%2Fa%40ss@mail", Smtp("mail", 465, "tls", "me@example.com", "p/a@ss")),
        ("smtp://[::1]:2525", Smtp("::1", 2525, "none", None, None)),
    ],
)
def test_a_mail_server_is_read_from_one_url(url: str, expected: Smtp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_SMTP_URL", url)
    assert smtp() == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "smtp://",
        f"http://me:{CANARY}@mail",
        f"me:{CANARY}@mail",
        f"smtp://me:{CANARY}/x@mail",
        f"smtp://me:{CANARY}@mail:port",
        f"smtp://me:{CANARY}@mail:99999",
        f"smtp://me:{CANARY}@[mail",
    ],
)
def test_a_url_that_is_wrong_is_refused_without_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_SMTP_URL", url)
    with pytest.raises(SettingsError, match="SUREFOOT_SMTP_URL") as caught:
        smtp()
    assert CANARY not in str(caught.value)


def test_a_mail_server_does_not_show_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_SMTP_URL", f"smtps://me:{CANARY}@mail")
    assert CANARY not in repr(smtp())


def test_the_price_table_that_comes_with_surefoot_is_read() -> None:
    assert prices()["gpt-4o-mini"] == (Price(Decimal("0.15"), Decimal("0.60"), date(2025, 6, 1)),)


def test_a_price_table_of_one_s_own_is_read_to_the_last_digit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        monkeypatch,
        {"usd_per_million_tokens": {"mine": {"in": 0.15, "out": "0.60"}, "free": {"in": 0, "out": 0}}},
    )
    assert prices() == {"mine": (Price(Decimal("0.15"), Decimal("0.60")),), "free": (Price(Decimal(0), Decimal(0)),)}


def test_a_price_table_may_be_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('[[usd_per_million_tokens.mine]]\nfrom = 2026-01-01\nin = 0.1\nout = "0.2"\n')
    monkeypatch.setenv("SUREFOOT_PRICES_FILE", str(file))
    assert prices() == {"mine": (Price(Decimal("0.1"), Decimal("0.2"), date(2026, 1, 1)),)}


@pytest.mark.parametrize(
    ("day", "cost"),
    [
        pytest.param(date(2025, 12, 31), None, id="before there was a price, which is not zero"),
        pytest.param(date(2026, 1, 1), "3", id="on the first day of a price"),
        pytest.param(date(2026, 2, 28), "3", id="on its last"),
        pytest.param(date(2026, 3, 1), "1.5", id="after it changed"),
    ],
)
def test_a_call_costs_what_its_model_cost_on_its_day(
    day: date, cost: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dated = [{"from": "2026-03-01", "in": "1", "out": "1"}, {"from": "2026-01-01", "in": "2", "out": "2"}]
    write(tmp_path, monkeypatch, {"usd_per_million_tokens": {"mine": dated}})
    assert cost_of("mine", 1_000_000, 500_000, on=day) == (None if cost is None else Decimal(cost))


@pytest.mark.parametrize(
    "table",
    [
        pytest.param([], id="a list"),
        pytest.param({}, id="another object"),
        pytest.param({"usd_per_million_tokens": []}, id="prices in a list"),
        pytest.param({"usd_per_million_tokens": {"m": 1}}, id="one price"),
        pytest.param({"usd_per_million_tokens": {"m": {"in": "1"}}}, id="half a price"),
        pytest.param({"usd_per_million_tokens": {"m": []}}, id="a list of none"),
        pytest.param({"usd_per_million_tokens": {"m": {"in": "1", "out": "1", "from": "soon"}}}, id="no day"),
        pytest.param({"usd_per_million_tokens": {"m": [{"in": "1", "out": "1"}] * 2}}, id="two prices of one day"),
        pytest.param({"usd_per_million_tokens": {"m": {"in": "much", "out": "1"}}}, id="a word"),
        pytest.param({"usd_per_million_tokens": {"m": {"in": None, "out": "1"}}}, id="null"),
        pytest.param({"usd_per_million_tokens": {"m": {"in": "-1", "out": "1"}}}, id="less than nothing"),
        pytest.param({"usd_per_million_tokens": {"m": {"in": float("nan"), "out": "1"}}}, id="NaN"),
        pytest.param({"usd_per_million_tokens": {"m": {"in": "Infinity", "out": "1"}}}, id="everything"),
    ],
)
def test_what_is_no_price_table_is_refused_by_its_path(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, monkeypatch, table)
    with pytest.raises(SettingsError, match=r"prices\.json is not a price table: "):
        prices()


def test_a_price_table_that_is_not_there_is_refused_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUREFOOT_PRICES_FILE", str(tmp_path / "none.json"))
    with pytest.raises(SettingsError, match=r"none\.json is not a price table: FileNotFoundError"):
        prices()


@pytest.mark.parametrize(
    ("model", "cost"),
    [
        pytest.param("gpt-4o", "0.0035", id="by name"),
        pytest.param("gpt-4o-2024-08-06", "0.0035", id="a dated version"),
        pytest.param("gpt-4o-mini-2024-07-18", "0.00021", id="a dated version of the longer name"),
        pytest.param("gpt-4o-audio", None, id="another model with the same beginning"),
        pytest.param("unheard-of", None, id="an unknown model, which is not free"),
    ],
)
def test_a_call_costs_what_its_model_costs(model: str, cost: str | None) -> None:
    assert cost_of(model, 1_000, 100) == (None if cost is None else Decimal(cost))


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, table: Any) -> None:
    file = folder / "prices.json"
    file.write_text(json.dumps(table))
    monkeypatch.setenv("SUREFOOT_PRICES_FILE", str(file))
