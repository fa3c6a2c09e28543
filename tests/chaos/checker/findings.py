"""What a finding is, and how the verdict follows from all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One way in which a run broke a promise.

    Attributes:
        invariant: ``I0`` to ``I22``.
        expected: What should be; `found` is what is.
        job: The job's id; None where it is about no job.
        key: Its idempotency key, or the downstream key where that is what it is about.
        rests_on: The lines of evidence: ``effects.jsonl:12``, ``event 3``, ``ledger.json jobs``.
    """

    invariant: str
    expected: str
    found: str
    job: str | None = None
    key: str | None = None
    rests_on: tuple[str, ...] = ()


Figure = int | float | str


@dataclass(slots=True)
class Tally:
    """What one invariant looked at.

    Attributes:
        judged: How many things there were that could have broken it; none proves nothing.
        figures: What else it counted or measured, with the unit in the name.
    """

    judged: int = 0
    figures: dict[str, Figure] = field(default_factory=dict)


class Outcome(IntEnum):
    """The verdict; its value is the exit status."""

    HELD = 0
    BROKEN = 1
    INCONCLUSIVE = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run came to.

    Attributes:
        findings: In the order of the invariants.
        tallies: By invariant.
        vacuous: Invariants that had to be judged and had nothing to judge; kinds of faults of which too few bit.
    """

    findings: tuple[Finding, ...]
    tallies: Mapping[str, Tally]
    vacuous: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """Broken whatever else is; inconclusive where nothing broke for want of anything that could."""
        if self.findings:
            return Outcome.BROKEN
        return Outcome.INCONCLUSIVE if self.vacuous else Outcome.HELD
