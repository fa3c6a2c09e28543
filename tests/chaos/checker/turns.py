"""I19: turns of a conversation follow one another, and what each has said stands there once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise

from producer.ledger.states import CLOSED, State
from tests.chaos.checker.effects import is_by_a_person
from tests.chaos.checker.findings import Finding, Tally
from tests.chaos.checker.moves import moved_to
from tests.chaos.checker.view import JobView, View, about
from tests.chaos.ledger_rows import MessageRow

I19 = "I19"
Conversation = tuple[str, str]  # the tenant's, and its id


def turns_follow(view: View, tally: Tally) -> Iterator[Finding]:
    """Find turns that ran at the same time, and messages that are lost, doubled, mixed up or of nobody."""
    for turns in _turns(view).values():
        tally.judged += len(turns)
        yield from _overlaps(turns)
    said: dict[Conversation, list[MessageRow]] = {}
    for message in view.evidence.ledger.first.messages:
        said.setdefault((message.tenant, message.conversation_id), []).append(message)
    for (_, name), messages in said.items():
        yield from _in_order(view, name, messages)
    yield from _amounts(view, [message for messages in said.values() for message in messages])
    tally.figures |= {"conversations": len(said), "messages": sum(map(len, said.values()))}


def _turns(view: View) -> Mapping[Conversation, list[JobView]]:
    """Return the jobs of each conversation that had their turn, by when they began."""
    turns: dict[Conversation, list[JobView]] = {}
    for job in view.jobs.values():
        if job.row.conversation_id is not None and any(event.kind == "intended" for event in job.events):
            turns.setdefault((str(job.row.columns["tenant"]), job.row.conversation_id), []).append(job)
    return {name: sorted(jobs, key=_began) for name, jobs in turns.items()}


def _began(job: JobView) -> float:
    return next(event.at for event in job.events if event.kind == "intended")


def _ended(job: JobView) -> float | None:
    """Return when a turn was free again; None where it is not: it is its job's, whatever becomes of its attempts."""
    return next((event.at for event in reversed(job.events) if moved_to(event) in CLOSED), None)


def _overlaps(turns: Sequence[JobView]) -> Iterator[Finding]:
    for earlier, later in pairwise(turns):
        ended = _ended(earlier)
        if ended is None or _began(later) < ended:
            found = f"begun at {_began(later)}, while {earlier.row.id} had it until {ended or 'now'}"
            yield about(I19, later, "a turn begins after the one before it has ended", found, "ledger.json events")


def _in_order(view: View, name: str, messages: Sequence[MessageRow]) -> Iterator[Finding]:
    """Messages count from 1, and each turn's stand together."""
    in_order = sorted(messages, key=lambda message: message.seq)
    where = ("ledger.json messages",)
    seqs = [message.seq for message in in_order]
    if seqs != list(range(1, len(seqs) + 1)):
        expected = f"messages of {name} that count from 1 without a gap"
        yield Finding(invariant=I19, expected=expected, found=f"{seqs[:20]}", rests_on=where)
    speakers = [job_id for job_id, _ in groupby(in_order, key=lambda message: message.job_id)]
    for job_id in sorted({each for each in speakers if speakers.count(each) > 1}):
        expected = f"what a turn of {name} has said stands together"
        yield Finding(invariant=I19, expected=expected, found="others spoke in between", job=job_id, rests_on=where)
    for job_id in sorted(set(speakers) - view.jobs.keys()):
        yield Finding(invariant=I19, expected="no message without its job", found=f"in {name}", job=job_id)


def _amounts(view: View, messages: Sequence[MessageRow]) -> Iterator[Finding]:
    """A turn that succeeded has said as much as its param ``says`` has it, once; one that did not has said nothing.

    Nor has one that a person says has happened: what its attempt would have said was never brought.
    """
    said: dict[str, int] = {}
    for message in messages:
        said[message.job_id] = said.get(message.job_id, 0) + 1
    for job in view.jobs.values():
        heard = said.get(job.row.id, 0)
        says = None if job.decision is None else job.decision.params.get("says")
        if job.row.state != State.SUCCEEDED or is_by_a_person(job):
            if heard:
                by = " by a person's word" if job.row.state == State.SUCCEEDED else ""
                expected = f"nothing said by a turn that is {job.row.state}{by}"
                yield about(I19, job, expected, f"{heard} messages", "ledger.json messages")
        elif isinstance(says, int) and says != heard:
            yield about(I19, job, f"{says} messages, said once", f"{heard}", "ledger.json messages")
