"""What the checker says of a story."""

from __future__ import annotations

from tests.chaos.checker.findings import Finding
from tests.chaos.checker.judge import judge, verdict_on
from tests.unit.chaos.story import Story


def broken(story: Story) -> set[str]:
    """Return the invariants that a story breaks."""
    return {finding.invariant for finding in judge(story.evidence())}


def findings(story: Story, invariant: str) -> list[Finding]:
    """Return what is found against one invariant."""
    return [finding for finding in judge(story.evidence()) if finding.invariant == invariant]


def the_finding(story: Story, invariant: str) -> str:
    """Return what was expected and what was found, where one thing was found against an invariant."""
    (finding,) = findings(story, invariant)
    return f"{finding.expected} / {finding.found}"


def judged(story: Story, invariant: str) -> int:
    """Return how many things there were to judge."""
    return verdict_on(story.evidence()).tallies[invariant].judged


def figure(story: Story, invariant: str, name: str) -> object:
    """Return what an invariant measured."""
    return verdict_on(story.evidence()).tallies[invariant].figures[name]
