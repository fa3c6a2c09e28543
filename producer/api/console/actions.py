"""What can be asked for: the actions that workers have published, what each takes, and what becomes of what fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from producer.api.console.entry import ConsoleRoute, Looker
from producer.api.console.page import page
from producer.api.console.schemas import fields_of, type_of
from producer.api.console.words import seconds
from producer.api.problems import Problem
from producer.ledger.reads import PublishedAction

router = APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)

EFFECTS: Mapping[str, str] = {
    "pure": "It has no outside effect; tried again, only its result is recorded once.",
    "idempotent": "Repeating it leaves the same state.",
    "keyed": "The other side drops repeats by the key that it is given.",
    "verifiable": "Where it is in doubt, it is looked up whether it happened.",
    "unsafe": "Where it is in doubt, a person decides: it is asked for at most once.",
    "by params": "What repeating it does depends on its params.",
}
EXHAUSTED = {"dead": "the job is dead", "degrade": "the fallback stands in", "fail": "the job fails"}
WITHOUT_REDIS = {"local": "each process keeps them by itself", "hold": "nothing runs", "allow": "there are none"}

Fact = tuple[str, str]


@router.get("/actions")
def actions(request: Request, visitor: Looker) -> Response:
    """List them by name."""
    found = list(visitor.caller.producer.actions().values())
    return page(request, visitor, "actions.html", title="Actions", actions=found)


@router.get("/action")
def action(request: Request, visitor: Looker, name: Annotated[str, Query()]) -> Response:
    """Show one."""
    producer = visitor.caller.producer
    found = producer.actions().get(name)
    if found is None:
        raise Problem("not-found", "no worker has published that action")
    return page(
        request,
        visitor,
        "action.html",
        title=f"Action {name}",
        action=found,
        params=fields_of(found.params_schema),
        result=fields_of(found.result_schema),
        result_type=type_of(found.result_schema),
        effect=EFFECTS.get(found.effect, ""),
        failing=list(failing(found)),
        limits=list(limits(found)),
        policies=[each for each in producer.policies.list() if each.matches(name)],
        budgets=[each for each in producer.budgets.list() if each.covers(name)],
    )


def failing(action: PublishedAction) -> Iterator[Fact]:
    """Say what follows an attempt that fails. A worker of another version may have published more, or less."""
    policy = action.policy
    retries = policy.get("max_retries")
    yield "Tries", "until it succeeds" if retries is None else f"{retries + 1} at most"
    if retries != 0 and policy.get("retry_backoff") is not None:
        spread = "up to " if policy.get("retry_jitter") else ""
        first, most = _span(policy["retry_backoff"]), _span(policy.get("retry_backoff_max"))
        yield "Between them", f"{spread}{first} at first, then ever longer, {most} at most"
    if policy.get("autoretry_for") not in (None, ["Exception"]):
        yield "Tried again for", ", ".join(policy["autoretry_for"])
    if policy.get("dont_autoretry_for"):
        yield "But not for", ", ".join(policy["dont_autoretry_for"])
    if policy.get("max_repairs"):
        yield "Repairs", f"{policy['max_repairs']} more tries after an answer that cannot be used"
    yield "One try takes", f"{_span(policy.get('timeout'))} at most"
    yield "Once all is tried", EXHAUSTED.get(str(policy.get("on_exhausted")), "")
    yield from _named(
        policy,
        fallback="Fallback",
        supersede_after="Tried once more for a true result after",
        verify_after="Nothing of it arrives later than",
        key_ttl="Its key is good for",
        undo="Taken back by",
    )


def limits(action: PublishedAction) -> Iterator[Fact]:
    """Say how much of it may run, and what else stands before it."""
    policy = action.policy
    if policy.get("rate_limit") is not None:
        rate = policy["rate_limit"]
        yield "Rate", rate if isinstance(rate, str) else f"{rate:g} a second"
    yield from _named(policy, fleet_concurrency="At a time, everywhere", max_concurrency="At a time, in one worker")
    if policy.get("rate_limit") is not None or policy.get("fleet_concurrency") is not None:
        yield "While Redis is away", WITHOUT_REDIS.get(str(policy.get("limits_without_redis")), "")
    if policy.get("conversation"):
        yield "One turn at a time", f"of the conversation in {policy['conversation']}"
    if policy.get("dependency"):
        yield "Breaker", str(policy["dependency"])
    if policy.get("breaker"):
        yield "It opens", _opens(policy["breaker"])
        yield "While it is open", "the job waits" if policy.get("on_open") == "hold" else "the fallback stands in"


def _span(number: float | None) -> str:
    """Return a declared duration, which is mostly a whole one."""
    return seconds(number).replace(".0 ", " ")


def _named(policy: Mapping[str, Any], **names: str) -> Iterator[Fact]:
    for name, title in names.items():
        value = policy.get(name)
        if value is not None:
            yield title, _span(value) if name in ("key_ttl", "verify_after", "supersede_after") else str(value)


def _opens(breaker: Mapping[str, Any]) -> str:
    """Say after what a breaker opens."""
    ways = []
    if breaker.get("fail_max") is not None:
        ways.append(f"after {breaker['fail_max']} failures in a row")
    if breaker.get("failure_rate") is not None:
        share, window = f"{breaker['failure_rate']:.0%}", _span(breaker.get("window_seconds"))
        ways.append(f"when {share} of {breaker.get('min_calls')} calls or more in {window} fail")
    if breaker.get("slow_call_seconds") is not None:
        ways.append(f"when {breaker.get('slow_rate', 0):.0%} take longer than {_span(breaker['slow_call_seconds'])}")
    return ", or ".join(ways) or "only by an operator's word"
