"""What one process keeps by itself: a rate with bookings, and a line for its places."""

from __future__ import annotations

import heapq
from uuid import UUID

from producer.ring import Ring
from tasks._limits import ActionLimits
from tests.unit.test_spec import plain, spec_of
from worker.limits_in_process import SECOND, Bucket, Room


def test_ten_thousand_jobs_over_a_rate_are_held_once_each_and_due_one_after_the_other() -> None:
    limits, bucket, start = ActionLimits(rate_limit="100/s"), Bucket(), 10**12
    line = [(start, UUID(int=n)) for n in range(10_000)]
    held, began = 0, []
    while line:
        now, job_id = heapq.heappop(line)
        if wait := bucket.too_early(job_id, limits.interval_us, limits.burst, now):
            held += 1
            heapq.heappush(line, (now + wait, job_id))
        else:
            bucket.spend(job_id, now)
            began.append(now - start)
    assert held == 10_000 - 100
    assert began == [0] * 100 + [n * SECOND // 100 for n in range(1, 9_901)]
    assert bucket.booked == {}


def ring(number: int) -> Ring:
    return Ring(UUID(int=number), "test.it", "actions", 5, "", "")


def test_the_line_for_a_place_is_in_the_order_of_acceptance_without_those_that_went_or_came_already() -> None:
    room = Room(spec_of(plain, limits={"max_concurrency": 2}))
    for number in (5, 3, 1, 4, 2):
        room.wait(ring(number), until=10.0 if number == 3 else 20.0)
    room.enter(UUID(int=4), now=0.0)
    room.wait(ring(5), until=30.0)
    assert [room.next(now=15.0) for _ in range(4)] == [ring(1), ring(2), ring(5), None]


def test_a_room_has_places_until_the_first_limit_is_reached() -> None:
    room = Room(spec_of(plain, limits={"max_concurrency": 3, "fleet_concurrency": 2}))
    assert room.places == 2
    for number in range(3):  # the fleet knew of one more, when it could still be asked
        room.enter(UUID(int=number), now=0.0)
    assert room.places == 0
    assert room.leave(UUID(int=1), now=2.0) == 2.0
    assert room.leave(UUID(int=1), now=2.0) is None
    assert room.leave(UUID(int=2), now=2.0) == 2.0
    assert room.places == 1


def test_a_rate_alone_has_nobody_wait_for_a_place() -> None:
    assert Room(spec_of(plain, limits={"rate_limit": "1/s"})).places == 0
