"""One storm from its first process to its last: calm, faults under load, the drain, the end, and the evidence of it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from producer import Producer, Settings
from producer.ledger.states import LEASED, RINGABLE, in_sql
from tests.chaos.evidence import ScheduleFacts
from tests.chaos.patience import NotReached, until
from tests.chaos.storm import schedule
from tests.chaos.storm.asks_world import RUN
from tests.chaos.storm.desk import Desk
from tests.chaos.storm.faults import FAULTS
from tests.chaos.storm.faults.redis import keep_copy
from tests.chaos.storm.figures import Phases
from tests.chaos.storm.gather import baseline_of, gather
from tests.chaos.storm.mend import bring_back, mend
from tests.chaos.storm.notes import Strike
from tests.chaos.storm.sampler import Sampler
from tests.chaos.storm.schedule import Planned
from tests.chaos.storm.sizes import Size
from tests.chaos.storm.stage import CALM, Stage, staged
from worker.limits_in_redis import KEYS, keys_of

START_SECONDS = 60.0
WARM_UP_SECONDS = 2.0
DRAIN_SECONDS = 150.0
REST_SECONDS = 1.0
END_SECONDS = 40.0
# What comes again begins no later than so long before the load may end.
AGAIN_BEFORE_SECONDS = 30.0
# What is lost where nothing is broken: a little, but of what can be repeated or looked up.
WEATHER: Mapping[str, Any] = {**CALM, "lossy": 0.002, "half": 0.001, "spared": ["unsafe"]}
# Every so many seconds a tick; each that was missed is made up for.
SCHEDULES: Mapping[str, int] = {"beat": 2, "slow-beat": 7}
# As the ledger's indexes have it: it is asked again and again while what is left is worked off.
UNREST = f"""
SELECT EXISTS (SELECT FROM jobs WHERE state IN ({in_sql(LEASED)}))
  OR EXISTS (SELECT FROM jobs WHERE state IN ({in_sql(RINGABLE)}))
  OR EXISTS (SELECT FROM jobs WHERE looks_left > 0) AS found
"""
# Who stands in line for a place, of whom some may be over, and are rung for all the same.
LINES = keys_of("*")[KEYS.index("line")]


@dataclass(slots=True)
class Raged:
    """What a storm came to, beside its folder.

    Attributes:
        stuck: Workers that did not end when they were told to.
    """

    phases: Phases
    stuck: int


@dataclass(slots=True)
class Storm:
    """A storm about to rage.

    Attributes:
        home: Where all of it lies while it rages; the evidence in the folder `RUN` of it.
        quotas: How many of each kind must bite.
        thorough: Whether every invariant must have something to judge.
        say: Told each step, in a sentence.
        over: Whether no further fault may begin.
    """

    home: Path
    size: Size
    seed: int
    planned: Sequence[Planned]
    quotas: Mapping[str, int]
    thorough: bool
    say: Callable[[str], None]
    schedules: list[ScheduleFacts] = field(default_factory=list)
    over: bool = False
    _numbers: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        """Number what comes again after all that is planned."""
        self._numbers = count(len(self.planned) + 1)

    def rage(self) -> Raged:
        """Have it; all processes have ended when this returns, and the folder is complete."""
        began = time.time()
        with staged(self.home, self.size, seed=self.seed) as stage:
            baseline = baseline_of(stage)
            sampler = Sampler(stage)
            self._begin(stage)
            sampler.start()
            desk = Desk(stage)
            desk.start()
            phases = self._phases(stage, sampler)
            desk.stop()
            stuck = self._end(stage)
            sampler.stop()
            self.say("gathering the evidence")
            gather(
                stage,
                began=began,
                baseline=baseline,
                quotas=self.quotas,
                schedules=self.schedules,
                thorough=self.thorough,
            )
            _keep_logs(stage)
            return Raged(phases, stuck)

    def _begin(self, stage: Stage) -> None:
        """Start the workers and the API, then what asks them."""
        stage.crew.start()
        for place in stage.crew.serving:
            member = place.member
            assert member is not None
            begun = "worker.started" if place.role == "worker" else "api.listening"
            until(lambda member=member, begun=begun: member.said(begun), seconds=START_SECONDS, what=member.name)  # type: ignore[misc]
        with _producer(stage) as producer:
            for name, every in SCHEDULES.items():
                record = producer.schedules.add(name, "storm.tick", {"name": name}, every=every, missed="all")
                since = record.next_tick.timestamp() - every
                facts = ScheduleFacts(name=name, action="storm.tick", every=every, since=since, until=since)
                self.schedules.append(facts)
        stage.crew.begin_load()
        self.say(f"{len(stage.crew.places)} processes work; calm for {self.size.calm_seconds:g} s")

    def _phases(self, stage: Stage, sampler: Sampler) -> Phases:
        time.sleep(WARM_UP_SECONDS)
        calm_began = time.time()
        time.sleep(self.size.calm_seconds)
        storm_began = time.time()
        stage.crew.have_peace(schedule.lasts(self.planned))
        stage.weather = WEATHER
        stage.blow()
        keep_copy(stage)
        self._strike_all(stage, storm_began)
        last_fault = stage.notes.last_end or time.time()
        mend(stage)
        load_ended = self._end_load(stage, sampler, storm_began)
        rest = self._drain(stage)
        return Phases(
            calm_began=calm_began, storm_began=storm_began, last_fault=last_fault, rest=rest, load_ended=load_ended
        )

    def _strike_all(self, stage: Stage, began: float) -> None:
        """Have every lane's faults, each lane in a thread of its own."""
        lanes: dict[str, list[Planned]] = defaultdict(list)
        for planned in self.planned:
            lanes[planned.lane].append(planned)
        threads = [
            threading.Thread(target=self._strike_lane, args=(stage, began, planned), name=lane, daemon=True)
            for lane, planned in lanes.items()
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            self.over = True

    def _strike_lane(self, stage: Stage, began: float, lane: Sequence[Planned]) -> None:
        """Have a lane's faults, and then again those kinds that were felt too seldom."""
        felt = Counter({planned.kind: 0 for planned in lane})
        for planned in lane:
            time.sleep(max(0.0, began + planned.at - time.time()))
            if self.over:
                return
            felt[planned.kind] += self._strike(stage, began, planned)
        latest = began + self.size.minutes * 60 - AGAIN_BEFORE_SECONDS
        for kind in felt:
            comes = schedule.again(lane, kind, self._numbers)
            while felt[kind] < self.quotas.get(kind, 0) and (again := next(comes, None)):
                time.sleep(schedule.GAP_SECONDS)
                if self.over or time.time() > latest:
                    return
                felt[kind] += self._strike(stage, began, again)

    def _strike(self, stage: Stage, began: float, planned: Planned) -> bool:
        """Have a fault; return whether somebody felt it."""
        strike = Strike(planned, stage.notes)
        bit: bool | None = False
        try:
            bit = FAULTS[planned.kind](stage, strike)
        except Exception as error:  # noqa: BLE001  one that goes wrong must not spare the others
            stage.odd(f"fault {planned.number}, {planned.kind}: {error!r}")
            bring_back(stage, planned.lane)
        strike.over(bit=bit)
        felt = {True: "bit", False: "was not felt", None: "cannot be judged"}[bit]
        self.say(f"{time.time() - began:6.1f} s  {planned.number:4}  {planned.kind:20} {strike.target}: {felt}")
        return bit is True

    def _end_load(self, stage: Stage, sampler: Sampler, began: float) -> float:
        """Have producers go on until enough is accepted, then end; return when they were told."""
        latest = began + self.size.minutes * 60
        while sampler.accepted < self.size.jobs and time.time() < latest:
            time.sleep(0.2)
        ended = time.time()
        stage.crew.end_load()
        with _producer(stage) as producer:
            self.schedules = [_ended(producer, facts) for facts in self.schedules]
        self.say(f"{sampler.accepted} jobs accepted; draining")
        return ended

    def _drain(self, stage: Stage) -> float | None:
        try:
            until(lambda: _stays_at_rest(stage), seconds=DRAIN_SECONDS, what="rest")
        except NotReached as error:
            stage.odd(f"the drain: {error}; {stage.ask('SELECT state, count(*) FROM jobs GROUP BY 1')}")
            return None
        return time.time()

    def _end(self, stage: Stage) -> int:
        """Tell all that serve to end; return how many have not by then, and were killed."""
        stage.crew.hold()
        members = [place.member for place in stage.crew.serving if place.member is not None and place.lives]
        for member in members:
            member.process.send_signal(signal.SIGTERM)
        latest, stuck = time.monotonic() + END_SECONDS, 0
        for member in members:
            try:
                member.process.wait(max(0.1, latest - time.monotonic()))
            except subprocess.TimeoutExpired:
                stuck += 1
                stage.odd(f"{member.name} has not ended within {END_SECONDS:g} s")
                member.end()
        (stage.folder / "ends.json").write_text(json.dumps(stage.crew.ends, indent=1) + "\n")
        return stuck


class _producer:  # noqa: N801  a context manager that reads as what it gives
    """A producer of the harness's own, past every link, for a block."""

    def __init__(self, stage: Stage) -> None:
        settings = Settings(database_url=stage.postgres.url, redis_url=stage.valkey.url, tenant=RUN)
        self._producer = Producer(settings)

    def __enter__(self) -> Producer:
        return self._producer

    def __exit__(self, *_: object) -> None:
        self._producer.close()


def _ended(producer: Producer, facts: ScheduleFacts) -> ScheduleFacts:
    """Remove a schedule once it has caught up; return until when its ticks must be there."""

    def next_tick() -> float:
        found = producer.schedules.get(facts.name).next_tick.timestamp()
        return found if found > time.time() else 0.0

    with suppress(NotReached):  # then its ticks are lost, and the checker says so
        until(next_tick, seconds=DRAIN_SECONDS / 2, what="the schedule's next tick")
    removed = producer.schedules.remove(facts.name).next_tick.timestamp()
    return ScheduleFacts(
        name=facts.name, action=facts.action, every=facts.every, since=facts.since, until=removed - facts.every
    )


def _stays_at_rest(stage: Stage) -> bool:
    """Whether it is at rest at two looks, a while apart: a ring may be on its way, and looking costs connections."""
    was = is_at_rest(stage)
    time.sleep(REST_SECONDS)
    return was and is_at_rest(stage)


def is_at_rest(stage: Stage) -> bool:
    """Whether no job is open or looked up, no request under way, no ring in a queue, and nobody in line for a place."""
    if stage.ask(UNREST)[0]["found"] or stage.world.open_requests(RUN):
        return False
    with stage.redis() as client:
        in_line = any(True for _ in client.scan_iter(LINES))
        return not in_line and not any(client.llen(key) for key in client.scan_iter("actions*", _type="list"))


def _keep_logs(stage: Stage) -> None:
    """Keep the servers' logs beside the crew's."""
    for server in (stage.postgres, stage.valkey):
        target = stage.folder / "logs" / f"{server.title.lower()}.log"
        target.write_bytes(server.log_path.read_bytes())
