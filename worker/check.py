"""``surefoot-worker check``: is what this worker stands on what it needs? Errors stop it; warnings will surprise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import redis
from redis.exceptions import RedisError
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from producer.ledger.engine import open_engine
from producer.ledger.revision import REVISION, revision_of
from producer.redact import redact_text
from tasks import declared_schedules, load
from worker.limits import doubts
from worker.settings import WorkerSettings

REDIS_SECONDS = 3.0
# What each Postgres setting must be for a commit to mean that it will still be there tomorrow.
DURABLE = {
    "fsync": "a crash of the machine can destroy the whole database",
    "synchronous_commit": "an accept that was answered can be lost in a crash",
    "full_page_writes": "a crash in the middle of a page write can destroy data",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what was found, and what to do about it where it is not well."""

    level: Literal["ok", "warning", "error"]
    what: str


def findings(settings: WorkerSettings) -> Iterator[Finding]:
    """Look at the settings, the actions, Postgres and Redis, in that order; connects, and changes nothing."""
    yield from (Finding("error", error) for error in settings.errors())
    actions = load(settings.action_modules)
    yield Finding("ok", f"{len(actions)} actions: {', '.join(sorted(actions))}")
    if schedules := declared_schedules():
        yield Finding("ok", f"{len(schedules)} schedules: {', '.join(sorted(schedules))}")
    yield from (Finding("warning", warning) for warning in settings.warnings())
    yield from (Finding("warning", doubt) for doubt in doubts(settings.redis_url, actions))
    yield from _postgres(settings)
    yield from _broker(settings)


def _postgres(settings: WorkerSettings) -> Iterator[Finding]:
    engine = open_engine(settings.database_url, connections=1, name="surefoot-check")
    try:
        with engine.connect() as connection:
            yield Finding("ok", f"Postgres {connection.exec_driver_sql('SHOW server_version').scalar()}")
            yield from _durability(connection)
        yield _schema(revision_of(engine))
    except SQLAlchemyError as error:
        yield Finding("error", f"Postgres cannot be reached: {redact_text(str(error.__cause__ or error)).strip()}")
    finally:
        engine.dispose()


def _durability(connection: Connection) -> Iterator[Finding]:
    for name, danger in DURABLE.items():
        value = connection.exec_driver_sql(f"SHOW {name}").scalar()
        if value == "off":
            yield Finding("warning", f"Postgres has {name}=off: {danger}. Set {name}=on")
        else:
            yield Finding("ok", f"Postgres has {name}={value}")


def _schema(revision: str | None) -> Finding:
    if revision == REVISION:
        return Finding("ok", f"schema {revision}")
    return Finding("error", f"the schema is {revision or 'not there'}, this one needs {REVISION}: run surefoot migrate")


def _broker(settings: WorkerSettings) -> Iterator[Finding]:
    if not settings.redis_url.startswith(("redis://", "rediss://")):
        return
    timeouts = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
    with redis.Redis.from_url(settings.redis_url, **timeouts) as client:
        try:
            info = dict(client.info())
        except RedisError as error:
            yield Finding("error", f"Redis cannot be reached: {redact_text(str(error))}")
            return
    yield Finding("ok", f"{info.get('server_name', 'redis')} {info.get('valkey_version', info.get('redis_version'))}")
    policy = info.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        yield Finding("ok", "Redis has maxmemory-policy noeviction")
    else:
        yield Finding(
            "warning",
            f"Redis has maxmemory-policy {policy}: under memory pressure it drops rings and Celery's bindings."
            " The relay repairs that late; set noeviction",
        )
    if info.get("aof_enabled"):
        yield Finding("ok", "Redis has appendonly on")
    else:
        yield Finding("warning", "Redis has appendonly off: a restart loses rings until the relay rings anew. Set yes")
