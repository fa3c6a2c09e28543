"""The person of a storm: looks into the world's books, and says what became of the turns that keep others waiting.

What else is in doubt stays so, and is shown.
"""

from __future__ import annotations

import threading
from typing import Any

import httpx
import psycopg2

from producer import JobNotInDoubt, Producer, Settings
from producer.errors import LedgerUnavailable
from tests.chaos.storm.asks_world import RUN
from tests.chaos.storm.stage import Stage

LOOK_SECONDS = 1.0
# No request of theirs can arrive any more: an attempt has ten seconds, and slow answers are slower by two.
QUIET_SECONDS = 15.0
STUCK = """
SELECT j.id, j.action FROM jobs j
WHERE j.state = 'in_doubt' AND j.conversation_id IS NOT NULL AND coalesce(j.looks_left, 0) = 0 AND NOT EXISTS (
  SELECT FROM events e WHERE e.job_id = j.id AND e.kind IN ('intended', 'in_doubt')
    AND e.at > clock_timestamp() - make_interval(secs => %(quiet)s))
"""


class Desk:
    """Somebody who sits there from `start` to `stop`."""

    def __init__(self, stage: Stage) -> None:
        """Say nothing yet."""
        self._stage = stage
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="desk", daemon=True)
        self.said = 0

    def start(self) -> None:
        """Sit down."""
        self._thread.start()

    def stop(self) -> None:
        """Go home."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._sit()
        except Exception as error:  # noqa: BLE001  nobody would answer, and many would wait for it
            self._stage.odd(f"the desk was left: {error!r}")

    def _sit(self) -> None:
        stage = self._stage
        producer = Producer(Settings(database_url=stage.postgres.url, redis_url=stage.valkey.url, tenant=RUN))
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                for job in stage.ask(STUCK, {"quiet": QUIET_SECONDS}):
                    self._resolve(producer, str(job["id"]), job["action"])
            except (psycopg2.Error, LedgerUnavailable, httpx.HTTPError):
                continue  # the ledger or the world is away, and there will be another look
            except JobNotInDoubt:
                continue  # an answer of this desk that was lost
        producer.close()

    def _resolve(self, producer: Producer, job_id: str, action: str) -> None:
        found: Any = self._stage.world.look_up(RUN, action, job_id)
        reason = "by the books of the world"
        if found is None:
            producer.resolve(job_id, "retry", reason=reason, who="desk")
        else:
            producer.resolve(job_id, "happened", result=found, reason=reason, who="desk")
        self.said += 1
