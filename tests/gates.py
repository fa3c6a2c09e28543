"""Jobs that wait at a gate until a test opens it, and what they noted down meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer import Producer
from producer.job import Job
from tests.houses import until


@dataclass(frozen=True, slots=True)
class Gate:
    """A file that jobs wait for, and one to which they add a line when they begin and when they end."""

    folder: Path

    def part(self, name: str) -> Gate:
        """Another one, for some of a test's jobs."""
        (self.folder / name).mkdir()
        return Gate(self.folder / name)

    @property
    def params(self) -> dict[str, str]:
        """What the actions of `tests.pool_actions` need to know of it."""
        return {"log": str(self.folder / "log"), "gate": str(self.folder / "gate")}

    def request(self, number: int, action: str = "pool.wait", **params: Any) -> dict[str, Any]:
        """A job that waits here; `number` tells it from others."""
        key = "-".join([self.folder.name, action, *params.values(), str(number)])
        return {"action": action, "params": self.params | params, "idempotency_key": key}

    def requests(self, numbers: Iterable[int], action: str = "pool.wait", **params: Any) -> list[dict[str, Any]]:
        """Several of them."""
        return [self.request(number, action, **params) for number in numbers]

    def open(self) -> None:
        """Let all of them through."""
        (self.folder / "gate").touch()

    def notes(self, what: str | None = None) -> list[dict[str, Any]]:
        """The lines so far, or those that say `what`."""
        log = self.folder / "log"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in lines if what is None or line["what"] == what]

    def wait_for(self, begun: int) -> None:
        """Wait until so many have begun."""
        until(lambda: len(self.notes("began")) >= begun)

    def most_at_once(self) -> int:
        """How many had begun and not ended, at the most."""
        now = most = 0
        for line in self.notes():
            now += 1 if line["what"] == "began" else -1
            most = max(most, now)
        return most


def enqueue_singly(producer: Producer, requests: Iterable[dict[str, Any]]) -> list[Job]:
    """Enqueue jobs so that each has a ring to itself."""
    jobs = []
    for request in requests:
        jobs.append(producer.enqueue(**request))
        assert producer.flush()
    return jobs


def whys(job: Job) -> list[str]:
    """Why the job's attempts ended, in order."""
    return [event.data["why"] for event in job.events if event.data and "why" in event.data]
