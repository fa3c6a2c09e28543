"""Writing down what a storm did: a line of `faults.jsonl` where a fault begins, one where it is over, its details."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.chaos.evidence import Fault
from tests.chaos.evidence_folder import Appender
from tests.chaos.storm.schedule import Planned

NOBODY = "nobody"


class Notes:
    """The faults of a storm; several lanes write at once."""

    def __init__(self, folder: Path) -> None:
        """Open the file."""
        self._lines, self._lock = Appender(folder, Fault), threading.Lock()
        self.last_end = 0.0

    def add(self, fault: str, phase: Literal["begin", "end"], target: str, **more: Any) -> float:
        """Write a line; return its moment."""
        nothing = {"point": None, "pid": None, "kind": None, "began": None, "ended": None, "bit": None}
        with self._lock:
            at = time.time()
            if phase == "end" and "kind" in more:
                more["ended"] = self.last_end = at
            self._lines.add(Fault(at=at, fault=fault, phase=phase, target=target, **nothing | more))
            return at


@dataclass(slots=True)
class Strike:
    """One fault under way: who is hit, and since when."""

    planned: Planned
    notes: Notes
    target: str | None = None
    began: float = field(default=0.0)

    def on(self, target: str) -> None:
        """Note that it begins, and whom it hits."""
        self.target = target
        kind = self.planned.kind
        self.began = self.notes.add(kind, "begin", target, kind=kind, began=time.time())

    def detail(self, fault: str, phase: Literal["begin", "end"], target: str, pid: int | None = None) -> None:
        """Note what it does to whom."""
        self.notes.add(fault, phase, target, pid=pid)

    def over(self, *, bit: bool | None) -> None:
        """Note that it is over, and whether somebody felt it; one that found nobody to hit has not bitten."""
        if self.target is None:
            self.on(NOBODY)
            bit = False
        kind = self.planned.kind
        self.notes.add(kind, "end", str(self.target), kind=kind, began=self.began, bit=bit)
