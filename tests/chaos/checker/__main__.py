"""`python -m tests.chaos.checker FOLDER`: print the verdict on a run, and write it beside its evidence.

Exit status: 0 held; 1 broken; 2 inconclusive, since an invariant that had to be judged had nothing to judge; 3 the
evidence cannot be read; 64 wrong call.

`verdict.json` is {"outcome": "held", "vacuous": ["I6"], "tallies": {"I1": {"judged": 1, "figures": {…}}},
"findings": [{"invariant": …}]}; where the evidence cannot be read, {"outcome": "unreadable", "why": …}.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.chaos.checker.findings import Finding, Verdict
from tests.chaos.checker.judge import verdict_on
from tests.chaos.evidence import Evidence
from tests.chaos.evidence_folder import read
from tests.chaos.strict import UnreadableEvidence

UNREADABLE, WRONG_CALL = 3, 64
FILE = "verdict.json"
SHOWN = 20  # findings that are printed; verdict.json has them all
USAGE = "usage: python -m tests.chaos.checker FOLDER"


def main(arguments: Sequence[str]) -> int:
    """Judge the run in the folder; return the exit status."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(USAGE, file=sys.stderr)  # noqa: T201  a program's words
        return WRONG_CALL
    return judge_folder(Path(arguments[0]))[0]


def judge_folder(folder: Path) -> tuple[int, Evidence | None]:
    """Judge a run, print the verdict and leave it in the folder; return the exit status, and what was judged."""
    try:
        evidence = read(folder)
        verdict = verdict_on(evidence)
    except UnreadableEvidence as error:
        return _unreadable(folder, str(error)), None
    except Exception as error:  # noqa: BLE001  Python's own exit status for it is that of a broken promise
        return _unreadable(folder, f"what it holds makes no sense: {error!r}"), None
    _write(folder, as_json(verdict))
    print("\n".join(_table(verdict)))  # noqa: T201  as above
    return verdict.outcome.value, evidence


def _unreadable(folder: Path, why: str) -> int:
    _write(folder, {"outcome": "unreadable", "why": why})
    print(f"unreadable: {why}")  # noqa: T201  as above
    return UNREADABLE


def as_json(verdict: Verdict) -> dict[str, Any]:
    """Return what `verdict.json` holds."""
    return {
        "outcome": verdict.outcome.name.lower(),
        "vacuous": list(verdict.vacuous),
        "tallies": {name: asdict(tally) for name, tally in verdict.tallies.items()},
        "findings": [asdict(finding) for finding in verdict.findings],
    }


def _write(folder: Path, value: Mapping[str, Any]) -> None:
    (folder / FILE).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _table(verdict: Verdict) -> list[str]:
    broken = Counter(finding.invariant for finding in verdict.findings)
    lines = [f"{'':4} {'judged':>8} {'broken':>7}  figures"]
    for name, tally in verdict.tallies.items():
        figures = ", ".join(f"{what} {value}" for what, value in tally.figures.items())
        lines.append(f"{name:4} {tally.judged:8} {broken[name]:7}  {figures}".rstrip())
    lines += [_said(finding) for finding in verdict.findings[:SHOWN]]
    if len(verdict.findings) > SHOWN:
        lines.append(f"… and {len(verdict.findings) - SHOWN} more in {FILE}")
    lines += [f"{name}: there was too little of it to judge" for name in verdict.vacuous]
    return [*lines, verdict.outcome.name.lower()]


def _said(finding: Finding) -> str:
    of = "".join(f", {what} {value}" for what, value in (("job", finding.job), ("key", finding.key)) if value)
    rests_on = f" [{', '.join(finding.rests_on)}]" if finding.rests_on else ""
    return f"{finding.invariant}{of}: expected {finding.expected}; found {finding.found}{rests_on}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
