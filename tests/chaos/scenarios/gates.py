"""Scripts about a job that somebody has to approve, and about one that reserves of a budget: deaths on these ways."""

from __future__ import annotations

from producer.ledger.states import AT_REST, State
from tests.chaos.scenarios.stage import Stage

# Of what a death happens to before anybody is asked.
BEFORE_THE_QUESTION = ("review.before", "review.committed", "bring.before", "bring.committed")
LONG_SECONDS = 120.0
# Enough for a job to be claimed, and for its question to be seen, on a busy machine.
SHORT_SECONDS = 4.0


def approval(stage: Stage) -> None:
    """A job waits for somebody, who approves it, or does not. Somebody dies before, meanwhile or after."""
    if stage.point in BEFORE_THE_QUESTION:
        stage.arm(stage.point)
        jobs = stage.ask("chaos.approved", {"within": LONG_SECONDS})
        stage.strike(stage.there(stage.point, jobs))
        _until_asked(stage, jobs[0])
        stage.approve(jobs[0])
        stage.expect(jobs, State.SUCCEEDED)
    elif stage.point.startswith("expire."):
        jobs = stage.ask("chaos.approved", {"within": SHORT_SECONDS})
        _until_asked(stage, jobs[0])
        stage.arm(stage.point)
        stage.strike(stage.there(stage.point))
        stage.expect(jobs, State.EXPIRED)
    elif stage.point.startswith("approve."):
        jobs = stage.ask("chaos.approved", {"within": LONG_SECONDS})
        _until_asked(stage, jobs[0])
        stage.strike(stage.approver_there(stage.point, jobs[0]))
        stage.approve_again(jobs[0])
        stage.expect(jobs, State.SUCCEEDED)
    else:
        _approved(stage, "chaos.approved")


def gates(stage: Stage) -> None:
    """A job that somebody approved reserves of a budget with the same intent; whoever has it dies."""
    _approved(stage, "chaos.approved_budgeted")


def budget(stage: Stage) -> None:
    """A job reserves of a budget, and settles that; whoever has it dies before, meanwhile or after."""
    stage.arm(stage.point)
    jobs = stage.ask("chaos.budgeted", {})
    stage.strike(stage.there(stage.point, jobs))
    stage.expect(jobs, State.SUCCEEDED)


def _approved(stage: Stage, action: str) -> None:
    jobs = stage.ask(action, {"within": LONG_SECONDS})
    _until_asked(stage, jobs[0])
    stage.arm(stage.point)
    stage.approve(jobs[0])
    stage.strike(stage.there(stage.point, jobs))
    stage.expect(jobs, State.SUCCEEDED)


def _until_asked(stage: Stage, job_id: str) -> None:
    """Wait until people are asked; a defect may have it performed without."""
    there = {State.AWAITING_APPROVAL, *AT_REST}
    stage.until(lambda: State(stage.job(job_id).state) in there, "the question")
