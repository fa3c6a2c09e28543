"""What it costs a job that its workers count for Prometheus, and are scraped every second."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from tests.benchmarks import cpu, paired
from tests.benchmarks.bypass import SEALING
from tests.benchmarks.ends import Stalled
from tests.benchmarks.figures import Figures, Plan, in_turn
from tests.benchmarks.markdown import ratio, section, spread, table
from tests.benchmarks.paired import Way
from tests.benchmarks.stage import Ground, Stage
from tests.benchmarks.workers import Workers

MEASURE = "metrics"
RATE, PER_CORE = paired.rate(MEASURE), paired.per_core(MEASURE)
COUNTED = Way("counted, scraped every second", [SEALING], {"SUREFOOT_METRICS_ADDRESS": "127.0.0.1:0"})
UNCOUNTED = Way("not counted", [SEALING])
WAYS = (COUNTED, UNCOUNTED)
# As for gates.
PAIRS = 2
SCRAPE_SECONDS, PATIENCE_SECONDS = 1.0, 30.0


def play(ground: Ground, plan: Plan, figures: Figures, number: int) -> Iterator[str]:
    """Measure one round, which has several pairs; yields a line for each backlog."""
    for turn in range(PAIRS):
        for way in in_turn(WAYS, PAIRS * number + turn):
            if way is COUNTED:
                yield paired.run(ground, way, jobs=plan.batched, figures=figures, measure=MEASURE, around=_scraped)
            else:
                yield paired.run(ground, way, jobs=plan.batched, figures=figures, measure=MEASURE)


@contextmanager
def _scraped(_stage: Stage, workers: Workers) -> Iterator[None]:
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


def _scrape(port: int) -> None:
    # A worker that stands still while jobs gather answers once it goes on.
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/metrics")
        if b"surefoot_worker_attempts_total{" not in connection.getresponse().read():
            raise Stalled("it has counted no attempt")
    finally:
        connection.close()


def _port_in(log: Path) -> int:
    lines = log.read_text(errors="replace").splitlines()
    return int(next(json.loads(line)["port"] for line in lines if '"metrics.listening"' in line))


def show(plan: Plan, figures: Figures) -> str:
    """Return the section of the page."""
    rows = [
        (
            way.name,
            spread(figures.of(RATE, way.name)),
            spread(figures.of(PER_CORE, way.name)),
            ratio(figures, (PER_CORE, way.name), (PER_CORE, UNCOUNTED.name)),
        )
        for way in WAYS
    ]
    how = f"""{plan.batched:,} jobs by batch rings, worked off as above by {paired.CREW}, {PAIRS} times a round each
        way: with `SUREFOOT_METRICS_ADDRESS` set and each worker's `/metrics` read once a second, and without. Processor
        time is that of workers, servers and producer, from the enqueueing to the outcome; the scraper's is not in it,
        nor is sealing, which is put off in both."""
    heads = ("", "jobs/s", "jobs for a second of processor time", "over those not counted")
    spent = "What one of these jobs costs, in microseconds of processor time, medians."
    costs = cpu.costs(figures, MEASURE, [way.name for way in WAYS], paired.SPENDERS)
    return section("Metrics", how, table(heads, rows), spent, costs)
