"""Keeping what this process has claimed: one thread renews every lease in one statement, over its own connection.

A lease is an attempt's, not a job's: a process may claim a job anew while the attempt that lost it runs on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import Engine

from producer.errors import SurefootError
from worker.attempt import Lease
from worker.log import log
from worker.meter import meter
from worker.statements import renew


class LeaseLost(SurefootError):
    """The job may be somebody else's by now."""


class Leases:
    """The leases of one process. The thread starts with the first and runs until the process ends."""

    def __init__(
        self,
        engine: Engine,
        *,
        worker: str,
        lease_seconds: float,
        renew_seconds: float,
        on_renewed: Callable[[set[UUID]], None] = lambda _: None,
    ) -> None:
        """Start nothing yet.

        Args:
            engine: With a connection to spare for the renewals.
            worker: Who the ledger says owns the leases.
            lease_seconds: How long a renewal lasts.
            renew_seconds: How old a lease may become before it is renewed; half of that usually.
            on_renewed: Told which jobs are still ours, in the renewals' thread.
        """
        self._engine, self._worker, self._lease, self._every = engine, worker, lease_seconds, renew_seconds
        self._on_renewed = on_renewed
        self._held: dict[Lease, float] = {}
        self._settling: set[Lease] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, leases: Iterable[Lease], claimed_at: float) -> set[Lease]:
        """Renew what was claimed, until `held` lets go of it. For the thread that claims: the loop may be kept busy.

        Args:
            leases: Each that is returned must come to be `held`, or it is renewed for as long as the process lives.
            claimed_at: On the monotonic clock, when the claim *left*: our window must end before the ledger's does.

        Returns:
            Those that nobody here holds yet. One that is held was claimed before: a Postgres that crashed forgot it,
            and gave it to us anew. It is the attempt's that holds it.
        """
        with self._lock:
            claimed = dict.fromkeys(leases, claimed_at)
            anew = claimed.keys() - self._held.keys()
            self._held.update(claimed)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="lease-renewal", daemon=True)
                thread.start()  # which may fail; the next claim tries again
                self._thread = thread
        return anew

    @contextmanager
    def held(self, job_id: UUID, fence: int) -> Iterator[None]:
        """Let go of what is kept at the end of the block."""
        try:
            yield
        finally:
            with self._lock:
                self._held.pop((job_id, fence), None)
                self._settling.discard((job_id, fence))

    def settling(self, job_id: UUID, fence: int) -> None:
        """Say that the attempt's outcome is on its way to the ledger: a lease that ends by it was not lost."""
        with self._lock:
            self._settling.add((job_id, fence))

    def seconds_left(self, job_id: UUID, fence: int) -> float:
        """Return how long the lease surely lasts; 0 or less where it may have run out, or is not kept."""
        left_at = self._held.get((job_id, fence))
        return 0.0 if left_at is None else left_at + self._lease - time.monotonic()

    @property
    def count(self) -> int:
        """How many leases this process holds."""
        return len(self._held)

    def _run(self) -> None:
        # It looks, instead of being woken by each claim: most jobs are over long before their lease needs it.
        while True:
            time.sleep(self._every / 4)
            due = time.monotonic() - self._every / 2
            with self._lock:
                held = [lease for lease, left_at in self._held.items() if left_at <= due]
            if held:
                self._renew(held)

    def _renew(self, held: Collection[Lease]) -> None:
        left_at = time.monotonic()
        try:
            with self._engine.connect() as connection:
                answers = renew(connection, self._worker, self._lease, held)
        except Exception as error:  # noqa: BLE001  renewals that ended for anything would end every lease
            # Not lost yet: the window counts from the last renewal that arrived. The next look tries again.
            log.warning("lease.renewal_failed", jobs=len(held), error=str(error))
            return
        self._on_renewed({job_id for (job_id, _), ours in answers.items() if ours})
        with self._lock:
            for lease, ours in answers.items():
                if lease not in self._held:
                    continue
                if ours:
                    self._held[lease] = left_at
                    continue
                del self._held[lease]
                if lease not in self._settling:
                    meter().lease_lost()
                    log.warning("lease.lost", job_id=str(lease[0]), fence=lease[1])
