"""The kinds of faults that a storm has: each with the lane it belongs to and how long it lasts. What each does is in
`faults/`, by the same name.

A lane does one fault at a time; lanes go on at the same time. So what would undo another fault's work, or make it mean
something else, is in the same lane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Lane = Literal[
    "workers", "worker", "producers", "api", "redis", "postgres", "redis link", "postgres link", "rings", "world"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fault.

    Attributes:
        what: In a sentence, for the report.
        lane: See the module.
        seconds: How long it lasts, from the shortest to the longest; what begins and is over at once has none.
        weight: How often it comes, against the others.
    """

    what: str
    lane: Lane
    seconds: tuple[float, float] = (0.0, 0.0)
    weight: float = 1.0


# A stop must outlast the workers' lease, and be over before what it held back could be taken for what never came.
STOP_SECONDS = (6.0, 8.0)

KINDS: Mapping[str, Kind] = {
    "kill_worker": Kind(what="SIGKILL of a worker that has jobs", lane="worker", weight=2),
    "kill_child": Kind(what="SIGKILL of a prefork worker's child that has jobs", lane="worker"),
    "kill_group": Kind(what="SIGKILL of a worker with its whole process group", lane="worker"),
    "stop_worker": Kind(what="SIGSTOP of a worker beyond its lease, then SIGCONT", lane="worker", seconds=STOP_SECONDS),
    "end_worker": Kind(what="SIGTERM of a worker that has jobs", lane="workers"),
    "hurry_worker": Kind(what="SIGQUIT of a worker that has jobs: it may not wait for them", lane="workers"),
    "end_all_workers": Kind(what="SIGTERM of all workers at once, again and again", lane="workers", weight=0.3),
    "rolling_restart": Kind(what="SIGTERM of all workers, one after the other", lane="workers", weight=0.3),
    "version_skew": Kind(what="a worker replaced by one of the other build", lane="workers"),
    "clock_jump": Kind(what="a worker's wall clock jumps by up to a day", lane="workers", seconds=(2.0, 5.0)),
    "kill_producer": Kind(what="SIGKILL of a producer", lane="producers"),
    "kill_mid_accept": Kind(what="SIGKILL of a producer once its accept is committed, not answered", lane="producers"),
    "kill_before_accept": Kind(what="SIGKILL of a producer as its accept is about to leave", lane="producers"),
    "kill_mid_ring": Kind(what="SIGKILL of a producer that has accepted and not rung", lane="producers"),
    "kill_between_rings": Kind(what="SIGKILL of a producer that has rung for some of a batch", lane="producers"),
    "stop_producer": Kind(what="SIGSTOP of a producer, then SIGCONT", lane="producers", seconds=(2.0, 5.0)),
    "kill_api": Kind(what="SIGKILL of the HTTP API", lane="api"),
    "kill_api_mid_accept": Kind(what="SIGKILL of the HTTP API once an accept is committed, not answered", lane="api"),
    "stop_api": Kind(what="SIGSTOP of the HTTP API, then SIGCONT", lane="api", seconds=(1.0, 4.0)),
    "redis_kill": Kind(what="SIGKILL of Redis, and a restart", lane="redis", seconds=(0.5, 3.0)),
    "redis_flush": Kind(what="FLUSHALL", lane="redis"),
    "redis_pause": Kind(what="CLIENT PAUSE ALL", lane="redis", seconds=(1.0, 4.0)),
    "redis_stop": Kind(what="SIGSTOP of Redis, then SIGCONT", lane="redis", seconds=(1.0, 5.0)),
    "redis_full": Kind(what="maxmemory below what is there: every write is refused", lane="redis", seconds=(1.0, 4.0)),
    "redis_old_dump": Kind(what="Redis killed and started from an older copy of its data", lane="redis"),
    "postgres_immediate": Kind(what="Postgres's immediate stop, recovery and start", lane="postgres"),
    "postgres_restart": Kind(what="Postgres's fast stop and start", lane="postgres"),
    "postgres_kill": Kind(what="SIGKILL of all of Postgres, recovery and start", lane="postgres"),
    "postgres_stop": Kind(what="SIGSTOP of all of Postgres, then SIGCONT", lane="postgres", seconds=(1.0, 4.0)),
    "postgres_terminate": Kind(what="pg_terminate_backend of half of the sessions", lane="postgres", weight=2),
    "postgres_slow": Kind(what="every statement that changes a job takes longer", lane="postgres", seconds=(2.0, 4.0)),
    "postgres_locks": Kind(what="somebody locks rows of jobs on their way", lane="postgres", seconds=(1.0, 3.0)),
    "postgres_table_lock": Kind(what="LOCK TABLE jobs", lane="postgres", seconds=(0.5, 3.0)),
    "postgres_deadlock": Kind(what="deadlocks of which the workers are the victims", lane="postgres"),
    "postgres_full": Kind(what="no connection is left, and some are lost", lane="postgres", seconds=(2.0, 4.0)),
    "postgres_disk": Kind(what="the disk of Postgres is full", lane="postgres", seconds=(1.0, 3.0)),
    "redis_link_reset": Kind(what="every connection to Redis is reset", lane="redis link"),
    "redis_link_hole": Kind(what="nothing comes through to Redis", lane="redis link", seconds=(1.0, 5.0)),
    "redis_link_half": Kind(what="half-open connections to Redis", lane="redis link", seconds=(2.0, 5.0)),
    "redis_link_slow": Kind(what="a slow link to Redis", lane="redis link", seconds=(2.0, 5.0)),
    "postgres_link_reset": Kind(what="every connection to Postgres is reset", lane="postgres link"),
    "postgres_link_hole": Kind(what="nothing comes through to Postgres", lane="postgres link", seconds=(1.0, 4.0)),
    "postgres_link_half": Kind(what="half-open connections to Postgres", lane="postgres link", seconds=(1.0, 4.0)),
    "postgres_link_slow": Kind(what="a slow link to Postgres", lane="postgres link", seconds=(2.0, 5.0)),
    "rings_twice": Kind(what="jobs on their way are rung five times each", lane="rings"),
    "rings_stale": Kind(what="jobs that ended long ago are rung", lane="rings"),
    "rings_reordered": Kind(what="jobs that are not due yet are rung, the last first", lane="rings"),
    "rings_garbage": Kind(what="what is no ring lies in the queue", lane="rings"),
    "world_dies": Kind(what="the effect server is killed mid-answer, and starts", lane="world", seconds=(0.5, 2.0)),
    "world_lossy": Kind(what="the effect server's answers get lost", lane="world", seconds=(2.0, 5.0)),
    "world_half": Kind(what="the effect server's answers break off", lane="world", seconds=(2.0, 5.0)),
    "world_slow": Kind(what="the effect server answers late", lane="world", seconds=(2.0, 5.0)),
    "world_refuses": Kind(what="the effect server refuses, or asks for patience", lane="world", seconds=(2.0, 5.0)),
}
