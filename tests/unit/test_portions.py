"""What many attempts bring along is written in transactions of bounded size."""

from __future__ import annotations

from uuid import UUID

from producer.conversation import Message
from producer.ledger.states import State
from worker.attempt import Settlement
from worker.settle_with import PORTION, portions

MEBIBYTE = "x" * (1 << 20)


def brings(count: int, content: str) -> Settlement:
    return Settlement(
        job_id=UUID(int=1),
        fence=1,
        attempt=1,
        was=State.RUNNING,
        becomes=State.SUCCEEDED,
        kind="succeeded",
        conversation=("default", "talk"),
        messages=(Message(role="user", content=content),) * count,
    )


def test_what_is_small_is_written_together_up_to_a_number() -> None:
    assert _lengths([brings(PORTION // 4, "hello")] * 9) == [4, 4, 1]


def test_what_is_large_is_written_in_fewer_at_a_time() -> None:
    assert _lengths([brings(6, MEBIBYTE)] * 5) == [2, 2, 1]


def test_what_is_larger_than_a_portion_is_one_by_itself() -> None:
    assert _lengths([brings(20, MEBIBYTE), brings(1, "hello")]) == [1, 1]


def _lengths(settlements: list[Settlement]) -> list[int]:
    return [len(portion) for portion in portions(settlements)]
