"""What an action may declare of its limits: what is refused, in which words, and what is worked out of the rest."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tasks import InvalidAction, action
from tasks import _registry as registry
from tasks._limits import ActionLimits
from tests.unit.test_spec import plain, spec_of

NAN, INFINITY = float("nan"), float("inf")
A_RATE = "must be '10/s', '100/m', '1000/h', or a number per second"
A_COUNT = "must be a whole number from 1 to 1000000, or None"


@pytest.mark.parametrize("word", ["max_concurrency", "fleet_concurrency"])
@pytest.mark.parametrize("count", [0, -1, 1.0, NAN, INFINITY, "3", True, False, [], 10**7, Decimal(3)])
def test_a_concurrency_that_is_no_number_of_attempts_is_refused(word: str, count: Any) -> None:
    with pytest.raises(InvalidAction) as caught:
        spec_of(plain, limits={word: count})
    assert str(caught.value).startswith(f"test.it: {word}=")
    assert A_COUNT in str(caught.value)


@pytest.mark.parametrize(
    "rate",
    ["", "fast", "10", "10/", "/s", "10/d", "10 / s", "-1/s", "10/s\n", "1e3/s", "٣/s", "inf/s", True, [], b"1/s"],
)
def test_a_rate_that_cannot_be_read_is_refused_with_how_to_write_one(rate: Any) -> None:
    with pytest.raises(InvalidAction) as caught:
        spec_of(plain, limits={"rate_limit": rate})
    assert str(caught.value) == f"test.it: rate_limit={rate!r} {A_RATE}"


@pytest.mark.parametrize(
    "rate",
    [0, 0.0, -0.0, -5, NAN, INFINITY, -INFINITY, 1e-9, 1_000_001, 10**400, "0/s", "0.0/h", "9999999/s", "0.04/h"],
)
def test_a_rate_that_cannot_be_kept_is_refused(rate: Any) -> None:
    with pytest.raises(InvalidAction, match=r"must be more than 0: from one a day to 1000000/s"):
        spec_of(plain, limits={"rate_limit": rate})


@pytest.mark.parametrize("mode", ["", "Local", "fail", None, True, 1, []])
def test_a_mode_that_is_none_is_refused_with_those_there_are(mode: Any) -> None:
    with pytest.raises(InvalidAction) as caught:
        spec_of(plain, limits={"limits_without_redis": mode})
    assert str(caught.value) == f"test.it: limits_without_redis={mode!r} is none of local, hold, allow"


@pytest.mark.parametrize(
    ("rate", "interval_us", "burst"),
    [
        pytest.param(None, 0, 1, id="none"),
        ("10/s", 100_000, 10),
        ("100/m", 600_000, 1),
        ("150/m", 400_000, 2),
        ("1000/h", 3_600_000, 1),
        ("0.5/s", 2_000_000, 1),
        pytest.param(10, 100_000, 10, id="a number"),
        pytest.param(2.5, 400_000, 2, id="a fraction"),
        ("1000000/s", 1, 1_000_000),
        pytest.param(1 / 86_400, 86_400_000_000, 1, id="one a day"),
    ],
)
def test_a_rate_is_worked_out_as_an_interval_and_a_second_s_worth_at_once(
    rate: str | float | None, interval_us: int, burst: int
) -> None:
    limits = ActionLimits(rate_limit=rate)
    assert (limits.interval_us, limits.burst) == (interval_us, burst)


def test_only_what_processes_must_agree_on_is_fleet_wide() -> None:
    assert not ActionLimits(max_concurrency=1).are_fleet_wide
    assert ActionLimits(fleet_concurrency=1).are_fleet_wide
    assert ActionLimits(rate_limit="1/s").are_fleet_wide


def test_an_action_declares_its_limits_and_they_are_published_as_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_actions", {})

    @action("test.it", effect="pure", max_concurrency=2, fleet_concurrency=5, rate_limit="100/m")
    def it() -> None: ...

    assert registry._actions["test.it"].limits.published() == {  # noqa: SLF001  what the test is about
        "max_concurrency": 2,
        "fleet_concurrency": 5,
        "rate_limit": "100/m",
        "limits_without_redis": "local",
    }
