"""What a producer and the API hold after thousands of requests is what they held after the first hundreds.

A storm kills both too often to see that; what a worker holds is judged there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from producer import Producer, Settings
from tests.acceptance.asking import enqueue
from tests.api_process import api_of, bearer
from tests.houses import ROOT, worker_environment

# So many rounds of several requests until all is loaded and cached, and so many that are counted: two kilobytes for
# each of them is more than is allowed.
WARM_UP, COUNTED = 300, 1_000
ALLOWED_MIB = 1.5

PRODUCER = f"""
import json
import psutil
from producer import Producer

def held():
    me = psutil.Process()
    return [me.memory_info().rss, me.num_fds(), me.num_threads()]

def ask(numbers):
    for n in numbers:
        job = producer.enqueue("test.add", {{"a": n, "b": 1}}, idempotency_key=f"one-{{n}}")
        job.refresh()
        if n % 100 == 0:
            many = [{{"action": "test.add", "params": {{"a": n, "b": m}}}} for m in range(100)]
            producer.enqueue_many(many)
    assert producer.flush()

producer = Producer()
ask(range({WARM_UP}))
before = held()
ask(range({WARM_UP}, {WARM_UP + COUNTED}))
print(json.dumps([before, held()]))
"""

pytestmark = [pytest.mark.usefixtures("lone_producer"), pytest.mark.timeout(600)]  # who publishes the actions


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds."""

    rss: int
    files: int
    threads: int


def assert_no_growth(before: Held, after: Held) -> None:
    assert (after.rss - before.rss) / 2**20 < ALLOWED_MIB
    assert after.files <= before.files
    assert after.threads <= before.threads


def test_a_producer_that_asks_for_thousands_of_jobs_holds_no_more_for_it(settings: Settings) -> None:
    command = [sys.executable, "-c", PRODUCER]
    made = subprocess.run(command, env=worker_environment(settings), cwd=ROOT, check=True, capture_output=True)
    before, after = (Held(*each) for each in json.loads(made.stdout))
    assert_no_growth(before, after)


def test_the_api_that_answers_thousands_of_requests_holds_no_more_for_it(
    settings: Settings, lone_producer: Producer, tmp_path: Path
) -> None:
    _, key = lone_producer.keys.create("service", ["enqueue", "read"], who="tests", rate_per_second=10_000)
    with api_of(settings, tmp_path) as api, httpx.Client(base_url=api.url, headers=bearer(key), timeout=30) as client:
        process = psutil.Process(api.process.pid)

        def held_after(rounds: int) -> Held:
            for _ in range(rounds):
                accepted = enqueue(client)
                assert client.get(accepted.headers["location"]).status_code == 200
            return Held(process.memory_info().rss, process.num_fds(), process.num_threads())

        before = held_after(WARM_UP)
        assert_no_growth(before, held_after(COUNTED))
