"""A job's history in sentences: one for each event, and one for each thing that the decision itself says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from producer.explain.gates import GATES, held
from producer.explain.words import Line, Topic, brief, counted, error_in, moment, plain, quoted, safe, span
from producer.ledger.reads import Event
from producer.ledger.story import Story
from producer.redact import redact

# How the rules of docs/retries-and-breakers.md are said of an attempt that is not tried again.
RULES = {
    "refused": "which is final",
    "follow-ups refused": "since the jobs that it asked to follow cannot be accepted",
    "invalid result after the effect": "since its result is not of the declared type, and an effect is not repeated",
    "out of repairs": "and its answer had been given back to be repaired as often as the action allows",
    "out of retries": "and it was out of retries",
    "no time before the deadline": "and there was no time for another before the deadline",
    "a repeat may be a second effect": "and a repeat may be a second effect",
    "params refused": "since its params do not fit the action as it is now",
    "it took too many workers down": "since it took too many workers down",
    "deadline passed": "since its deadline had passed",
    "cancelled": "since it was to be cancelled",
    "denied": "since a policy denies it",
}
LOOKED = {
    "happened": "it happened",
    "did_not_happen": "it was not there",
    "unknown": "nobody could tell",
}


@dataclass(frozen=True, slots=True)
class Telling:
    """One event on its way to becoming a sentence; `facts` is what it says, secrets redacted."""

    story: Story
    event: Event
    facts: Mapping[str, Any]

    @property
    def worker(self) -> str:
        """Who it is about."""
        return brief(self.event.worker) if self.event.worker else "A worker"

    @property
    def attempt(self) -> str:
        """Which attempt it is about."""
        return "The attempt" if self.event.attempt is None else f"Attempt {self.event.attempt}"

    @property
    def why(self) -> str:
        """The rule that decided."""
        return str(self.facts.get("why") or "")

    @property
    def rule(self) -> str:
        """The same as a clause that follows what happened."""
        return RULES.get(self.why, f"by the rule {quoted(self.why)}" if self.why else "")

    @property
    def who(self) -> str:
        """Who did it, and from where."""
        who = self.facts.get("who") or self.facts.get("by")
        via = self.facts.get("via")
        return f"{brief(who) if who else 'Somebody'}{f' ({brief(via)})' if via else ''}"

    @property
    def because(self) -> str:
        """What they gave as a reason."""
        reason = self.facts.get("reason")
        return f": {quoted(reason)}" if reason else ", and gave no reason"

    @property
    def took(self) -> str:
        """How long the attempt was at its effect: `` after 12 ms``; empty where it never began."""
        began = [e.at for e in self.story.events if e.kind == "intended" and e.fence == self.event.fence]
        return f" after {span((self.event.at - began[-1]).total_seconds())}" if began else ""


def lines_of(story: Story) -> Iterator[Line]:
    """Yield a job's history in order."""
    for event in story.events:
        if event.kind == "accepted":
            yield from _asked(story, event)
        else:
            yield told(story, event)
            yield from _model(event)


def told(story: Story, event: Event) -> Line:
    """Return one event as a sentence; one of a kind that is not known here says what it says."""
    found = redact(event.data)
    facts = found if isinstance(found, dict) else {} if found is None else {"says": found}
    if facts.keys() == {"erased"}:  # by its digest; there is a line of its own that says by whom
        facts = {}
    topic, say = SENTENCES.get(event.kind) or GATES.get(event.kind) or ("other", lambda t: plain(t.event.kind, t.facts))
    try:
        text = say(Telling(story, event, facts))
    except (KeyError, TypeError, ValueError, AttributeError):  # an event from another version, or somebody's own hand
        text = plain(event.kind, facts)
    return line(topic, text, event, facts)


def line(topic: Topic, text: str, event: Event, facts: Mapping[str, Any] | None = None) -> Line:
    """Return a sentence that rests on an event."""
    return Line(
        topic=topic,
        text=safe(text),
        at=event.at,
        seq=event.seq,
        kind=event.kind,
        attempt=event.attempt,
        worker=event.worker,
        fence=event.fence,
        facts=facts or {},
    )


# ---- who asked for it ----------------------------------------------------------------------------------------------


def _asked(story: Story, event: Event) -> Iterator[Line]:
    record = story.record
    agent = f"Agent {brief(record.agent_id)}" if record.agent_id else "Somebody"
    behalf = f" for user {brief(record.user_id)}" if record.user_id else ""
    key = f"key {brief(record.idempotency_key)}"
    derived = ", which was derived since none was given" if record.key_derived else ""
    request = f"request {brief(record.request_id)}"
    yield line(
        "asked",
        f"{agent} asked for {brief(record.action)}{behalf} in {request}, under {key}{derived}.",
        event,
        redact(event.data),
    )
    origin = _origin(story)
    if origin:
        yield line("asked", origin, event)
    if record.reasoning:
        yield line("asked", f"The reason given: {quoted(redact(record.reasoning))}", event)
    if record.deadline_at is not None:
        yield line("asked", f"It is of no use after {moment(record.deadline_at)}.", event)


def _origin(story: Story) -> str:
    record = story.record
    if record.idempotency_key.startswith("schedule:") and isinstance(record.input, dict) and "tick" in record.input:
        name, tick = record.input.get("schedule"), record.input["tick"]
        return f"It was made by schedule {brief(name)} for its tick of {brief(tick)}."
    if record.parent_job_id is None:
        return ""
    parent = job_named(story, record.parent_job_id)
    word = record.idempotency_key.removeprefix(f"{record.parent_job_id}:")
    if word == "true-result":
        return f"It is to bring the true result of {parent}, for which a fallback stood in."
    if word == "undo":
        return f"It is to undo {parent}."
    return f"It follows {parent}, whose action asked for it."


def job_named(story: Story, job_id: UUID | str) -> str:
    """Return a job as a sentence names it."""
    try:
        found = story.related.get(job_id if isinstance(job_id, UUID) else UUID(job_id))
    except ValueError:
        found = None
    return f"job {brief(str(job_id))}" if found is None else f"job {found.id} ({brief(found.action)}, {found.state})"


# ---- attempts ------------------------------------------------------------------------------------------------------


def _claimed(t: Telling) -> str:
    number = f" for attempt {t.event.attempt}" if t.event.attempt is not None else ""
    return f"Worker {t.worker} took it{number}, under fence {t.event.fence}."


def _intended(t: Telling) -> str:
    effect, key, timeout = (t.facts.get(name) for name in ("effect", "downstream_key", "timeout"))
    limit = f", in at most {span(float(timeout))}" if isinstance(timeout, int | float) else ""
    if effect == "pure":
        return f"{t.attempt} began{limit}; it changes nothing outside."
    under = f", under the key {brief(key)}" if key and effect == "keyed" else ""
    return f"{t.attempt} put on record that its effect ({brief(effect)}) was about to happen{under}{limit}."


def _succeeded(t: Telling) -> str:
    follow_ups = t.facts.get("follow_ups")
    brought = f", and brought {counted(follow_ups, 'follow-up')}" if isinstance(follow_ups, int) else ""
    return f"{t.attempt} succeeded{t.took}{brought}."


def _degraded(t: Telling) -> str:
    place = t.facts.get("fallback")
    stands_in = f"the fallback {brief(place)} stands in" if place else "the declared fallback stands in"
    later = t.facts.get("true_result")
    comes = f" {job_named(t.story, later).capitalize()} is to bring the true one." if later else ""
    return f"There is no result, by the rule {quoted(t.why)}{error_in(t.facts)}: {stands_in}.{comes}"


def _ended(word: str) -> Callable[[Telling], str]:
    def say(t: Telling) -> str:
        rule = t.facts.get("rule")
        clause = f"and its fallback could not stand in ({quoted(rule)})" if t.why == "the fallback failed" else t.rule
        return f"{t.attempt} {word}{t.took}{error_in(t.facts)}{f', {clause}' if clause else ''}."

    return say


def _in_doubt(t: Telling) -> str:
    if t.event.worker is None:  # a person's word came between two attempts
        return f"{t.who} cancelled it when an earlier attempt may have had its effect{t.because}. So it is in doubt."
    if t.event.attempt is None:
        return "Its deadline passed when an earlier attempt may have had its effect. So it is in doubt."
    clause = f", {t.rule}" if t.rule else ""
    return f"{t.attempt} ended{t.took}{error_in(t.facts)}{clause}. Whether its effect happened, nobody can say."


def _attempt_failed(t: Telling) -> str:
    delay = t.facts.get("delay")
    again = f"; to be tried again after {span(float(delay))}" if isinstance(delay, int | float) else ""
    return f"{t.attempt} failed{t.took}{error_in(t.facts)}{again}."


def _returned(t: Telling) -> str:
    return f"Worker {t.worker} was told to stop, or its lease was over, and gave it back. That spent no attempt."


def _repair(t: Telling) -> str:
    return f"{t.attempt} brought an answer that cannot be used{error_in(t.facts)}; it was asked to repair it."


def _rescued(t: Telling) -> str:
    silent, was, becomes = (brief(t.facts[name]) for name in ("silent", "from", "to"))
    crashes = t.facts.get("crashes")
    lost = f" It has taken {counted(crashes, 'worker')} down." if isinstance(crashes, int) else ""
    begun = "before its effect had begun" if was == "claimed" else "when its effect may have begun"
    return f"Worker {silent} fell silent {begun}; {t.worker} took the job over, and it became {becomes}.{lost}"


def _late_result(t: Telling) -> str:
    would_be = brief(t.facts.get("would_be"))
    return f"Worker {t.worker}, which had lost the job, came back with an end ({would_be}). That changed nothing."


def _verified(t: Telling) -> str:
    verdict = str(t.facts.get("verdict"))
    found = LOOKED.get(verdict, brief(verdict))
    becomes = f" It became {brief(t.facts['to'])}." if t.facts.get("to") != "in_doubt" else ""
    left = t.facts.get("looks_left")
    more = f" {counted(left, 'look')} left." if isinstance(left, int) and not becomes else ""
    return f"{t.worker} looked up whether the effect happened: {found} ({t.why}){error_in(t.facts)}.{becomes}{more}"


def _superseded(t: Telling) -> str:
    return (
        f"{job_named(t.story, t.facts['by']).capitalize()} brought the true result; the fallback's is not its any more."
    )


# ---- people, and time ----------------------------------------------------------------------------------------------


def _replayed(t: Telling) -> str:
    return f"The same was asked for again ({counted(t.facts['replays'], 'time')} by then): that made no second job."


def _cancelled(t: Telling) -> str:
    if t.event.worker is not None:
        return f"Worker {t.worker} stopped before the effect, since it was to be cancelled. Nothing happened."
    return f"{t.who} cancelled it{t.because}. Nothing had happened."


def _cancel_requested(t: Telling) -> str:
    return f"{t.who} asked to cancel it while a worker had it{t.because}."


def _resolved(t: Telling) -> str:
    found = {"happened": "that it happened", "retry": "that it did not happen, and is to be tried again"}
    verdict = found.get(str(t.facts.get("verdict")), "that nobody will find out")
    return f"{t.who} said {verdict}{t.because}."


def _retried(t: Telling) -> str:
    return f"{t.who} gave it one more attempt{t.because}."


def _undone(t: Telling) -> str:
    return f"{t.who} had {job_named(t.story, t.facts['job_id'])} undo it{t.because}."


def _erased(t: Telling) -> str:
    return f"{t.who} erased its words and figures{t.because}. That they were there stays on record, by their digests."


Sentence = tuple[Topic, Callable[[Telling], str]]

SENTENCES: Mapping[str, Sentence] = {
    "replayed": ("asked", _replayed),
    "claimed": ("attempt", _claimed),
    "intended": ("effect", _intended),
    "held": ("gate", held),
    "succeeded": ("outcome", _succeeded),
    "degraded": ("outcome", _degraded),
    "failed": ("outcome", _ended("failed for good")),
    "dead": ("outcome", _ended("was the last")),
    "in_doubt": ("outcome", _in_doubt),
    "attempt_failed": ("attempt", _attempt_failed),
    "returned": ("attempt", _returned),
    "repair": ("attempt", _repair),
    "rescued": ("attempt", _rescued),
    "late_result": ("attempt", _late_result),
    "verified": ("effect", _verified),
    "superseded": ("outcome", _superseded),
    "cancelled": ("outcome", _cancelled),
    "cancel_requested": ("person", _cancel_requested),
    "expired": ("outcome", lambda _: "Its deadline passed before its effect had begun. Nothing happened."),
    "resolved": ("person", _resolved),
    "retried": ("person", _retried),
    "undo_asked": ("person", _undone),
    "erased": ("person", _erased),
}


# ---- what models cost ----------------------------------------------------------------------------------------------


def _model(event: Event) -> Iterator[Line]:
    facts = event.data if isinstance(event.data, dict) else {}
    if facts.get("tokens_in") is not None:
        yield line("model", f"That attempt {spent(facts)}.", event)


def spent(facts: Mapping[str, Any]) -> str:
    """Return what a model was paid, as a clause. A cost that nobody knows is not none."""
    cost = facts.get("cost_usd")
    tokens = f"{facts.get('tokens_in') or 0:,} tokens in and {facts.get('tokens_out') or 0:,} out"
    return f"spent {tokens}, {'at a cost that is not known' if cost is None else f'${float(cost):.6f}'}"
