"""A service of somebody's own, in a container that has the package without extras: asks, and waits for the ends."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Any

from producer import Job, Producer
from producer.errors import LedgerUnavailable

BATCH = 50


def ask(producer: Producer, requests: list[dict[str, Any]]) -> list[Job]:
    """Ask until it is known to be accepted: the keys make that safe."""
    while True:
        try:
            return producer.enqueue_many(requests)
        except LedgerUnavailable:
            time.sleep(0.2)


def end_of(job: Job) -> str:
    """Wait for its end, through a ledger that goes away meanwhile."""
    while True:
        try:
            return job.wait(240).state
        except LedgerUnavailable:
            time.sleep(0.2)


def main() -> None:
    """Ask for `sys.argv[3]` jobs of an action, `BATCH` at a time; print how many came to which end."""
    action, params, count, name, pause = (
        sys.argv[1],
        json.loads(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
        sys.argv[5],
    )
    producer = Producer()
    jobs: list[Job] = []
    for first in range(0, count, BATCH):
        keys = [f"{name}-{n}" for n in range(first, min(first + BATCH, count))]
        jobs += ask(producer, [{"action": action, "params": params, "idempotency_key": key} for key in keys])
        time.sleep(float(pause))
    ends = Counter(end_of(job) for job in jobs)
    again = ask(producer, [{"action": action, "params": params, "idempotency_key": f"{name}-0"}])
    json.dump({"ends": ends, "again": again[0].outcome, "asked": len(jobs)}, sys.stdout)


if __name__ == "__main__":
    main()
