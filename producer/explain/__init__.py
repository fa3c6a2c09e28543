"""Why a job ran, or why it does not: one ordered answer, from the ledger alone, in sentences.

Pure: what it is told of is read by `producer.ledger.story`. Every sentence says no more than the record does; where the
record cannot tell (nobody writes down which workers live), it says what may be.
"""

from __future__ import annotations

from collections.abc import Iterator

from producer.explain.sentences import lines_of
from producer.explain.standing import answer
from producer.explain.words import Explanation, Line, Step, explanation_facts, safe
from producer.ledger.story import Story

__all__ = ["Explanation", "Line", "Step", "explain", "explanation_facts"]


def explain(story: Story) -> Explanation:
    """Return the answer for one job."""
    record = story.record
    headline, steps = answer(story)
    return Explanation(
        job_id=record.id,
        action=record.action,
        state=record.state,
        waiting_for=record.waiting_for,
        request_id=record.request_id,
        idempotency_key=record.idempotency_key,
        headline=safe(headline),
        lines=(*lines_of(story), *_follow_ups(story)),
        next_steps=tuple(steps),
    )


def _follow_ups(story: Story) -> Iterator[Line]:
    for job in story.follow_ups:
        yield Line(topic="follow_up", text=safe(f"Job {job.id} ({job.action}) came of it, and is {job.state}."))
