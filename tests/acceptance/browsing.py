"""Using the console as a browser does, without one: cookies, forms, and what comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from producer.ledger.keys import Scope
from tests.acceptance.asking import ADD, enqueue
from tests.api_process import Api
from tests.houses import House

COOKIE = "surefoot_console"


def browser_of(api: Api) -> httpx.Client:
    """A browser of somebody who is not in yet; its forms come from its own pages."""
    return httpx.Client(base_url=api.url, timeout=30, headers={"Sec-Fetch-Site": "same-origin"})


@contextmanager
def signed_in(api: Api, house: House, *scopes: Scope, name: str = "ada") -> Iterator[httpx.Client]:
    """A browser whose user has shown a key."""
    _, key = house.producer.keys.create(name, scopes, who="tests", rate_per_second=10_000)
    with browser_of(api) as browser:
        answer = browser.post("/console/sign-in", data={"key": key})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console")
        yield browser


def form_token(page: httpx.Response) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page.text)
    assert found is not None, page.text[-2_000:]
    return found[1]


def submit(browser: httpx.Client, page: str, action: str, **fields: str) -> httpx.Response:
    """Send a form of a page, as a browser does."""
    token = form_token(browser.get(page))
    return browser.post(action, data=fields | {"form_token": token}, follow_redirects=True)


def said(client: httpx.Client, **fields: Any) -> str:
    """The id of a job with these fields, which has ended."""
    job: str = enqueue(client, ADD | fields, wait=30).json()["job"]["id"]
    return job


def later(client: httpx.Client) -> str:
    """The id of a job that is not due for long."""
    job: str = enqueue(client, ADD | {"run_at": "2099-01-01T00:00:00Z"}).json()["job"]["id"]
    return job
