"""What a worker process counts of itself: where to say that something happened.

Nothing is counted before somebody wants to see it (`SUREFOOT_METRICS_ADDRESS`); worker/metrics.py then does. Like the
log, and unlike a worker's other parts, it is there before they are, and everybody's.
"""

from __future__ import annotations

from worker.attempt import Settlement


class Meter:
    """Where to say what happened. This one counts nothing."""

    def claimed(self, action: str, late_seconds: float) -> None:
        """Say that a job was claimed, so long after it was due."""

    def settled(self, action: str, settlement: Settlement) -> None:
        """Say how an attempt ended, once the ledger has it."""

    def late(self) -> None:
        """Say that an outcome came when the job was somebody else's."""

    def wrote(self, kind: str, rows: int, seconds: float) -> None:
        """Say that so many rows were written in one statement."""

    def ledger_missed(self) -> None:
        """Say that Postgres did not answer a step of an attempt."""

    def lease_lost(self) -> None:
        """Say that a job is somebody else's by now, though its attempt goes on here."""

    def rescued(self, becomes: str) -> None:
        """Say that a job was taken over from a worker that fell silent."""

    def rang(self, count: int) -> None:
        """Say that the relay rang jobs that nobody had rung."""

    def breaker_moved(self, becomes: str) -> None:
        """Say that this process moved a breaker."""

    def loop_answered(self, seconds: float) -> None:
        """Say how long the event loop took to get to something new."""


_meter = Meter()


def meter() -> Meter:
    """Return where this process counts."""
    return _meter


def count_with(other: Meter) -> None:
    """Have this process count with another."""
    global _meter  # noqa: PLW0603  one a process, as the log is
    _meter = other
