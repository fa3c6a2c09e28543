"""The HTTP API before a module's house, and a caller with a key; channels for alerts; and a user of Celery."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest
from celery import Celery

from producer import HttpProducer
from tests.acceptance import browsing
from tests.alert_channel import ChannelStandIn, channel
from tests.api_process import Api, api_of, bearer
from tests.houses import House


@pytest.fixture(scope="module")
def api(house: House) -> Iterator[Api]:
    with api_of(house.settings, house.folder) as made:
        yield made


@pytest.fixture(scope="module")
def client(api: Api, house: House) -> Iterator[httpx.Client]:
    """A service with a key for everything but what concerns every tenant."""
    _, key = house.producer.keys.create("service", ["enqueue", "read", "operate"], who="tests", rate_per_second=10_000)
    with httpx.Client(base_url=api.url, headers=bearer(key), timeout=30) as made:
        yield made


@pytest.fixture
def later(client: httpx.Client) -> str:
    """The id of a job that is not due for long."""
    return browsing.later(client)


@pytest.fixture(scope="module")
def reader(api: Api, house: House) -> Iterator[httpx.Client]:
    """Somebody in the console who may look."""
    with browsing.signed_in(api, house, "read") as browser:
        yield browser


@pytest.fixture(scope="module")
def operator(api: Api, house: House) -> Iterator[httpx.Client]:
    """Somebody in the console who may act."""
    with browsing.signed_in(api, house, "read", "operate") as browser:
        yield browser


@pytest.fixture(scope="module")
def admin(api: Api, house: House) -> Iterator[httpx.Client]:
    """Somebody in the console who may do everything."""
    with browsing.signed_in(api, house, "admin") as browser:
        yield browser


@pytest.fixture(scope="module")
def remote(api: Api, house: House) -> Iterator[HttpProducer]:
    _, key = house.producer.keys.create("service", ["enqueue", "read", "operate"], who="tests", rate_per_second=10_000)
    made = HttpProducer(api.url, key=key)
    yield made
    made.close()


@pytest.fixture
def told() -> Iterator[ChannelStandIn]:
    with channel() as stand_in:
        yield stand_in


@pytest.fixture
def other() -> Iterator[ChannelStandIn]:
    with channel() as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def app(house: House) -> Iterator[Celery]:
    """A Celery app as a user of Celery would configure it, reading from the ledger."""
    before = dict(os.environ)
    os.environ |= {"SUREFOOT_DATABASE_URL": house.settings.database_url, "SUREFOOT_REDIS_URL": house.settings.redis_url}
    made = Celery(
        "reader", broker=house.settings.redis_url, backend="worker.backend:LedgerBackend", set_as_current=False
    )
    assert made.backend is not None
    yield made
    made.close()
    os.environ.clear()
    os.environ.update(before)
