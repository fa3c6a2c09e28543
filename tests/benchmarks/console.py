"""The console: what its pages take the server where a request has many decisions, and what a first look loads."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from urllib.parse import quote

import httpx

from producer import Producer, Settings
from producer.envelope import Request
from tests.api_process import Api, api_of
from tests.benchmarks.clients import SurefootClient
from tests.benchmarks.crew import ASYNCIO, Crew
from tests.benchmarks.ends import until_ended
from tests.benchmarks.figures import Figures, Plan
from tests.benchmarks.markdown import section, spread, table
from tests.benchmarks.stage import Ground, Stage
from tests.benchmarks.workers import working
from tests.houses import until

MEDIAN, SLOWEST, LOADED = "a page of the console, ms", "its slowest, ms", "a first look at it, kB"
JOB, REQUEST = "the page of a job", "the page of its request"
ROUTES = {JOB: "/console/jobs/{job_id}", REQUEST: "/console/chain"}
DECISIONS = 200
LOOKS, WARM_LOOKS = 50, 5
CREW = Crew(ASYNCIO, 1, 200)
REQUEST_ID = "orders/7"
# About as much as an agent says of one step.
INPUT = "The customer writes that order 7 came without its second parcel, and wants to know where that is. " * 2
REASONING = "The carrier's page has not moved for three days, so that it is asked before anything is promised. " * 3
ASSET = re.compile(r'(?:src|href)="(/console/static/[^"]+)"')
KB = 1000


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:  # noqa: ARG001  as all measures
    """Measure one round; yields a line for each page."""
    with ground.stage() as stage:
        job_id = _performed(stage)
        paths = {JOB: f"/console/jobs/{job_id}", REQUEST: f"/console/chain?request={quote(REQUEST_ID, safe='')}"}
        with _looking(stage) as (api, browser):
            for page, path in paths.items():
                taken, loaded = _looks(api, browser, ROUTES[page], path), _loaded(browser, path)
                for measure, figure in (
                    (MEDIAN, statistics.median(taken)),
                    (SLOWEST, max(taken)),
                    (LOADED, loaded / KB),
                ):
                    figures.add(measure, page, figure)
                yield f"{page}: {statistics.median(taken):.1f} ms, at most {max(taken):.1f} ms; {loaded / KB:.1f} kB"


def _performed(stage: Stage) -> str:
    """Have a worker perform a request with many decisions; return the id of the job in its midst."""
    client = SurefootClient(stage, "bench.pure")
    try:
        with working(client, CREW) as workers:
            asked = [
                Request(
                    action="bench.pure",
                    params={"number": number},
                    idempotency_key=f"step-{number}",
                    request_id=REQUEST_ID,
                    user_id="ada",
                    agent_id="support",
                    input=INPUT,
                    reasoning=f"Step {number}. {REASONING}",
                )
                for number in range(DECISIONS)
            ]
            jobs = client.producer.enqueue_many(asked)
            client.flush()
            until_ended(client)
            workers.confirm(client, DECISIONS)
    finally:
        client.close()
    return str(jobs[DECISIONS // 2].id)


@contextmanager
def _looking(stage: Stage) -> Iterator[tuple[Api, httpx.Client]]:
    """Give an API process, and the browser of somebody who has signed in there and may do all that a job asks for."""
    settings = Settings(database_url=stage.database_url, redis_url=stage.redis_url)
    with closing(Producer(settings)) as producer:
        _, key = producer.keys.create("ada", ["read", "operate"], rate_per_second=100_000, who="bench")
    with (
        api_of(settings, stage.folder) as api,
        httpx.Client(base_url=api.url, timeout=30, headers={"Sec-Fetch-Site": "same-origin"}) as browser,
    ):
        _check(browser.post("/console/sign-in", data={"key": key}), 303)
        yield api, browser


def _looks(api: Api, browser: httpx.Client, route: str, path: str) -> list[float]:
    """Return the milliseconds that the server says each look at a page took it, but for those that find it cold."""
    for _ in range(WARM_LOOKS + LOOKS):
        _check(browser.get(path), 200)
    # A line is written once its answer is out.
    until(lambda: len(_served(api, route)) == WARM_LOOKS + LOOKS)
    return _served(api, route)[-LOOKS:]


def _served(api: Api, route: str) -> list[float]:
    return [float(line["ms"]) for line in api.events("api.request") if line["route"] == route]


def _loaded(browser: httpx.Client, path: str) -> int:
    """Return the bytes of a page and of all that it names, as they are without any compression."""
    plain: Mapping[str, str] = {"Accept-Encoding": "identity"}
    page = browser.get(path, headers=plain)
    loaded = [page, *(browser.get(address, headers=plain) for address in dict.fromkeys(ASSET.findall(page.text)))]
    for each in loaded:
        _check(each, 200)
    return sum(len(each.content) for each in loaded)


def _check(answer: httpx.Response, status: int) -> None:
    if answer.status_code != status:
        raise RuntimeError(f"{answer.request.url.path} answered {answer.status_code}: {answer.text[:500]}")


def show(plan: Plan, figures: Figures) -> str:  # noqa: ARG001  as all measures
    """Return the section of the page."""
    rows = [
        (
            page,
            spread(figures.of(MEDIAN, page), 1),
            spread(figures.of(SLOWEST, page), 1),
            spread(figures.of(LOADED, page), 1),
        )
        for page in ROUTES
    ]
    how = f"""A request with {DECISIONS} decisions, all of them performed, each with an input of {len(INPUT)} characters
        and a reasoning of {len(REASONING)}. One browser looks {LOOKS} times at the page of the job in its midst, and as
        often at the page of the whole request; nothing else is going on. What a look takes is what the server says
        of it, the `ms` of `api.request`: from the request to the last byte of the answer. A first look loads the page
        and all that it names, here without any compression."""
    heads = ("", "the median look, ms", "the slowest, ms", "a first look, kB")
    return section("The console", how, table(heads, rows))
