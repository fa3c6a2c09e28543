"""Keeping what this process has claimed: one thread renews every lease in one statement, over its own connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from worker.log import log
from worker.statements import renew


class Leases:
    """The leases of one process. The thread starts with the first and runs until the process ends."""

    def __init__(
        self,
        engine: Engine,
        *,
        lease_seconds: float,
        renew_seconds: float,
        on_renewed: Callable[[set[UUID]], None] = lambda _: None,
    ) -> None:
        """Start nothing yet.

        Args:
            engine: With a connection to spare for the renewals.
            lease_seconds: How long a renewal lasts.
            renew_seconds: How old a lease may become before it is renewed; half of that usually.
            on_renewed: Told which jobs are still ours, in the renewals' thread.
        """
        self._engine, self._lease, self._every = engine, lease_seconds, renew_seconds
        self._on_renewed = on_renewed
        self._held: dict[UUID, tuple[int, float]] = {}
        self._settling: set[UUID] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def held(self, job_id: UUID, fence: int, claimed_at: float) -> Iterator[None]:
        """Keep one job's lease alive inside the block.

        Args:
            job_id: The job.
            fence: As claimed.
            claimed_at: On the monotonic clock, when the claim *left*: our window must end before the ledger's does.
        """
        with self._lock:
            self._held[job_id] = (fence, claimed_at)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lease-renewal", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(job_id, None)
                self._settling.discard(job_id)

    def settling(self, job_id: UUID) -> None:
        """Say that the job's outcome is on its way to the ledger: a lease that ends by it was not lost."""
        with self._lock:
            self._settling.add(job_id)

    def seconds_left(self, job_id: UUID) -> float:
        """Return how long the lease surely lasts; 0 or less where it may have run out, or was never held."""
        held = self._held.get(job_id)
        return 0.0 if held is None else held[1] + self._lease - time.monotonic()

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
                held = {job_id: fence for job_id, (fence, left_at) in self._held.items() if left_at <= due}
            if held:
                self._renew(held)

    def _renew(self, held: Mapping[UUID, int]) -> None:
        left_at = time.monotonic()
        try:
            with self._engine.connect() as connection:
                kept = renew(connection, held, self._lease)
        except SQLAlchemyError as error:
            # Not lost yet: the window counts from the last renewal that arrived. The next look tries again.
            log.warning("lease.renewal_failed", jobs=len(held), error=str(error))
            return
        self._on_renewed(kept)
        with self._lock:
            for job_id, fence in held.items():
                if job_id in kept and job_id in self._held:
                    self._held[job_id] = (fence, left_at)
                elif self._held.pop(job_id, None) and job_id not in self._settling:
                    log.warning("lease.lost", job_id=str(job_id), fence=fence)
