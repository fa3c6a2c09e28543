"""What a worker's relay does beside its jobs: each again and again, and none keeps the others, or the jobs, waiting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from producer.ledger.engine import is_disconnect
from worker.log import log

# What Postgres refused it may refuse again: jobs are due meanwhile.
REFUSED_PAUSE_SECONDS = 60.0


class Duty:
    """Something to be done over the relay's connection whenever it is time for it. One thread's."""

    def __init__(
        self,
        name: str,
        do: Callable[[Connection], int | None],
        *,
        every_seconds: float = 0.0,
        batch: float = math.inf,
    ) -> None:
        """Do nothing yet.

        Args:
            name: Of what is done, for the log.
            do: Does it once; returns how much, where it does a batch at a time.
            every_seconds: The shortest time from one beginning to the next, where there is no more.
            batch: How much there may be more after.
        """
        self._name, self._do, self._every, self._batch = name, do, every_seconds, batch
        self._due_at = -math.inf

    def look(self, connection: Connection) -> bool:
        """Do it if it is time; return whether there is more. What Postgres refuses is logged, and tried again later.

        Args:
            connection: In autocommit, and the same each time as long as it lasts.

        Raises:
            DBAPIError: If the connection is gone.
        """
        now = time.monotonic()
        if now < self._due_at:
            return False
        try:
            more = (self._do(connection) or 0) >= self._batch
        except DBAPIError as error:
            if is_disconnect(error):
                raise
            self._due_at = time.monotonic() + REFUSED_PAUSE_SECONDS
            log.warning("duty.refused", duty=self._name, error=str(error.orig), pause_seconds=REFUSED_PAUSE_SECONDS)
            return False
        self._due_at = now if more else now + self._every
        return more
