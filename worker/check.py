"""``surefoot-worker check``: is what this worker stands on what it needs? Errors stop it; warnings will surprise."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from redis.exceptions import RedisError
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from producer.broker import is_redis, redis_client
from producer.errors import SettingsError
from producer.ledger.engine import open_engine
from producer.ledger.policies import policies_in_force
from producer.ledger.revision import REVISION, is_newer, revision_of
from producer.redact import redact_text
from tasks import declared_rules, declared_schedules, load
from tasks._rules import rules_for
from worker import breakers, limits, policies, published
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
    yield from _hosts()
    actions = load(settings.action_modules)
    yield Finding("ok", f"{len(actions)} actions: {', '.join(sorted(actions))}")
    if schedules := declared_schedules():
        yield Finding("ok", f"{len(schedules)} schedules: {', '.join(sorted(schedules))}")
    if rules := declared_rules():
        yield Finding("ok", f"{len(rules)} policies: {', '.join(rules)}")
    yield from (Finding("warning", doubt) for doubt in policies.doubts(actions, rules.values()))
    yield from (Finding("warning", warning) for warning in settings.warnings())
    for each in (limits, breakers):
        yield from (Finding("warning", doubt) for doubt in each.doubts(settings.redis_url, actions))
    yield from _postgres(settings, actions)
    yield from _broker(settings)


def _hosts() -> Iterator[Finding]:
    from tasks._hosts import http_hosts  # noqa: PLC0415  httpx, which no other command needs

    try:
        names = http_hosts().names
    except SettingsError as error:
        yield Finding("error", str(error))
        return
    if names:
        yield Finding("ok", f"http.request may call {', '.join(names)}")


def _postgres(settings: WorkerSettings, actions: Collection[str]) -> Iterator[Finding]:
    engine = open_engine(settings.database_url, connections=1, name="surefoot-check")
    try:
        with engine.connect() as connection:
            yield Finding("ok", f"Postgres {connection.exec_driver_sql('SHOW server_version').scalar()}")
            yield from _durability(connection)
        schema = _schema(revision_of(engine))
        yield schema
        if schema.level == "ok":
            with engine.connect() as connection:
                rules = {action: rules_for(action) for action in actions}
                lacking = published.doubts(actions, rules, policies_in_force(connection))
            yield from (Finding("warning", doubt) for doubt in lacking)
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
    if is_newer(revision):
        return Finding("ok", f"schema {revision}, newer than this version's {REVISION}, which goes on over it")
    return Finding("error", f"the schema is {revision or 'not there'}, this one needs {REVISION}: run surefoot migrate")


def _broker(settings: WorkerSettings) -> Iterator[Finding]:
    if not is_redis(settings.redis_url):
        return
    timeouts = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
    with redis_client(settings.redis_url, **timeouts) as client:
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
