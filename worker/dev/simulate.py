"""``surefoot-worker simulate``: jobs that meet what goes wrong out there, told event by event from the ledger."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from producer import render
from producer.job import Job
from producer.ledger.reads import Event
from producer.ledger.states import CLOSED, State
from worker.dev.stage import FOLDER, stage, worker
from worker.dev.standins import stand_ins
from worker.dev.world import world

LOOK_SECONDS = 0.02
ACTIONS = {"SUREFOOT_ACTION_MODULES": "worker.dev.simulated"}


def run_simulation(failures: int, *, key: str | None = None) -> int:
    """Enqueue a job that fails `failures` times, twice with one key, and tell what happens as it happens.

    Returns:
        0 where it succeeded.

    Raises:
        SurefootError: If a server or the worker does not come up.
    """
    console = render.console()
    environment = ACTIONS
    with (
        stage(FOLDER / "demo", log=lambda line: console.print(Text(line, "dim"))) as on,
        worker(on, concurrency=1, environment=environment) as performing,
    ):
        performing.wait()
        key = key or f"simulate-{secrets.token_hex(4)}"
        params = {"failures": failures}
        job = on.producer.enqueue("simulate.call", params, idempotency_key=key, reasoning="to see a retry")
        console.print(f"\nenqueued {job.id}  idempotency key {key}  {job.outcome}")
        again = on.producer.enqueue("simulate.call", params, idempotency_key=key)
        console.print(f"enqueued again with the same key: {again.outcome}, job {again.id}\n")
        tell(job, console)
        console.print(Text(f"\nresult: {job.result}" if job.state is State.SUCCEEDED else f"\n{job.state}", "bold"))
        console.print(f"history: .venv/bin/surefoot show {job.id}")
        return 0 if job.state is State.SUCCEEDED else 1


def run_scenarios(names: Sequence[str]) -> int:
    """Play scenarios of `worker.dev.scenarios` on real servers, with stand-ins for the world outside.

    Returns:
        0 where each showed what it should.

    Raises:
        SurefootError: If a server or the worker does not come up.
    """
    from worker.dev.scenarios import FAULTS, Play, play_all  # noqa: PLC0415  it tells its jobs by this module

    console = render.console()
    with (
        stand_ins(faults=FAULTS) as services,
        stage(FOLDER / "demo", log=lambda line: console.print(Text(line, "dim"))) as on,
        worker(on, concurrency=8, environment=ACTIONS | world(services)) as performing,
    ):
        performing.wait()
        play = Play(on, services, console, f"simulate-{secrets.token_hex(4)}")
        return 0 if play_all(names, play) else 1


def tell(job: Job, console: Console, *, told: int = 0, until: Collection[State] = CLOSED) -> int:
    """Tell what becomes of a job, as it happens, until it stands so; return how many of its events are told.

    Args:
        job: The job.
        console: Where to.
        told: How many of its events were told before.
        until: States in which it ends; by default all in which the job has ended.
    """
    while True:
        ended = job.refresh().state in until
        for event in job.events[told:]:
            console.print(_worded(event))
            told += 1
        if ended:
            return told
        time.sleep(LOOK_SECONDS)


def _worded(event: Event) -> Text:
    data = event.data or {}
    at = (f"{event.at:%H:%M:%S.%f}"[:-3] + "  ", "dim")
    match event.kind:
        case "attempt_failed":
            said, style = f"attempt {event.attempt} failed: {data['error']['message']}", "yellow"
            said += f"\n{'':14}retrying in {data['delay']:.2f} s"
        case "succeeded":
            said, style = f"attempt {event.attempt} succeeded", "bold green"
        case "intended":
            said, style = f"attempt {event.attempt} begins; intent committed, effect class {data['effect']}", ""
        case "held":
            said = data["error"]["message"] if "error" in data else data["why"]
            said, style = f"held: {said}; no attempt is spent, back in {data['delay']:.2f} s", "yellow"
        case "degraded":
            said, style = f"degraded: {data['why']}; the fallback stands in ({data['fallback']})", "bold yellow"
        case "dead" | "failed" | "in_doubt":
            error = data.get("error") or {}
            said, style = f"{event.kind.replace('_', ' ')}: {data['why']}: {error.get('message')}", "bold red"
        case "claimed":
            said, style = f"claimed by {event.worker}, fence {event.fence}", "dim"
        case _:
            said, style = _of_people(event.kind, data)
    return Text.assemble(at, (said, style))


def _of_people(kind: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """Word what policies and people say; anything else by its name."""
    match kind:
        case "policy":
            why = f": {data['reason']}" if "reason" in data else ""
            verdict = data["verdict"].replace("_", " ")
            return f"policy {data['rule']}, version {data['version']}, says {verdict}{why}", ""
        case "approval_requested":
            return f"waits for a person: {data['reason']}", "yellow"
        case "approved":
            return f"approved by {data['who']}: {data['reason']}", "bold green"
    return kind.replace("_", " "), "dim"
