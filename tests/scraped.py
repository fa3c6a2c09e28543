"""Reading what a worker or the API tells Prometheus, as Prometheus does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.houses import WorkerProcess, until


@dataclass(frozen=True, slots=True)
class Scraped:
    """One answer of /metrics."""

    text: str

    def sum(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        return float(sum(s.value for s in self.samples() if s.name == name and labels.items() <= s.labels.items()))

    def labels(self) -> dict[str, set[str]]:
        """The labels of each metric by its name in the text, but for those of Prometheus's own making."""
        found: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(self.text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
        return found

    def samples(self) -> Iterator[Any]:
        for family in text_string_to_metric_families(self.text):
            yield from family.samples


def exporter_of(worker: WorkerProcess) -> str:
    """Where a worker that was given port 0 listens."""
    (line,) = until(lambda: worker.events("metrics.listening"))
    return f"http://{line['host']}:{line['port']}"


def scrape(url: str) -> Scraped:
    """Ask once."""
    answer = httpx.get(f"{url}/metrics", timeout=20)
    assert answer.status_code == 200
    return Scraped(answer.text)


def scrape_until(url: str, holds: Callable[[Scraped], bool]) -> Scraped:
    """Ask until that holds: an attempt is counted just after the ledger has it."""
    told = [scrape(url)]

    def again() -> bool:
        told.append(scrape(url))
        return holds(told[-1])

    until(again)
    return told[-1]
