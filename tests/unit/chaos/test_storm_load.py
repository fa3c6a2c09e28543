"""What the producers of a storm ask for: everything that a service may, drawn from a seed."""

from __future__ import annotations

from collections import Counter

from tests.chaos.storm.load import ACTIONS, Load, Order, Wanted
from tests.chaos.storm.prints import fingerprint

MANY = 3_000


def orders(name: str = "producer-1.1-0", seed: int = 1) -> list[Order]:
    load = Load(name, seed)
    return [load.next() for _ in range(MANY)]


def requests() -> list[Wanted]:
    return [request for order in orders() for request in order.requests]


def test_the_same_seed_and_name_give_the_same_load_and_another_name_another() -> None:
    assert orders() == orders()
    assert orders() != orders(name="producer-2.1-0")


def test_every_action_is_asked_for_and_every_way_is_gone() -> None:
    assert {request.action for request in requests()} == ACTIONS.keys()
    assert {order.how for order in orders()} == {"single", "batch", "within"}


def test_some_requests_are_for_later_have_a_deadline_or_are_cancelled() -> None:
    found = requests()
    for name in ("run_in", "deadline_in", "cancel_in"):
        share = sum(getattr(request, name) is not None for request in found) / len(found)
        assert 0.01 < share < 0.15, name


def test_some_keys_are_asked_for_again_and_some_for_something_else() -> None:
    found: dict[tuple[str, str], set[int]] = {}
    often: Counter[tuple[str, str]] = Counter()
    for request in requests():
        key = request.action, request.key
        found.setdefault(key, set()).add(request.params["n"])
        often[key] += 1
    assert sum(count > 1 for count in often.values()) > MANY / 50
    assert sum(len(numbers) > 1 for numbers in found.values()) > MANY / 200


def test_several_producers_ask_for_the_same_now_and_then() -> None:
    keys = [{r.key for order in orders(name) for r in order.requests} for name in ("producer-1.1-0", "producer-2.1-0")]
    assert keys[0] & keys[1]


def test_a_version_that_a_producer_may_not_know_has_no_fingerprint_here() -> None:
    known = Wanted(action="storm.keyed", params={"n": 1}, key="k")
    assert (len(str(fingerprint(known))), fingerprint(Wanted(action="storm.versioned", params={"n": 1}, key="k"))) == (
        64,
        None,
    )
