"""What policies said, and people, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from producer.explain.words import Step, Topic, as_argument, brief, moment, quoted, span, until
from producer.redact import redact

if TYPE_CHECKING:
    from producer.explain.sentences import Telling
    from producer.ledger.reads import Event
    from producer.ledger.story import Story

VERDICTS = {
    "allow": "had nothing against it",
    "deny": "denied it",
    "require_approval": "wants people to be asked",
    "error": "could not be asked, so nothing got past it",
}


def policy(t: Telling) -> str:
    """Say what a policy said."""
    said = VERDICTS.get(str(t.facts["verdict"]), f"said {brief(t.facts['verdict'])}")
    reason = t.facts.get("reason")
    return f"{_rule(t.facts)} {said}{f': {quoted(reason)}' if reason else ''}."


def requested(t: Telling) -> str:
    """Say who was asked for what."""
    within = f" within {span(float(t.facts['expires_seconds']))}" if "expires_seconds" in t.facts else ""
    return (
        f"{_people(t.facts)} {_were(t.facts)} asked{within}: {quoted(t.facts['reason'])}. It takes no worker's place."
    )


def approved(t: Telling) -> str:
    """Say who approved, and whether that was enough."""
    votes, quorum = t.facts.get("votes"), t.facts.get("quorum")
    count = f", {votes} of {quorum}" if isinstance(quorum, int) and quorum > 1 else ""
    more = "" if t.facts.get("to") == "queued" else "; more have to"
    return f"{t.who} approved it{count}{t.because}{more}."


def rejected(t: Telling) -> str:
    """Say who rejected."""
    return f"{t.who} rejected it{t.because}."


def ahead(t: Telling) -> str:
    """Say who spoke before anybody was asked."""
    word = "approved" if t.event.kind == "approved_ahead" else "rejected"
    return f"{t.who} {word} it before anybody was asked{t.because}."


def escalated(t: Telling) -> str:
    """Say who may decide from now on."""
    return f"Nobody had decided it for so long that more people may: {_people(t.facts)}."


def expired(t: Telling) -> str:
    """Say that it was nobody's word."""
    if t.why == "deadline passed":
        return "Its deadline passed before anybody had decided it."
    return "Nobody decided it in time. That is no refusal: no person said anything."


def superseded(t: Telling) -> str:
    """Say that another question took the place of one."""
    return (
        f"What people were asked before ({brief(t.facts['approval'])}) does not count any more: the policy asks anew."
    )


def withdrawn(t: Telling) -> str:
    """Say who took it back."""
    return f"{t.who} took it back while it waited for people{t.because}."


def edited(t: Telling) -> str:
    """Say which job took its place."""
    return f"{t.who} asked for something else instead, job {brief(t.facts['job'])}{t.because}."


SAID: Mapping[str, tuple[Topic, Callable[[Telling], str]]] = {
    "policy": ("gate", policy),
    "approval_requested": ("gate", requested),
    "approved": ("person", approved),
    "rejected": ("person", rejected),
    "approved_ahead": ("person", ahead),
    "rejected_ahead": ("person", ahead),
    "approval_escalated": ("gate", escalated),
    "approval_expired": ("outcome", expired),
    "approval_superseded": ("gate", superseded),
    "approval_withdrawn": ("person", withdrawn),
    "approval_edited": ("person", edited),
}


def of_policy(facts: Mapping[str, Any], why: str) -> str | None:
    """Say which policy put an attempt off, as a clause; None where it was none."""
    if why == "policy failed":
        return f"policy {brief(facts.get('rule'))} could not be asked, and nothing gets past a policy that cannot be"
    if why == "policy not loaded":
        return f"policy {brief(facts.get('rule'))} has to be asked, and the worker that had it has not loaded that"
    if why == "request changed":
        return "the stored request had just been altered, and is looked at anew"
    if why == "approval gone":
        return "the approval that it rested on was not there any more, and people are asked anew"
    return None


def awaiting(story: Story) -> tuple[str, list[Step]]:
    """Say who is asked what of a job that waits for people, and how they answer."""
    asked = _last(story, "approval_requested")
    found = redact(asked.data) if asked is not None else None
    facts = found if isinstance(found, dict) else {}
    quorum = facts.get("quorum")
    count = f"{quorum} of them have to" if isinstance(quorum, int) and quorum > 1 else "one of them has to"
    question = f", asked at {moment(asked.at)}: {quoted(facts.get('reason'))}" if asked is not None else ""
    headline = (
        f"It does not run yet: {_people(facts)} {_were(facts, 'is', 'are')} asked, and {count} approve it{question}."
    )
    answer = f"{story.record.id} --digest DIGEST --reason REASON"
    return f"{headline} It takes no worker's place meanwhile.", [
        Step(text="To see what is to be approved, with its digest", command=f"surefoot approval {story.record.id}"),
        Step(text="To decide it", command=f"surefoot approve {answer}"),
        Step(text="Or", command=f"surefoot reject {answer}"),
        Step(text="To let it go instead", command=f"surefoot cancel {story.record.id} --reason REASON"),
    ]


def waits_for_policy(story: Story) -> tuple[str, list[Step]]:
    """Say of a job that a policy could not be asked about when it is asked again."""
    held = _last(story, "held")
    facts = (held.data or {}) if held is not None else {}
    clause = of_policy(facts, str(facts.get("why") or "")) or "a policy has not let it pass"
    again = until(story.record.due_at, story.now)
    if facts.get("why") == "policy not loaded":
        return f"It waits: {clause}. A worker that has may take it {again}.", not_loaded_steps(str(facts.get("rule")))
    return f"It waits: {clause}. It is asked about again {again}.", [
        Step(text="To see the policies, and what they say of past jobs", command="surefoot policy test --since 1d"),
        Step(text="To let it go instead", command=f"surefoot cancel {story.record.id} --reason REASON"),
    ]


def unloaded(story: Story) -> tuple[str, list[Step]]:
    """Say which policies a worker has to have loaded to take a job, and what if none has; empty where there is none."""
    if not story.policies:
        return "", []
    named = " and ".join(f"{brief(each.name)} (version {each.version})" for each in story.policies)
    verb = "has" if len(story.policies) == 1 else "have"
    said = f" Policy {named} {verb} to be asked about it: a worker that has not loaded that leaves it alone."
    return said, not_loaded_steps(story.policies[0].name)


def not_loaded_steps(name: str) -> list[Step]:
    """Return what to do where no worker has loaded a policy that has to be asked."""
    return [
        Step(text="To see what is published, and what of it your code lacks", command="surefoot policy published"),
        Step(
            text="If no code declares it any more",
            command=f"surefoot policy retire {as_argument(name)} --reason REASON",
        ),
    ]


def undecided(story: Story) -> str | None:
    """Say that a job ended since nobody decided it in time; None where it ended otherwise."""
    if _last(story, "approval_expired") is None:
        return None
    return "It did not run: people were asked, and nobody decided it in time. Nobody has refused it."


def refused_by(story: Story) -> str:
    """Say who rejected a job, and why."""
    last = _last(story, "rejected")
    facts = (redact(last.data) or {}) if last is not None else {}
    who, reason = facts.get("who"), facts.get("reason")
    because = f": {quoted(reason)}" if reason else ""
    return f"It did not run: {brief(who) if who else 'a person'} refused it{because}."


def _last(story: Story, kind: str) -> Event | None:
    return next((event for event in reversed(story.events) if event.kind == kind), None)


def _rule(facts: Mapping[str, Any]) -> str:
    return f"Policy {brief(facts['rule'])}, version {brief(facts['version'])},"


def _people(facts: Mapping[str, Any]) -> str:
    names = [brief(name) for name in facts.get("approvers") or ()]
    roles = [f"whoever is {brief(role)}" for role in facts.get("roles") or ()]
    return ", ".join(names + roles) or "anybody but who asked"


def _were(facts: Mapping[str, Any], one: str = "was", more: str = "were") -> str:
    return more if len(facts.get("approvers") or ()) + len(facts.get("roles") or ()) > 1 else one
