"""What becomes of a request at the effect server: drawn by a seed, in the shares that were named."""

from __future__ import annotations

from collections import Counter

from tests.chaos.weather import Weather, weather_of

MANY = 4_000


def fates(weather: Weather, mode: str = "keyed") -> Counter[str]:
    return Counter(weather.fate(arrival, mode) for arrival in range(MANY))


def test_each_fate_comes_as_often_as_its_share_says() -> None:
    found = fates(Weather(lossy=0.1, half=0.2, slow=0.3, refused=0.05, patience=0.05))
    assert {fate: round(count / MANY, 1) for fate, count in found.items() if fate in ("lossy", "half", "slow")} == {
        "lossy": 0.1,
        "half": 0.2,
        "slow": 0.3,
    }
    assert 0.2 < found["plain"] / MANY < 0.4


def test_the_same_request_meets_the_same_fate_and_another_seed_another() -> None:
    assert fates(Weather(lossy=0.5, seed=1)) == fates(Weather(lossy=0.5, seed=1))
    one, other = Weather(lossy=0.5, seed=1), Weather(lossy=0.5, seed=2)
    assert [one.fate(n, "keyed") for n in range(50)] != [other.fate(n, "keyed") for n in range(50)]


def test_modes_that_are_spared_lose_no_answer_and_are_refused_all_the_same() -> None:
    found = fates(Weather(lossy=0.3, half=0.3, refused=0.2, spared=("unsafe",)), mode="unsafe")
    assert found.keys() == {"plain", "refused"}


def test_calm_weather_lets_everything_through() -> None:
    assert fates(Weather()) == {"plain": MANY}


def test_it_is_read_from_an_order() -> None:
    assert weather_of({"lossy": 0.5, "spared": ["unsafe"]}) == Weather(lossy=0.5, spared=("unsafe",))
