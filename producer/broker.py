"""The broker by its URL: Redis, Redis behind Sentinels, or RabbitMQ; and how each is spoken to.

    redis://:password@host:6379/0
    sentinel://:password@one:26379,two:26379,three:26379/0?master=surefoot&sentinel_password=…
    amqp://user:password@host:5672//

Importing this loads neither Redis's client nor Celery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from producer.errors import SettingsError

if TYPE_CHECKING:
    import redis
    import redis.asyncio

REDIS = ("redis://", "rediss://")
SENTINEL = "sentinel://"
AMQP = ("amqp://", "amqps://")
SENTINEL_PORT = 26379
TIMEOUT_SECONDS = 0.25


def is_redis(url: str) -> bool:
    """Whether the broker at `url` can be spoken to as Redis, and not only through kombu."""
    return url.startswith((*REDIS, SENTINEL))


def is_rabbitmq(url: str) -> bool:
    """Whether it is RabbitMQ."""
    return url.startswith(AMQP)


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows where the Redis is that takes writes.

    Attributes:
        hosts: With their ports, in the order in which they are asked.
        master: What they call it.
        username: Of Redis itself; None where it knows one user.
        password: As well; None where it asks for none.
        database: Its number.
        sentinel_password: Their own; None where they ask for none.
    """

    hosts: tuple[tuple[str, int], ...]
    master: str
    username: str | None
    password: str | None
    database: int
    sentinel_password: str | None


def sentinels_of(url: str) -> Sentinels:
    """Read a URL of Sentinels.

    Raises:
        SettingsError: If it cannot be one; the message shows nothing of it but what is missing.
    """
    parts = urlsplit(url)
    credentials, _, places = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    query = parse_qs(parts.query)
    hosts = tuple(_host(place) for place in places.split(",") if place)
    if not hosts:
        raise SettingsError("the URL of the broker names no Sentinel: sentinel://one:26379,two:26379/0?master=NAME")
    if not query.get("master"):
        raise SettingsError("the URL of the broker does not say which master: sentinel://…/0?master=NAME")
    database = parts.path.strip("/") or "0"
    if not database.isdecimal():
        raise SettingsError("the URL of the broker names a database that is no number: sentinel://…/0?master=NAME")
    return Sentinels(
        hosts,
        query["master"][0],
        unquote(username) or None,
        unquote(password) or None,
        int(database),
        query.get("sentinel_password", [None])[0],
    )


def celery_url(url: str) -> str:
    """Return the URL as Celery has it, which names each Sentinel by one of its own."""
    if not url.startswith(SENTINEL):
        return url
    told = sentinels_of(url)
    credentials = ""
    if told.username or told.password:
        credentials = f"{quote(told.username or '', safe='')}:{quote(told.password or '', safe='')}@"
    return ";".join(f"{SENTINEL}{credentials}{host}:{port}/{told.database}" for host, port in told.hosts)


def transport_options(url: str, timeout: float) -> dict[str, Any]:
    """Return kombu's options under which no publish can hang: its own default waits for ever."""
    if is_rabbitmq(url):
        return {"connect_timeout": timeout, "write_timeout": timeout, "max_retries": 0}
    options: dict[str, Any] = {
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_retries": 0,
    }
    if url.startswith(SENTINEL):
        told = sentinels_of(url)
        options["master_name"] = told.master
        options["sentinel_kwargs"] = _sentinel_options(told, timeout)
    return options


def queue_type(url: str) -> str:
    """Return the type of queue that rings wait in; RabbitMQ's quorum queues outlive any one of its nodes."""
    return "quorum" if is_rabbitmq(url) else "classic"


def load_redis() -> None:
    """Import what speaks to Redis: late, since it takes a while and a producer that only looks does without."""
    import redis  # noqa: F401, PLC0415  see above


def bounded_redis() -> dict[str, Any]:
    """Return redis-py's options under which no command can hang: its own default retries for eight seconds."""
    from redis.backoff import NoBackoff  # noqa: PLC0415  see load_redis
    from redis.retry import Retry  # noqa: PLC0415  as above

    return {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }


def redis_client(url: str, **options: Any) -> redis.Redis:
    """Return a client for Redis, or, behind Sentinels, for whichever takes writes when it connects."""
    import redis  # noqa: PLC0415  see load_redis

    if not url.startswith(SENTINEL):
        return redis.Redis.from_url(url, **options)
    client = redis.Redis(connection_pool=redis_pool(url, **options))
    client.auto_close_connection_pool = True  # as one from a URL does
    return client


def redis_pool(url: str, **options: Any) -> redis.ConnectionPool:
    """Return connections to the same; whoever makes one of them by itself has to keep the pool for as long."""
    import redis  # noqa: PLC0415  see load_redis
    from redis.sentinel import Sentinel, SentinelConnectionPool  # noqa: PLC0415  as above

    if not url.startswith(SENTINEL):
        return redis.ConnectionPool.from_url(url, **options)
    told = sentinels_of(url)
    make: Any = SentinelConnectionPool  # redis-py's types leave both out
    find: Any = Sentinel
    finder = find(list(told.hosts), sentinel_kwargs=_sentinel_options(told, _timeout(options)))
    return make(told.master, finder, **_of_redis(told), **options)  # type: ignore[no-any-return]


def async_redis_pool(url: str, **options: Any) -> redis.asyncio.ConnectionPool:
    """Return the same for asyncio."""
    import redis.asyncio  # noqa: PLC0415  see load_redis
    from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool  # noqa: PLC0415  as above

    if not url.startswith(SENTINEL):
        return redis.asyncio.ConnectionPool.from_url(url, **options)
    told = sentinels_of(url)
    make: Any = SentinelConnectionPool  # redis-py's types leave both out
    find: Any = Sentinel
    finder = find(list(told.hosts), sentinel_kwargs=_sentinel_options(told, _timeout(options)))
    return make(told.master, finder, **_of_redis(told), **options)  # type: ignore[no-any-return]


def _host(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":") if ":" in place else (place, "", str(SENTINEL_PORT))
    if not port.isdecimal():
        raise SettingsError("the URL of the broker names a Sentinel whose port is no number")
    return host, int(port)


def _of_redis(told: Sentinels) -> dict[str, Any]:
    credentials = {"username": told.username, "password": told.password}
    return {"db": told.database} | {name: word for name, word in credentials.items() if word is not None}


def _sentinel_options(told: Sentinels, timeout: float) -> dict[str, Any]:
    # One that does not answer must not keep the next from being asked.
    options: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    return options | ({} if told.sentinel_password is None else {"password": told.sentinel_password})


def _timeout(options: dict[str, Any]) -> float:
    return float(options.get("socket_connect_timeout") or TIMEOUT_SECONDS)
