"""Every invariant, held against one run's evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from tests.chaos.checker.acceptance import no_loss, no_phantom
from tests.chaos.checker.doubt import honest_doubt
from tests.chaos.checker.effects import given_up_did_not_happen, no_double_effect, succeeded_happened
from tests.chaos.checker.fences import fences_rise, one_owner
from tests.chaos.checker.findings import Finding, Tally, Verdict
from tests.chaos.checker.gates import approvals_hold, budgets_hold
from tests.chaos.checker.given_up import cancels_hold, deadlines_hold
from tests.chaos.checker.history import whole_history
from tests.chaos.checker.in_time import requests_leave_in_time
from tests.chaos.checker.moves import legal_moves
from tests.chaos.checker.pacing import recovery, retries_wait
from tests.chaos.checker.record import consistent
from tests.chaos.checker.residue import no_residue
from tests.chaos.checker.turns import turns_follow
from tests.chaos.checker.view import View
from tests.chaos.evidence import Evidence
from tests.chaos.strict import UnreadableEvidence

INVARIANTS: Mapping[str, Callable[[View, Tally], Iterator[Finding]]] = {
    "I0": consistent,
    "I1": no_loss,
    "I2": no_phantom,
    "I3": no_double_effect,
    "I4": succeeded_happened,
    "I5": given_up_did_not_happen,
    "I6": honest_doubt,
    "I7": legal_moves,
    "I8": fences_rise,
    "I9": one_owner,
    "I12": retries_wait,
    "I13": whole_history,
    "I15": recovery,
    "I16": no_residue,
    "I17": deadlines_hold,
    "I18": cancels_hold,
    "I19": turns_follow,
    "I20": approvals_hold,
    "I21": budgets_hold,
    "I22": requests_leave_in_time,
}
# Whatever a run is for: without evidence, or without the faults that it was to have, it says nothing.
ALWAYS = ("I0",)


def verdict_on(evidence: Evidence) -> Verdict:
    """Judge a run by every invariant.

    Raises:
        UnreadableEvidence: If the run asks for an invariant that there is not.
    """
    unknown = sorted(set(evidence.run.must_judge) - INVARIANTS.keys())
    if unknown:
        raise UnreadableEvidence("run.json", None, f"must_judge names no invariant of ours: {', '.join(unknown)}")
    view = View(evidence)
    tallies = {name: Tally() for name in INVARIANTS}
    findings = tuple(finding for name, judge in INVARIANTS.items() for finding in judge(view, tallies[name]))
    must = dict.fromkeys((*ALWAYS, *evidence.run.must_judge))
    vacuous = tuple(name for name in must if not tallies[name].judged)
    return Verdict(findings, tallies, (*vacuous, *_missed_quotas(evidence)))


def _missed_quotas(evidence: Evidence) -> Iterator[str]:
    """Name the kinds of faults of which too few bit: what was not felt proves nothing."""
    bit = Counter(fault.kind for fault in evidence.faults if fault.phase == "end" and fault.bit)
    for kind, quota in sorted(evidence.run.quotas.items()):
        if bit[kind] < quota:
            yield f"fault {kind}: {bit[kind]} of {quota} bit"


def judge(evidence: Evidence) -> list[Finding]:
    """Return every way in which a run broke a promise; none says nothing of whether there was anything to break."""
    return list(verdict_on(evidence).findings)
