"""Who tells what, with a real Redis between two tellers, whatever one of them dies of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from producer.breaker_words import Transition
from producer.ledger.states import State
from tests.alert_channel import ChannelStandIn, channel
from tests.houses import until
from worker import alert_memory, alert_teller
from worker.alert_channels import Channel, addresses
from worker.alert_looks import Look
from worker.alert_memory import Memory
from worker.alert_teller import Teller
from worker.alert_words import Alert, Troubled

NOW = datetime(2026, 11, 26, 3, 12, 8, tzinfo=UTC)
GROUP = 60.0


@pytest.fixture
def told() -> Iterator[ChannelStandIn]:
    with channel() as stand_in:
        yield stand_in


class Told:
    """A teller with one channel to the stand-in."""

    def __init__(self, redis_url: str, who: str, stand_in: ChannelStandIn, *, group: float = GROUP) -> None:
        self.done: list[Alert] = []
        self.memory = Memory(redis_url, who=who, turn_seconds=30)
        self.channel = Channel(addresses([f"info={stand_in.url}"])[0], done=self.done.append)
        self.teller = Teller(
            self.memory,
            [self.channel],
            group_seconds=group,
            hourly=100,
            redis_seconds=1,
            is_worker=False,
        )

    def tell(self, *jobs: Troubled, at: datetime = NOW, late_since: datetime | None = None) -> None:
        late = 0 if late_since is None else 3
        self.teller.tell(Look(at=at, jobs=jobs, moves=(), late=late, late_since=late_since, unseen_since=None))


def job(*, at: datetime = NOW, action: str = "pay", job_id: UUID | None = None) -> Troubled:
    return Troubled(
        id=job_id or uuid4(),
        tenant="default",
        action=action,
        state=State.DEAD,
        round=1,
        at=at,
        why="out of retries",
        error_type=None,
    )


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_what_befalls_jobs_of_one_action_within_the_window_is_one_alert_and_another_action_another(
    redis_url: str, told: ChannelStandIn
) -> None:
    one = Told(redis_url, "one", told)
    one.tell(job(), job(action="ship"))
    one.tell(*(job(at=later(seconds)) for seconds in range(1, 20)), at=later(30))
    one.tell(at=later(59))
    assert not one.memory.more()
    one.tell(at=later(60))
    until(lambda: len(told.taken) == 2)
    assert sorted(told.titles()) == ["1 job of ship is dead", "20 jobs of pay are dead"]


def test_the_same_job_seen_again_and_by_others_is_told_once(redis_url: str, told: ChannelStandIn) -> None:
    one, other = Told(redis_url, "one", told, group=0.0), Told(redis_url, "other", told, group=0.0)
    seen = job()
    one.tell(seen)
    until(lambda: one.done)
    one.teller.kept(one.done)
    other.tell(seen)
    one.tell(seen)
    other.tell(job(action="ship"))  # told after it
    until(lambda: len(told.taken) == 2)
    assert told.titles() == ["1 job of pay is dead", "1 job of ship is dead"]


def test_what_a_teller_claimed_that_died_before_a_channel_took_it_is_told_by_another_once_the_claim_is_over(
    redis_url: str, told: ChannelStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (alert_memory, alert_teller):
        monkeypatch.setattr(module, "CLAIM_SECONDS", 1)
    lives = Told(redis_url, "lives", told, group=0.0)
    seen = job()
    with channel() as never:
        never.goes = "hangs"
        Told(redis_url, "dies", never, group=0.0).tell(seen, late_since=NOW)
        until(lambda: never.asked)
    lives.tell(seen, late_since=NOW)

    def both() -> bool:
        lives.teller.kept(lives.done)
        lives.tell(late_since=NOW)
        return len(told.taken) == 2

    until(both)
    assert sorted(told.titles()) == ["1 job of pay is dead", "jobs are late, the oldest by 0 s"]


def test_a_teller_that_ends_leaves_what_no_channel_took_to_others_at_once(redis_url: str, told: ChannelStandIn) -> None:
    told.goes = "refused"
    ends, lives = Told(redis_url, "ends", told, group=0.0), Told(redis_url, "lives", told, group=0.0)
    seen = job()
    ends.tell(seen)
    until(lambda: told.asked)
    ends.channel.close()
    ends.channel.join(10)
    ends.teller.leave(ends.done)
    told.goes = "taken"
    lives.tell(seen)
    until(lambda: told.taken)
    assert told.titles() == ["1 job of pay is dead"]


def test_what_comes_and_goes_is_told_to_be_over_only_once_it_stays_away(redis_url: str, told: ChannelStandIn) -> None:
    one = Told(redis_url, "one", told)
    one.tell(late_since=NOW)
    one.tell(at=later(1))
    one.tell(at=later(50), late_since=later(2))  # as before: nothing new
    one.tell(at=later(70))
    one.tell(at=later(129))
    one.tell(at=later(130))
    until(lambda: len(told.taken) == 2)
    assert told.titles() == ["jobs are late, the oldest by 0 s", "no job is late any more"]
    assert "since 2026-11-26 03:12:08 UTC, for 2 min" in told.taken[1]["message"]


def test_a_group_is_not_waited_for_where_too_much_is_gathered(
    redis_url: str, told: ChannelStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_teller, "HELD", 10)
    Told(redis_url, "one", told).tell(*(job() for _ in range(11)))
    until(lambda: told.taken)
    assert told.titles() == ["11 jobs of pay are dead"]


def test_a_transition_that_two_see_is_told_once(redis_url: str, told: ChannelStandIn) -> None:
    move = Transition(name="llm", epoch=1_795_662_728_000, was="closed", becomes="open", reason="why", who="w")
    look = Look(at=NOW, jobs=(), moves=(move,), late=0, late_since=None, unseen_since=None)
    for teller in (Told(redis_url, "one", told), Told(redis_url, "other", told)):
        teller.teller.tell(look)
        teller.teller.tell(look)
        teller.channel.close()
        teller.channel.join(10)
    assert told.titles() == ["breaker llm is open"]


def test_what_another_has_said_to_be_over_is_not_told_anew_by_who_has_not_looked_since(
    redis_url: str, told: ChannelStandIn
) -> None:
    one, other = Told(redis_url, "one", told, group=0.0), Told(redis_url, "other", told, group=0.0)
    for each in (one, other):
        each.teller.ledger_since = NOW
        each.teller.tend(later(2), mine=True)
    one.teller.ledger_since, one.teller.ledger_answered = None, later(5)
    one.teller.tend(later(5), mine=True)
    other.teller.tend(later(5.1), mine=False)
    other.teller.ledger_since, other.teller.ledger_answered = None, later(6)
    other.teller.tend(later(6), mine=False)
    one.tell(job(action="ship"))  # told after it
    until(lambda: "1 job of ship is dead" in told.titles())
    assert len(told.taken) == 3
