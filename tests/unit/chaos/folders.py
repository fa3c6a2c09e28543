"""Writes evidence into a folder, as those who took part in a run do."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.evidence import Call, Cancel, EffectLine, Evidence, Fault
from tests.chaos.evidence_folder import Appender, write_ledger, write_object


def write(folder: Path, evidence: Evidence) -> None:
    """Write all of it but the logs."""
    for kind, records in (
        (Call, evidence.history),
        (Cancel, evidence.cancels),
        (EffectLine, evidence.effects),
        (Fault, evidence.faults),
    ):
        with Appender(folder, kind) as lines:
            for record in records:
                lines.add(record)
    for thing in (evidence.run, evidence.redis, evidence.processes):
        write_object(folder, thing)
    write_ledger(folder, evidence.ledger)
    (folder / "logs").mkdir()
