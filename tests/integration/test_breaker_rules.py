"""A breaker's rules, in Redis and in a process's memory: the same answers, on a clock that the tests move."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import Dependency
from tests.integration.breakers import THIS_TIME, InRedis, lets_through
from worker.breaker_answers import ADMITTED, PROBES, REFUSED, Answer, Seen
from worker.breaker_rules import Rules
from worker.dev.servers import Servers

NOW = 1_764_000_000_000
MINUTE = 60_000

Place = Rules | InRedis
Made = Callable[..., Place]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture(params=["in redis", "in memory"])
def made(request: pytest.FixtureRequest, client: redis.Redis) -> Made:
    """A breaker in either place."""

    def make(**declared: Any) -> Place:
        dependency = Dependency(name="llm", **declared)
        return InRedis(client, dependency) if request.param == "in redis" else Rules(dependency)

    return make


def admit(place: Place, at: int, token: str = "t", *, parks: bool = False) -> Answer:
    return place.admit(NOW + at, token, 10_000, parks=parks)


def record(place: Place, at: int, *, jitter: float = 0.0, **seen: Any) -> Answer:
    return place.record(NOW + at, Seen(**{"epoch": NOW * 2} | seen), jitter=jitter)


def fail(place: Place, times: int, at: int = 0, **more: Any) -> Answer:
    for _ in range(times - 1):
        record(place, at, bad=1, **more)
    return record(place, at, bad=1, **more)


def succeed(place: Place, times: int, at: int = 0) -> Answer:
    return record(place, at, ok=[(0, times)])


def test_a_breaker_of_which_nobody_knows_is_closed(made: Made) -> None:
    assert admit(made(), 0) == Answer(decision=ADMITTED, state="closed", epoch=0)


def test_five_failures_in_a_row_open_it_and_four_do_not(made: Made) -> None:
    place = made()
    assert fail(place, 4).state == "closed"
    opened = fail(place, 1)
    assert (opened.state, opened.moves[0].reason) == ("open", "5 failures in a row")
    assert admit(place, 1).decision == REFUSED


def test_a_success_between_them_begins_the_row_anew(made: Made) -> None:
    place = made()
    for _ in range(4):
        fail(place, 4)
        assert succeed(place, 100).state == "closed"
    assert place.record(NOW, Seen(epoch=NOW * 2, bad=1, ok=[(0, 1)]), jitter=0).failed == 1


def test_eighty_per_cent_failures_with_successes_between_them_open_it_once_there_are_enough(made: Made) -> None:
    place = made()
    for number in range(1, 40):
        state = fail(place, 4, number).state if number % 2 else succeed(place, 1, number).state
        if state == "open":
            break
    assert number > 8  # 20 calls are the least
    assert state == "open"


def test_below_the_rate_or_the_minimum_it_stays_closed(made: Made) -> None:
    assert fail(made(fail_max=None), 19).state == "closed"


def test_what_has_left_the_window_counts_for_nothing(made: Made) -> None:
    place = made(fail_max=None, window_seconds=30)
    fail(place, 19)
    assert fail(place, 1, at=30_001).state == "closed"
    assert fail(place, 19, at=30_001).state == "open"


def test_successes_are_held_against_failures_of_their_own_time(made: Made) -> None:
    place = made(fail_max=None, window_seconds=30)
    fail(place, 19, at=27_000)
    # A hundred succeeded, but all of them before the window.
    assert record(place, 27_001, bad=1, ok=[(10, 100)]).state == "open"


def test_slow_calls_open_it_where_that_is_asked_for(made: Made) -> None:
    place = made(slow_call_seconds=1.0, slow_rate=0.5, min_calls=10)
    for _ in range(4):
        record(place, 0, slow=1, ok=[(0, 2)])
    assert record(place, 0, slow=1, ok=[(0, 2)]).moves[0].reason == "5 of 10 calls were slow"


def test_it_stays_open_for_its_recovery_time_and_then_lets_one_try(made: Made) -> None:
    place = made(recovery_seconds=60)
    fail(place, 5)
    refused = admit(place, MINUTE - 1)
    assert (refused.decision, refused.wait_ms) == (REFUSED, 1)
    tries = admit(place, MINUTE, "mine")
    assert (tries.decision, tries.state) == (PROBES, "half-open")
    assert [admit(place, MINUTE + n, f"other {n}").decision for n in range(20)] == [REFUSED] * 20


def test_the_try_that_succeeds_closes_it_and_the_one_that_fails_opens_it_for_longer(made: Made) -> None:
    place = made(recovery_seconds=60, recovery_max_seconds=240)
    fail(place, 5)
    at = MINUTE
    for minutes in (2, 4, 4):  # twice as long, up to the longest
        admit(place, at, "mine")
        assert record(place, at, token="mine", bad=1).moves[0].reason == "the probe failed"
        assert not lets_through(admit(place, at + minutes * MINUTE - 1))
        at += minutes * MINUTE
    assert admit(place, at, "mine").decision == PROBES
    assert record(place, at, token="mine", ok=[(0, 1)]).state == "closed"
    fail(place, 5, at)
    assert admit(place, at).wait_ms == MINUTE  # from the beginning


def test_the_time_it_stays_open_is_up_to_a_fifth_longer(made: Made) -> None:
    place = made(recovery_seconds=60)
    record(place, 0, bad=5, jitter=0.5)
    assert admit(place, 0).wait_ms == 66_000


def test_a_dependency_that_is_well_again_is_tried_within_twice_its_recovery_time_however_long_it_was_away(
    made: Made,
) -> None:
    place = made(recovery_seconds=60)
    fail(place, 5)
    at = MINUTE
    for _ in range(50):
        admit(place, at, "mine")
        record(place, at, token="mine", bad=1, jitter=0.999)
        wait = admit(place, at).wait_ms
        assert MINUTE <= wait <= 2 * MINUTE
        at += wait


def test_several_must_succeed_one_after_another_where_that_is_asked_for(made: Made) -> None:
    place = made(success_threshold=3)
    fail(place, 5)
    for n in range(3):
        assert admit(place, MINUTE + n, f"t{n}").decision == PROBES
        assert not lets_through(admit(place, MINUTE + n, "other"))
        answer = record(place, MINUTE + n, token=f"t{n}", ok=[(0, 1)])
    assert (answer.state, answer.moves[0].reason) == ("closed", "3 probes succeeded")


def test_a_prober_that_died_holds_nobody_up_for_longer_than_its_lease_and_its_late_word_counts_for_nothing(
    made: Made,
) -> None:
    place = made()
    fail(place, 5)
    admit(place, MINUTE, "dead")
    assert not lets_through(admit(place, MINUTE + 9_999, "next"))
    assert admit(place, MINUTE + 10_000, "next").decision == PROBES
    assert record(place, MINUTE + 10_001, token="dead", bad=1).state == "half-open"
    assert record(place, MINUTE + 10_002, token="next", ok=[(0, 1)]).state == "closed"


def test_a_try_that_says_nothing_leaves_the_next_one_free_to_try(made: Made) -> None:
    place = made()
    fail(place, 5)
    admit(place, MINUTE, "cut off")
    assert record(place, MINUTE, token="cut off").state == "half-open"
    assert admit(place, MINUTE, "next").decision == PROBES


def test_a_slow_try_does_not_close_it(made: Made) -> None:
    place = made(slow_call_seconds=1.0)
    fail(place, 5)
    admit(place, MINUTE, "slow")
    assert record(place, MINUTE, token="slow", slow=1, ok=[(0, 1)]).moves[0].reason == "the probe was slow"


def test_what_began_before_the_last_move_counts_for_nothing(made: Made) -> None:
    place = made()
    opened = fail(place, 5)
    admit(place, MINUTE, "mine")
    closed = record(place, MINUTE, token="mine", ok=[(0, 1)])
    assert fail(place, 20, MINUTE, epoch=0).state == "closed"
    assert fail(place, 20, MINUTE, epoch=opened.epoch).state == "closed"
    assert fail(place, 5, MINUTE, epoch=closed.epoch).state == "open"


def test_the_other_side_s_word_on_how_long_to_wait_is_kept_where_it_is_longer(made: Made) -> None:
    place = made()
    fail(place, 1, asked_ms=5 * MINUTE)
    fail(place, 4)
    assert admit(place, 0).wait_ms == 5 * MINUTE
    record(place, 0, bad=1, asked_ms=6 * MINUTE)  # a straggler's
    assert admit(place, 0).wait_ms == 6 * MINUTE
    record(place, 0, bad=1, asked_ms=MINUTE)
    assert admit(place, 0).wait_ms == 6 * MINUTE


def test_jobs_that_wait_come_back_one_by_one(made: Made) -> None:
    place = made(release_per_second=10)
    fail(place, 5)
    assert [admit(place, 0, parks=True).wait_ms - MINUTE for _ in range(4)] == [0, 100, 200, 300]


def test_a_job_whose_try_failed_lets_others_go_first_and_is_not_the_one_that_always_tries(made: Made) -> None:
    place = made(release_per_second=1_000)
    fail(place, 5)
    place.admit(NOW + MINUTE, "t", 10_000, parks=True, job="a")
    place.record(NOW + MINUTE, Seen(token="t", epoch=THIS_TIME, bad=1), jitter=0, job="a")
    waits = {job: place.admit(NOW + MINUTE, job, 10_000, parks=True, job=job).wait_ms for job in ("a", "b", "c")}
    assert waits["b"] < waits["c"] < waits["a"]
    assert waits["a"] == 94_500  # a twentieth of the 90 seconds until the next try


def test_who_is_refused_again_and_again_while_calls_try_and_say_nothing_waits_no_longer_each_time(made: Made) -> None:
    place = made(release_per_second=10)
    fail(place, 5)
    due = dict.fromkeys(("a", "b", "c"), MINUTE)
    waits = []
    for _ in range(1_000):
        job, at = min(due.items(), key=lambda each: each[1])
        record(place, at, token="tries")  # and says nothing
        assert admit(place, at, "tries").decision == PROBES
        waits.append(admit(place, at, job, parks=True).wait_ms)
        due[job] = at + waits[-1]
    assert max(waits) <= 5_000 + 3 * 100


def test_many_who_wait_while_calls_try_look_again_one_by_one(made: Made) -> None:
    place = made(release_per_second=10)
    fail(place, 5)
    admit(place, MINUTE, "tries")
    waits = [admit(place, MINUTE + n, "t", parks=True).wait_ms + n for n in range(100)]
    assert [later - sooner for sooner, later in itertools.pairwise(waits)] == [100] * 99


def test_however_many_wait_and_however_often_it_opens_again_they_look_one_by_one(made: Made) -> None:
    place = made(release_per_second=10, recovery_seconds=2)
    fail(place, 5)
    waiting = [(admit(place, n, parks=True).wait_ms + n, f"{n}") for n in range(300)]
    looked, tried = [], []
    while waiting[0][0] < 2 * MINUTE:
        at, job = heappop(waiting)
        looked.append(at)
        answer = place.admit(NOW + at, job, 10_000, parks=True, job=job)
        if answer.decision == PROBES:
            tried.append(at)
            place.record(NOW + at, Seen(token=job, epoch=THIS_TIME, bad=1), jitter=0, job=job)
            answer = place.admit(NOW + at, job, 10_000, parks=True, job=job)
        heappush(waiting, (at + answer.wait_ms, job))
    seconds = Counter(at // 1000 for at in looked)
    assert max(seconds.values()) <= 11
    assert max(later - sooner for sooner, later in itertools.pairwise(tried)) <= 3_000 + 100


def test_more_than_have_a_place_within_ten_minutes_are_among_each_other_and_not_all_at_its_end(made: Made) -> None:
    place = made(release_per_second=10)
    fail(place, 5)
    places = Counter(admit(place, 0, parks=True).wait_ms - MINUTE for _ in range(12_500))
    assert min(places) == 0
    assert max(places) == 600_000
    assert max(places.values()) == 3


def test_however_far_apart_they_are_ten_of_them_have_times_of_their_own(made: Made) -> None:
    place = made(release_per_second=0.001)
    fail(place, 5)
    places = [admit(place, 0, parks=True).wait_ms - MINUTE for _ in range(12)]
    assert places == [n * 1_000_000 for n in range(11)] + [0]


def test_where_everybody_else_is_gone_the_one_whose_try_failed_tries_again_in_time(made: Made) -> None:
    place = made(release_per_second=1)
    fail(place, 5)
    place.admit(NOW, "a", 10_000, parks=True, job="a")
    for _ in range(300):
        admit(place, 0, parks=True)  # and is cancelled
    place.admit(NOW + MINUTE, "t", 10_000, parks=True, job="a")
    place.record(NOW + MINUTE, Seen(token="t", epoch=THIS_TIME, bad=1), jitter=0, job="a")
    assert place.admit(NOW + MINUTE, "t", 10_000, parks=True, job="a").wait_ms == 94_500


def test_a_line_begins_anew_once_it_closes_or_a_person_has_it_try(client: redis.Redis) -> None:
    place = InRedis(client, Dependency(name="llm", release_per_second=1))
    fail(place, 5)
    for _ in range(100):
        admit(place, 0, parks=True)
    place.force(NOW + 1, "auto")
    assert admit(place, 1).decision == PROBES
    record(place, 1, token="t", bad=1)
    assert admit(place, 1, parks=True).wait_ms < 2 * MINUTE
    for _ in range(300):
        admit(place, 1, parks=True)
    assert admit(place, 2 * MINUTE).decision == PROBES
    record(place, 2 * MINUTE, token="t", ok=[(0, 1)])
    fail(place, 5, 2 * MINUTE)
    assert admit(place, 2 * MINUTE, parks=True).wait_ms == MINUTE


def test_whose_turn_it_is_may_prolong_it_and_nobody_else(made: Made) -> None:
    place = made()
    fail(place, 5)
    assert place.admit(NOW + MINUTE, "mine", 2_000, parks=False).decision == PROBES
    assert place.admit(NOW + MINUTE + 1, "mine", 60_000, parks=False).decision == PROBES
    assert not lets_through(admit(place, MINUTE + 60_000, "other"))
    assert admit(place, MINUTE + 60_001, "other").decision == PROBES
    assert not lets_through(admit(place, MINUTE + 60_002, "mine"))  # it is another's by now


LOST = pytest.mark.parametrize(
    ("seen", "while_another_tries", "once_nobody_does"),
    [
        pytest.param({"ok": [(0, 1)]}, "closed", "closed", id="it succeeded"),
        pytest.param({"bad": 1}, "half-open", "open", id="it failed"),
        pytest.param({"slow": 1, "ok": [(0, 1)]}, "half-open", "open", id="it succeeded, and was slow"),
        pytest.param({"slow": 1, "bad": 1}, "half-open", "open", id="it failed, and was slow"),
        pytest.param({}, "half-open", "half-open", id="it says nothing"),
    ],
)


@LOST
def test_a_try_that_lost_its_turn_has_tried_all_the_same(
    made: Made, seen: dict[str, Any], while_another_tries: str, once_nobody_does: str
) -> None:
    for tries, state in ((True, while_another_tries), (False, once_nobody_does)):
        place = made()
        fail(place, 5)
        first = place.admit(NOW + MINUTE, "first", 1_000, parks=False)
        assert place.admit(NOW + MINUTE + 1_000, "second", 60_000, parks=False).decision == PROBES
        if not tries:
            record(place, MINUTE + 1_001, token="second", epoch=first.epoch)  # and says nothing
        assert record(place, MINUTE + 1_002, token="first", epoch=first.epoch, **seen).state == state
        if tries and state == "half-open":  # it is the second one's turn still
            assert admit(place, MINUTE + 1_003, "third").decision == REFUSED
        if isinstance(place, InRedis):
            place.client.flushdb()


def test_a_try_of_an_earlier_half_open_ends_its_turn_and_counts_for_nothing(made: Made) -> None:
    place = made()
    fail(place, 5)
    began = place.admit(NOW + MINUTE, "t", 10_000, parks=False)
    assert record(place, MINUTE, token="t", epoch=began.epoch - 1, bad=1).state == "half-open"
    assert admit(place, MINUTE + 1, "other").decision == PROBES


def test_a_try_that_is_told_of_twice_counts_once(made: Made) -> None:
    place = made(success_threshold=2)
    fail(place, 5)
    for token in ("first", "second"):
        admit(place, MINUTE, token)
        told = [record(place, MINUTE, token=token, ok=[(0, 1)]).state for _ in range(2)]
    assert told == ["closed", "closed"]
    place = made(success_threshold=3)
    if isinstance(place, InRedis):
        place.client.flushdb()
    fail(place, 5)
    for passed, token in ((1, "first"), (2, "second")):
        admit(place, MINUTE, token)
        assert [record(place, MINUTE, token=token, ok=[(0, 1)]).passed for _ in range(2)] == [passed, passed]


def test_a_try_that_is_told_of_again_once_the_next_one_has_begun_counts_once(made: Made) -> None:
    place = made(success_threshold=3)
    fail(place, 5)
    admit(place, MINUTE, "first")
    assert record(place, MINUTE, token="first", ok=[(0, 1)]).passed == 1
    assert admit(place, MINUTE, "second").decision == PROBES
    assert record(place, MINUTE, token="first", ok=[(0, 1)]).passed == 1
    assert record(place, MINUTE, token="second", ok=[(0, 1)]).passed == 2


def test_asking_whether_a_call_would_be_let_through_takes_no_turn(client: redis.Redis) -> None:
    place = InRedis(client, Dependency(name="llm"))
    assert admit(place, 0, "").decision == ADMITTED
    fail(place, 5)
    assert admit(place, 0, "", parks=True).wait_ms == MINUTE
    asked = admit(place, MINUTE, "")
    assert (asked.decision, asked.state, asked.moves) == (PROBES, "open", ())
    assert admit(place, MINUTE, "mine").decision == PROBES
    assert admit(place, MINUTE + 1, "").decision == REFUSED
    assert admit(place, MINUTE + 10_000, "").decision == PROBES  # it is over
    assert admit(place, MINUTE + 10_000, "other").decision == PROBES


# ---- the same answers in both places ---------------------------------------------------------------------------

EVENTS = st.one_of(
    st.tuples(st.just("admit"), st.integers(0, 3), st.booleans()),
    st.tuples(
        st.just("record"),
        st.integers(-1, 3),
        st.integers(0, 1),
        st.integers(0, 1),
        st.sampled_from([0, 0, 0, 5_000]),
        st.lists(st.tuples(st.integers(0, 11), st.integers(1, 5)), max_size=2),
        st.booleans(),
    ),
)
STORIES = st.lists(st.tuples(st.sampled_from([0, 1, 150, 900, 1_500, 4_000]), EVENTS), max_size=60)
DECLARED = st.fixed_dictionaries(
    {
        "fail_max": st.sampled_from([None, 1, 3]),
        "failure_rate": st.sampled_from([None, 0.3, 0.5]),
        "min_calls": st.sampled_from([1, 5]),
        "slow_call_seconds": st.sampled_from([None, 1.0]),
        "success_threshold": st.sampled_from([1, 2]),
        "recovery_max_seconds": st.sampled_from([None, 8.0]),
    }
)


@settings(max_examples=150)
@given(declared=DECLARED, story=STORIES)
def test_whatever_happens_both_places_answer_alike(
    dev_servers: Servers, declared: dict[str, Any], story: list[Any]
) -> None:
    dependency = Dependency(name="llm", recovery_seconds=1.0, window_seconds=5.0, **declared)
    # In a process's memory there is nobody who lets them go: they look by themselves as fast as they would be let go.
    pace = 1000 / dependency.release_per_second
    with redis.Redis.from_url(dev_servers.redis_url.rsplit("/", 1)[0] + "/0") as client:
        client.flushdb()
        here, there = Rules(dependency), InRedis(client, replace(dependency, release_per_second=50), pace=pace)
        now, last = NOW, 0
        for passed, event in story:
            now += passed
            answers = [_happens(place, now, last, event) for place in (here, there)]
            answers[1] = replace(answers[1], moves=tuple(replace(move, shared=False) for move in answers[1].moves))
            assert answers[0] == answers[1]
            last = answers[0].epoch


def _happens(place: Place, now: int, epoch: int, event: Any) -> Answer:
    match event:
        case ("admit", token, parks):
            return place.admit(now, f"t{token}", 2_000, parks=parks, job=f"job {token}")
        case (_, token, bad, slow, asked, ok, stale):
            seen = Seen(
                token=f"t{token}" if token >= 0 else "",
                epoch=0 if stale else epoch,
                bad=bad,
                slow=slow,
                asked_ms=asked,
                ok=ok,
            )
            return place.record(now, seen, jitter=0.25, job=f"job {token}")
    raise AssertionError(event)
