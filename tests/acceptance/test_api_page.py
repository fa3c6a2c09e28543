"""docs/api.md says what is, its lines of curl work, and nothing takes more than curl."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from producer import State
from producer.keys import SCOPES
from tests.acceptance.asking import set_state
from tests.acceptance.browsing import later
from tests.api_process import Api, api_of, bearer
from tests.houses import ROOT, House, until
from tests.unit.markdown import tables

PAGE = (ROOT / "docs" / "api.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
ROUTES = {row["path"]: row["scope"] for row in tables("api.md")[0]}
SIGNING = {"SUREFOOT_SIGNING_KEY": "a key for the tests, and long enough"}
# What anybody may see.
OPEN = {path for path, scope in ROUTES.items() if scope == "none"}


@pytest.fixture(scope="module")
def api(house: House) -> Iterator[Api]:
    with api_of(house.settings, house.folder, SIGNING) as made:
        yield made


class Reader:
    """Somebody who has only curl: types one line after the other, and puts in what answers before had."""

    def __init__(self, api: Api, house: House, client: httpx.Client, home: Path) -> None:
        (home / ".curlrc").write_text("fail-with-body\n")  # an error is an exit status
        _, key = house.producer.keys.create("ben", ["enqueue", "read", "operate", "approve"], who="tests")
        _, admin = house.producer.keys.create("ops", ["admin"], who="tests")
        self._house, self._client, self._book = house, client, str(home / "book")
        self._environment = {**os.environ, "CURL_HOME": str(home), "API": api.url, "KEY": key, "ADMIN": admin}
        self._found: dict[str, str] = {}

    def types(self, line: str) -> str:
        """What a line's answer is."""
        missing = [name for name in re.findall(r"\$([A-Z_]+)", line) if name not in self._environment | self._found]
        for name in missing:
            self._find(name, line)
        done = subprocess.run(
            ["bash", "-c", line],
            env=self._environment | self._found,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[:1_000]}{done.stderr[:1_000]}"
        self._keep(line, done.stdout)
        return done.stdout

    def _keep(self, line: str, answer: str) -> None:
        if "JOB" not in self._found:
            self._found["JOB"] = json.loads(answer)["job"]["id"]
        if '"billing"' in line:
            self._found["KEY_ID"] = json.loads(answer)["record"]["id"]
        if "APPROVAL" in line and "--json" in line:  # that one is decided
            del self._found["APPROVAL"], self._found["DIGEST"]

    def _find(self, name: str, line: str) -> None:
        """Have what a line is for: others would have had it happen to them."""
        ways: dict[str, Callable[[], str]] = {
            "DEAD": lambda: self._standing("dead"),
            "IN_DOUBT": lambda: self._standing("in_doubt"),
            "DONE": self._noted,
            "AHEAD": lambda: self._payment(run_at="2099-01-01T00:00:00Z"),
        }
        if name in ways:
            self._found[name] = ways[name]()
        if name == "APPROVAL":
            self._ask_people()
        if name == "AHEAD":
            self._found["DIGEST"] = self._client.get(f"/v1/jobs/{self._found[name]}/digest").json()["digest"]
        assert name in self._found, f"{line}: nothing says what {name} is"

    def _standing(self, state: str) -> str:
        job = later(self._client)
        set_state(self._house, job, state, doubt=state == "in_doubt")
        return job

    def _noted(self) -> str:
        job = self._house.producer.enqueue("note.write", {"book": self._book, "words": "a"})
        job.get(30)
        return str(job.id)

    def _payment(self, **more: str) -> str:
        body = {"action": "gated.pay", "params": {"book": self._book, "amount": 500.0}, "user_id": "ada"} | more
        made = self._client.post("/v1/jobs", json=body, headers={"Idempotency-Key": str(uuid4())})
        return str(made.json()["job"]["id"])

    def _ask_people(self) -> None:
        job = self._payment()
        until(lambda: self._house.producer.job(job).state is State.AWAITING_APPROVAL)
        (asked,) = self._client.get(f"/v1/jobs/{job}/approvals").json()["approvals"]
        self._found |= {"APPROVAL": asked["id"], "DIGEST": asked["digest"]}


def routes_of(line: str) -> set[str]:
    """The rows of the table that a line of curl is an example of."""
    found = re.search(r"\$API(/[^\s\"?]*)", line)
    assert found is not None, line
    given = re.search(r"-X (\w+)", line)
    method = given[1] if given else "POST" if "--json" in line else "GET"
    fitting = [
        route
        for route in ROUTES
        if route.startswith(f"{method} ") and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.split()[1]), found[1])
    ]
    fewest = min(route.count("{") for route in fitting)
    return {route for route in fitting if route.count("{") == fewest}


@pytest.mark.timeout(120)
def test_every_line_of_curl_on_the_page_works(api: Api, house: House, client: httpx.Client, tmp_path: Path) -> None:
    turn = {"conversation_id": "chat-1", "text": "hello"}
    house.producer.enqueue("talk.say", turn, idempotency_key="said").get(30)
    reader = Reader(api, house, client, tmp_path)
    for line in LINES:
        assert reader.types(line)


def test_a_service_with_only_curl_can_do_everything() -> None:
    assert set().union(*map(routes_of, LINES)) == set(ROUTES)


def test_the_page_lists_every_path_and_no_other(api: Api) -> None:
    document = api.client.get("/openapi.json").json()
    there = {
        f"{method.upper()} {path}": "security" in operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert {path: scope != "none" for path, scope in ROUTES.items()} == there


@pytest.mark.parametrize("route", sorted(set(ROUTES) - OPEN))
def test_a_path_takes_the_scope_that_the_page_says_and_no_other_but_admin_does(
    api: Api, keys: dict[str, str], route: str
) -> None:
    method, path = route.split()
    address = re.sub(r"\{\w+\}", str(uuid4()), path)

    def asked(key: str | None) -> httpx.Response:
        headers = {} if key is None else bearer(key)
        with api.client.stream(method, address, headers=headers | {"Content-Type": "application/json"}) as answer:
            answer.read()
        return answer

    assert asked(None).status_code == 401
    assert {scope for scope in SCOPES if asked(keys[scope]).status_code not in (401, 403)} == {ROUTES[route], "admin"}


@pytest.fixture(scope="module")
def keys(house: House) -> dict[str, str]:
    """A key for each scope."""
    return {
        scope: house.producer.keys.create(scope, [scope], who="tests", rate_per_second=10_000)[1] for scope in SCOPES
    }
