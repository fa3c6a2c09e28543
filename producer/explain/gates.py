"""What gates said, in sentences. A gate that is not known here is told of in plain words by `words.plain`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from producer.breaker_words import OPEN, Transition
from producer.explain import budgets, people
from producer.explain.words import Topic, brief, error_in, moment, quoted, span

if TYPE_CHECKING:
    from producer.explain.sentences import Telling

FULL = {
    "rate limit reached": "as many of this action as may begin in that time had begun",
    "fleet limit reached": "as many of this action as may run in the whole fleet were running",
    "worker limit reached": "as many of this action as may run in that worker were running",
    "limits unknown": "Redis was away, and nobody could say how many of this action were running",
}


def held(t: Telling) -> str:
    """Say which gate put an attempt off."""
    on, delay = t.facts.get("waiting_on"), t.facts.get("delay")
    waits = f" for {span(float(delay))}" if isinstance(delay, int | float) else ""
    if t.facts.get("waiting_for") == "conversation":
        waits = ""
    return f"It was put off{waits}, which spent no attempt: {_why(t, brief(on) if on else 'the dependency')}."


def _why(t: Telling, on: str) -> str:
    if t.why.startswith("breaker "):
        return _breaker(t, on)
    if t.why == "dependency held":
        return f"{on} had asked everybody for patience"
    if t.why == "held":
        return f"{on} asked for patience{error_in(t.facts)}"
    if t.why == "another turn is first":
        return f"the turn in its conversation is job {brief(t.facts.get('behind'))}'s"
    if t.why == "retries used up":
        return f"the fleet had used up the retries that {on} may get, so that it is not kept down by them"
    said = budgets.short(t) or people.of_policy(t.facts, t.why)
    return said or FULL.get(t.why, quoted(t.why) if t.why else "no reason is on record")


def _breaker(t: Telling, on: str) -> str:
    state = t.why.removeprefix("breaker ")
    if state == "unknown":
        return f"nobody could say how the breaker of {on} stood, since Redis was away"
    # By Redis's clock, which is another than the ledger's: the newest that is not clearly later.
    then = next((m for m in t.story.transitions if m.name == t.facts.get("waiting_on") and m.at <= t.event.at), None)
    return f"the breaker of {on} was {brief(state)}{f' ({transition(then)})' if then is not None else ''}"


def transition(move: Transition) -> str:
    """Return what a breaker went through, as a clause."""
    by = f" by {brief(move.who)}" if move.who else ""
    job = f", job {move.job_id}" if move.job_id is not None else ""
    until = f", until {moment(move.until)}" if move.becomes == OPEN and move.until is not None else ""
    return f"{move.becomes} since {moment(move.at)}{by}: {brief(move.reason)}{job}{until}"


# Events of gates other than the ones above.
GATES: Mapping[str, tuple[Topic, Callable[[Telling], str]]] = {
    **people.SAID,
    "budget_reserved": ("gate", budgets.reserved),
    "budget_settled": ("gate", budgets.settled),
}


def gate_facts(facts: Mapping[str, Any], *names: str) -> str:
    """Return those of a gate's facts that are there, as a clause in brackets."""
    told = ", ".join(f"{name.replace('_', ' ')} {brief(facts[name])}" for name in names if facts.get(name) is not None)
    return f" ({told})" if told else ""
