"""How values are put into words on the console's pages, and what its sessions take for genuine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from markupsafe import Markup

from producer.api.console import words
from producer.api.console.sessions import Sessions
from producer.controls import visible
from producer.ledger.states import State

NOW = datetime(2026, 1, 2, 3, 4, 5, 6_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("dollars", "shown"),
    [
        (None, ""),
        (Decimal(0), "$0.00"),
        (Decimal("12.5"), "$12.50"),
        (Decimal("0.0015"), "$0.0015"),
        (Decimal("1234.567891"), "$1,234.567891"),
        (Decimal(-3), "$-3.00"),
    ],
)
def test_money_has_cents_at_least(dollars: Decimal | None, shown: str) -> None:
    assert words.money(dollars) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(None, ""), (0.0123, "12 ms"), (1, "1.0 s"), (90, "1.5 min"), (5_400, "1.5 h"), (172_800, "2.0 d")],
)
def test_a_duration_has_the_unit_that_fits(number: float | None, shown: str) -> None:
    assert words.seconds(number) == shown


def test_a_moment_is_told_in_utc_and_for_the_script() -> None:
    there = NOW.astimezone(UTC) + timedelta(0)
    assert words.moment(there) == '<time datetime="2026-01-02T03:04:05.006000Z">2026-01-02 03:04:05</time>'
    assert words.moment(None) == ""


def test_since_is_exact_at_first_and_in_words_later() -> None:
    assert words.since(NOW + timedelta(seconds=1.5), NOW) == "+1.500 s"
    assert words.since(NOW + timedelta(hours=2), NOW) == "+2.0 h"


def test_every_state_has_a_tone_or_is_quiet_on_purpose() -> None:
    assert {state for state in State if words.tone(state) == "quiet"} == {State.CANCELLED, State.EXPIRED}


def test_what_is_shown_is_redacted_and_bounded() -> None:
    assert words.whole({"password": "hunter22"}) == '{\n  "password": "[redacted]"\n}'
    assert len(words.whole("x" * 1_000_000)) < words.LONG_LENGTH + 40
    assert words.short("x" * 1_000) == "x" * words.SHORT_LENGTH + "…"


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\u2028", "\x1b", "\x00", "\ufeff", "\U000e0041", "\ud800"])
def test_what_is_not_to_be_seen_is_made_visible(hidden: str) -> None:
    shown = words.finalized(f"a{hidden}b")
    assert hidden not in shown
    assert shown.startswith("a\\")
    assert words.finalized(Markup("<b>")) == "<b>"
    assert words.finalized(None) == ""


def test_what_people_write_stays_as_they_wrote_it() -> None:
    text = "naïve 日本語 \U0001f469\u200d\U0001f4bb e\u0301\n\tमराठी"
    assert visible(text) == text


def test_a_session_ends_by_itself_and_none_can_be_made_without_the_secret() -> None:
    now = 1_000.0
    ours, theirs = (Sessions(secret, seconds=60, clock=lambda: now) for secret in ("a" * 32, "b" * 32))
    token = ours.begin("abcdefghijkl")
    assert ours.key_of(token) == "abcdefghijkl"
    assert theirs.key_of(token) is None
    assert Sessions("a" * 32, seconds=60, clock=lambda: now).key_of(token) == "abcdefghijkl"
    assert Sessions("", seconds=60, clock=lambda: now).key_of(token) is None
    now = 1_060.0
    assert ours.key_of(token) is None


@pytest.mark.parametrize(
    "token", ["", ".", "v1", "v1.a.b.c.d", "v2.abcdefghijkl.9.x.y", "v1.abcdefghijkl.9" * 99, "é.é"]
)
def test_what_is_no_token_is_none(token: str) -> None:
    assert Sessions("a" * 32, seconds=60).key_of(token) is None


def test_a_form_s_token_is_one_visitor_s_and_no_session_s() -> None:
    sessions = Sessions("a" * 32, seconds=60)
    assert sessions.form_token("one") != sessions.form_token("other")
    token = sessions.begin("abcdefghijkl")
    body, _, _ = token.rpartition(".")
    assert sessions.key_of(f"{body}.{sessions.form_token(body)}") is None
