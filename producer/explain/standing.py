"""Where a job stands and why, in a sentence or two, and what to do next: one function for each state."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from producer.explain import people
from producer.explain.gates import transition
from producer.explain.sentences import job_named, spent
from producer.explain.words import Step, as_argument, brief, counted, error_in, moment, quoted, span, until
from producer.ledger.states import State
from producer.ledger.story import COUNTED, Story
from producer.redact import redact

# How long a job may be due before that is worth a word about workers: a ring may have got lost.
LATE_SECONDS = 15.0

Answer = tuple[str, list[Step]]


def answer(story: Story) -> Answer:
    """Return the headline, and what to do next."""
    headline, steps = STANDING.get(story.record.state, _otherwise)(story)
    if story.newer is not None:
        headline += f" Its key stands for a newer job since, {story.newer}."
        steps = [*steps, Step(text="To see that one", command=f"surefoot explain {story.newer}")]
    return headline, steps


def asked_by(story: Story) -> str:
    """Return who wanted it, and why."""
    record = story.record
    agent = f"agent {brief(record.agent_id)}" if record.agent_id else "somebody who gave no name"
    reason = f", because {quoted(redact(record.reasoning))}" if record.reasoning else ", and gave no reason"
    return f"{agent} asked for it{reason}"


def _error(story: Story) -> str:
    return error_in({"error": redact(story.record.error)})


def _again(story: Story) -> Step:
    action = as_argument(story.record.action)
    return Step(
        text="To have it done after all, ask for it under another key",
        command=f"surefoot enqueue {action} PARAMS --key NEW_KEY --request-id {as_argument(story.record.request_id)}",
    )


def _show(story: Story) -> Step:
    return Step(text="To see all that is on record", command=f"surefoot show {story.record.id}")


# ---- it has ended --------------------------------------------------------------------------------------------------


def _succeeded(story: Story) -> Answer:
    record, took = story.record, ""
    if record.finished_at is not None:
        took = f", {span((record.finished_at - record.accepted_at).total_seconds())} after it was accepted"
    attempts = "in its first attempt" if record.attempt == 1 else f"in attempt {record.attempt}"
    found = next((event for event in reversed(story.events) if event.kind in ("verified", "resolved")), None)
    if found is not None and found is story.last:
        attempts = "by a look at the other side" if found.kind == "verified" else "by a person's word"
    money = "" if record.tokens_in is None else f" In all it {spent(_money(story))}."
    return f"It ran and succeeded {attempts}{took}: {asked_by(story)}.{money}", _undo(story)


def _money(story: Story) -> dict[str, object]:
    record = story.record
    return {"tokens_in": record.tokens_in, "tokens_out": record.tokens_out, "cost_usd": record.cost_usd}


def _undo(story: Story) -> list[Step]:
    undo = story.published.policy.get("undo") if story.published is not None else None
    if not undo:
        return []
    text = f"To have it undone by {brief(undo)}"
    return [Step(text=text, command=f"surefoot undo {story.record.id} --reason REASON")]


def _degraded(story: Story) -> Answer:
    rule = f"by the rule {quoted(story.record.degraded_by)}"
    later = next((job for job in story.follow_ups if job.action == story.record.action), None)
    headline = f"It has no result, {rule}{_error(story)}; its action's fallback stands in for one."
    if later is None:
        return headline, [_show(story)]
    headline += f" Job {later.id} is to bring the true one, and is {later.state}."
    return headline, [Step(text="To see how that stands", command=f"surefoot explain {later.id}")]


def _failed(story: Story) -> Answer:
    headline = f"It failed for good{_error(story)}. It is not tried again by itself."
    return headline, [_again(story)]


def _dead(story: Story) -> Answer:
    last = story.last
    if last is not None and last.kind == "resolved":
        return "It was given up by a person while its effect may have happened. Nobody moves it any more.", [
            _again(story)
        ]
    spent_up = f"after {counted(story.record.attempt, 'attempt')}"
    headline = f"It is dead {spent_up}{_error(story)}. It surely had no effect, and is not tried again by itself."
    if story.newer is not None:
        return headline, []
    retry = f"surefoot retry {story.record.id} --reason REASON"
    return headline, [Step(text="Once what it died of is gone, give it one more attempt", command=retry)]


def _cancelled(story: Story) -> Answer:
    return "It did not run: it was cancelled before its effect had begun, and nothing happened.", [_again(story)]


def _expired(story: Story) -> Answer:
    undecided = people.undecided(story)
    if undecided is not None:
        return undecided, [_again(story)]
    deadline = "" if story.record.deadline_at is None else f", {moment(story.record.deadline_at)},"
    return f"It did not run: its deadline{deadline} passed before its effect had begun.", [_again(story)]


def _rejected(story: Story) -> Answer:
    return people.refused_by(story), [_again(story)]


# ---- somebody has to do something ----------------------------------------------------------------------------------


def _in_doubt(story: Story) -> Answer:
    record, job = story.record, f"surefoot resolve {story.record.id}"
    error = _error(story)
    last = f"Its last attempt ended{error}. " if error else ""
    doubt = f"{last}Its effect may have happened, and nobody can say. So it is not tried again"
    if record.looks_left:
        looks = f"{counted(record.looks_left, 'look')} left, the next {until(record.due_at, story.now)}"
        return f"{doubt}: its action looks up what became of it ({looks}).", [
            Step(text="If you know already, say so; your word goes before", command=f"{job} --happened RESULT …")
        ]
    intent = next((event for event in reversed(story.events) if event.kind == "intended"), None)
    key = (intent.data or {}).get("downstream_key") if intent is not None else None
    books = f" by the key {brief(key)}" if key else ""
    when = f" at {moment(intent.at)}" if intent is not None else ""
    return f"{doubt}: a person has to find out what happened{when}.", [
        Step(
            text=f"Look into the other side's books{books}. If it happened",
            command=f"{job} --happened RESULT --reason REASON",
        ),
        Step(text="If it did not happen", command=f"{job} --retry --reason REASON"),
        Step(text="If nobody will find out", command=f"{job} --abandon --reason REASON"),
    ]


# ---- a worker has it -----------------------------------------------------------------------------------------------


def _claimed(story: Story) -> Answer:
    return f"It is about to run: {_owner(story)}; its effect has not begun.{_stop(story)}", []


def _running(story: Story) -> Answer:
    record = story.record
    headline = f"It is running: {_owner(story)}, in attempt {record.attempt} ({record.effect})."
    return f"{headline}{_stop(story)}", []


def _owner(story: Story) -> str:
    record = story.record
    owner, lease = brief(record.lease_owner or "a worker"), record.lease_expires_at
    if lease is not None and lease < story.now:
        silent = span((story.now - lease).total_seconds())
        return f"worker {owner} had it and has been silent for {silent} beyond its lease, so another takes it over"
    return f"worker {owner} has it under fence {record.fence}"


def _stop(story: Story) -> str:
    asked = story.record.cancel_requested_at is not None
    return " Somebody asked to cancel it; what has begun is not taken back." if asked else ""


# ---- it waits ------------------------------------------------------------------------------------------------------


def _queued(story: Story) -> Answer:
    if story.record.due_at > story.now:
        return f"It does not run yet: it is for later, {until(story.record.due_at, story.now)}.", [_cancel(story)]
    return _due(story, "It does not run yet")


def _waiting(story: Story) -> Answer:
    say = WAITS.get(story.record.waiting_for or "", _waits_otherwise)
    if story.record.due_at <= story.now and story.record.waiting_for != "conversation":
        headline, _ = say(story)
        due, steps = _due(story, "Since then it is due")
        return f"{headline} {due}", steps
    return say(story)


def _due(story: Story, begins: str) -> Answer:
    """Say why nobody takes a job that is due: another version, a crowd, or nobody there. None of it is certain."""
    record, traffic = story.record, story.traffic
    late = (story.now - record.due_at).total_seconds()
    headline = f"{begins}: it is due for {span(late)}, and no worker has taken it."
    published = story.published
    if published is None or published.version != story.action_version:
        theirs = "none" if published is None else f"version {published.version}"
        headline += f" It was accepted for version {story.action_version} of its action, and workers publish {theirs}."
        return headline, [
            Step(
                text=f"Start a worker that has version {story.action_version}; or let it go",
                command=f"surefoot cancel {record.id} --reason REASON",
            )
        ]
    guarded, loading = people.unloaded(story) if late >= LATE_SECONDS else ("", [])
    headline += guarded
    if traffic is not None and traffic.due and traffic.of_queue:
        more = " or more" if traffic.due >= COUNTED else ""
        headline += f" {counted(traffic.due, 'other job')}{more} of queue {brief(record.queue)} are due, too;"
        headline += f" workers have {counted(traffic.of_queue, 'job')} of it."
        return headline, [
            Step(
                text="More workers, or more of their places, shorten the queue", command="surefoot jobs --state claimed"
            ),
            *loading,
        ]
    if late < LATE_SECONDS:
        return f"{headline} That is not long.", []
    nobody = f" No worker has any job of queue {brief(record.queue)} just now:"
    headline += f"{nobody} none may be running, or none serves that queue, or the action is paused."
    return headline, [
        Step(text="See whether a worker runs", command="celery -A worker.app inspect active_queues"),
        Step(text="Start one for that queue", command=f"surefoot-worker start -Q {as_argument(record.queue)}"),
        *loading,
    ]


def _cancel(story: Story) -> Step:
    return Step(text="To let it go", command=f"surefoot cancel {story.record.id} --reason REASON")


def _waits_retry(story: Story) -> Answer:
    record = story.record
    most = story.published.policy.get("max_retries") if story.published is not None else None
    of = "" if most is None else f" of at most {int(most) + 1}"
    nth = f"attempt {record.attempt + 1}{of}"
    return f"It is tried again, for {nth}, {until(record.due_at, story.now)}: the last one failed{_error(story)}.", [
        _cancel(story)
    ]


def _waits_breaker(story: Story) -> Answer:
    on = story.record.waiting_on or ""
    latest = next((move for move in story.transitions if move.name == on), None)
    stands = f" It is {transition(latest)}." if latest is not None else ""
    headline = f"It waits for the breaker of {brief(on)}.{stands} It comes back {until(story.record.due_at, story.now)}"
    name = as_argument(on)
    return f"{headline}, or soon after the breaker has closed.", [
        Step(text="See how it stands now", command=f"surefoot breaker {name}"),
        Step(
            text="If you know that it is well again", command=f"surefoot breaker {name} close --for 10m --reason REASON"
        ),
    ]


def _waits_rate(story: Story) -> Answer:
    due = until(story.record.due_at, story.now)
    if story.record.waiting_on is None:
        return f"It waits, since as many of its action as may begin in that time have begun; due {due}.", []
    return f"It waits, since {brief(story.record.waiting_on)} asked for patience; due {due}.", []


def _waits_concurrency(story: Story) -> Answer:
    running = "" if story.traffic is None else f" Workers have {counted(story.traffic.of_action, 'job')} of it now."
    return f"It waits for a place: as many of its action as may run were running.{running}", []


def _waits_conversation(story: Story) -> Answer:
    turn, name = story.turn_of, brief(story.record.conversation_id)
    if turn is None:
        behind = next((e.data.get("behind") for e in reversed(story.events) if e.kind == "held" and e.data), None)
        first = f": {job_named(story, str(behind))} was first" if behind else ""
        return f"It waits for its turn in conversation {name}{first}. Nobody has the turn now.", []
    headline = (
        f"It waits for its turn in conversation {name}: job {turn.id} has it ({brief(turn.action)}, {turn.state})"
    )
    stuck = ", and until somebody resolves that, no turn follows." if turn.state is State.IN_DOUBT else "."
    return f"{headline}{stuck}", [Step(text="To see why that takes so long", command=f"surefoot explain {turn.id}")]


def _waits_worker(story: Story) -> Answer:
    lost = f", and it has taken {counted(story.record.crashes, 'worker')} down" if story.record.crashes else ""
    return f"It waits for another worker: the last one stopped or fell silent{lost}.", []


def _waits_repair(story: Story) -> Answer:
    return f"It waits for the model to repair its answer{_error(story)}.", []


def _waits_retries(story: Story) -> Answer:
    on = brief(story.record.waiting_on or "its dependency")
    due = until(story.record.due_at, story.now)
    return f"It waits, since the fleet has used up the retries that {on} may get; due {due}.", []


def _waits_budget(story: Story) -> Answer:
    due = until(story.record.due_at, story.now)
    return f"It waits for its budget: what it would cost is more than is left; due {due}.", [
        Step(text="See what is spent, reserved and left", command="surefoot budgets")
    ]


def _waits_otherwise(story: Story) -> Answer:
    return f"It waits for {brief(story.record.waiting_for)}; due {until(story.record.due_at, story.now)}.", []


def _otherwise(story: Story) -> Answer:
    return f"It is {brief(story.record.state)}.", [_show(story)]


STANDING: Mapping[State, Callable[[Story], Answer]] = {
    State.AWAITING_APPROVAL: people.awaiting,
    State.QUEUED: _queued,
    State.WAITING: _waiting,
    State.CLAIMED: _claimed,
    State.RUNNING: _running,
    State.IN_DOUBT: _in_doubt,
    State.SUCCEEDED: _succeeded,
    State.DEGRADED: _degraded,
    State.FAILED: _failed,
    State.DEAD: _dead,
    State.CANCELLED: _cancelled,
    State.REJECTED: _rejected,
    State.EXPIRED: _expired,
}
WAITS: Mapping[str, Callable[[Story], Answer]] = {
    "retry": _waits_retry,
    "breaker": _waits_breaker,
    "rate": _waits_rate,
    "concurrency": _waits_concurrency,
    "conversation": _waits_conversation,
    "worker": _waits_worker,
    "repair": _waits_repair,
    "retries": _waits_retries,
    "budget": _waits_budget,
    "policy": people.waits_for_policy,
}
