"""What a cell came to: the checker's verdict on its evidence, and whether its death excuses the doubt that it left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.chaos.checker.findings import Outcome
from tests.chaos.checker.judge import verdict_on
from tests.chaos.evidence_folder import read
from tests.chaos.staged import Piece, Staged

Verdict = Literal["held", "broken", "inconclusive"]


@dataclass(slots=True)
class Judged:
    """One cell's result, or a scenario's.

    Attributes:
        why: Why it did not hold, line by line; each begins with the invariant, or with ``end``.
        state: In which the job ended; None where it is not there.
        recovery: Seconds from the last death until the job's last move; None where it did not come to rest.
        took: Seconds that the cell took in all.
    """

    cell: Piece
    folder: Path
    verdict: Verdict
    why: tuple[str, ...] = ()
    state: str | None = None
    recovery: float | None = None
    took: float = 0.0

    def breaks(self, invariant: str) -> bool:
        """Whether a finding of this invariant is among the reasons."""
        return self.verdict == "broken" and any(line.startswith(f"{invariant} ") for line in self.why)


def judge(play: Staged) -> Judged:
    """Judge what was played; its evidence is complete."""
    verdict = verdict_on(read(play.folder))
    why = [f"{found.invariant} expected {found.expected}; found {found.found}" for found in verdict.findings]
    if verdict.outcome is Outcome.INCONCLUSIVE:
        why.extend(f"{invariant} had nothing to judge" for invariant in verdict.vacuous)
        return Judged(play.piece, play.folder, "inconclusive", tuple(why), state=play.state, recovery=play.recovery())
    why.extend(f"end {wrong}" for wrong in play.wrong_ends())
    if play.unrest is not None:
        why.append(f"end {play.unrest}")
    came_to: Verdict = "broken" if why else "held"
    return Judged(play.piece, play.folder, came_to, tuple(why), state=play.state, recovery=play.recovery())


def inconclusive(cell: Piece, folder: Path, error: Exception) -> Judged:
    """Say that a cell says nothing, since its death could not be brought about."""
    return Judged(cell, folder, "inconclusive", (f"{type(error).__name__}: {error}",))
