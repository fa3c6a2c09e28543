"""What it costs a job that its workers count for Prometheus, and are scraped every second."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from tests.benchmarks import cpu, paired
from tests.benchmarks.bypass import COUNTING
from tests.benchmarks.ends import Stalled
from tests.benchmarks.figures import Figures, Plan
from tests.benchmarks.markdown import section, table
from tests.benchmarks.paired import Compared
from tests.benchmarks.stage import Ground, Stage
from tests.benchmarks.workers import Workers

MEASURE = "metrics"
RATE, PER_CORE = paired.rate(MEASURE), paired.per_core(MEASURE)
COUNTED = Compared(
    COUNTING, "counted, scraped every second", "not counted", {"SUREFOOT_METRICS_ADDRESS": "127.0.0.1:0"}
)
# Longer than elsewhere: each has to be scraped as often as it says.
TURNS = 12
SCRAPE_SECONDS, PATIENCE_SECONDS = 1.0, 30.0
ATTEMPTS = "surefoot_worker_attempts_total{"


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:
    """Measure one round; yields a line for it."""
    del number
    yield paired.run(
        ground,
        COUNTED,
        jobs=plan.batched // 2,
        figures=figures,
        measure=MEASURE,
        turns=TURNS,
        around_turn=_scraped_or_not,
    )


@contextmanager
def _scraped_or_not(_stage: Stage, workers: Workers, out: bool) -> Iterator[None]:  # noqa: FBT001  as it is called
    """Scrape the workers in a turn with counting; make sure that in one without nothing is counted.

    Raises:
        Stalled: If something is.
    """
    if not out:
        with _scraped(workers):
            yield
        return
    ports = [_port_in(log) for log in workers.logs]
    before = [_counted(port) for port in ports]
    yield
    if [_counted(port) for port in ports] != before:
        raise Stalled("attempts were counted though counting was switched off")


@contextmanager
def _scraped(workers: Workers) -> Iterator[None]:
    """Scrape the workers in the block, as Prometheus does.

    Raises:
        Stalled: If one of them does not answer with what it counted.
    """
    ports = [_port_in(log) for log in workers.logs]
    over, failed = threading.Event(), list[Exception]()

    def scrape() -> None:
        try:
            while True:
                for port in ports:
                    _scrape(port)
                if over.wait(SCRAPE_SECONDS):
                    return
        except (OSError, Stalled) as error:
            failed.append(error)

    scraping = threading.Thread(target=scrape, name="scraper")
    scraping.start()
    try:
        yield
    finally:
        over.set()
        scraping.join()
    if failed:
        raise Stalled(f"a worker could not be scraped: {failed[0]}")


def _scrape(port: int) -> str:
    # A worker that stands still while jobs gather answers once it goes on.
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/metrics")
        told = connection.getresponse().read().decode()
    finally:
        connection.close()
    if ATTEMPTS not in told:
        raise Stalled("it has counted no attempt")
    return told


def _counted(port: int) -> list[str]:
    return [line for line in _scrape(port).splitlines() if line.startswith(ATTEMPTS)]


def _port_in(log: Path) -> int:
    lines = log.read_text(errors="replace").splitlines()
    return int(next(json.loads(line)["port"] for line in lines if '"metrics.listening"' in line))


def show(plan: Plan, figures: Figures) -> str:
    """Return the section of the page."""
    how = f"""{TURNS} backlogs a round of {plan.batched // 2:,} jobs by batch rings, worked off as above by
        {paired.CREW}, by turns as for gates: counted, with each worker's `/metrics` read once a second, and
        not. Processor time is that of workers, servers and producer, from the enqueueing to the outcome; that of
        whoever reads is not in it."""
    heads = ("", "jobs/s", "jobs for a second of processor time", "over those not counted")
    spent = "What one of these jobs costs, in microseconds of processor time, medians."
    costs = cpu.costs(figures, MEASURE, [COUNTED.name, COUNTED.without], paired.SPENDERS)
    return section("Metrics", how, table(heads, paired.rows(figures, MEASURE, COUNTED)), spent, costs)
