"""``make demo``: a support desk works through its tickets on real servers, while the world around it fails."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from producer import render
from producer.ledger.reads import JobRecord
from worker.dev.desk import Desk, Handled
from worker.dev.scenarios import Play, play_all
from worker.dev.simulate import ACTIONS
from worker.dev.stage import FOLDER, Stage, environment_file, flower, stage, worker
from worker.dev.standins import MODEL, TICKETS, StandIns, Ticket, read_tickets, stand_ins
from worker.dev.world import mail_and_proxy, world

CONCURRENCY = 6


def run_demo(tickets: Path = TICKETS, *, seed: int = 7, faults: bool = True, stay: bool = False) -> int:
    """Run the whole demo; return 0 where every ticket was handled and nothing happened twice.

    Args:
        tickets: A JSONL file; see tickets.jsonl for the shape.
        seed: Of the faults.
        faults: Whether to inject any.
        stay: Keep the servers and Flower up at the end, until Ctrl-C.

    Raises:
        ValueError: If a line of `tickets` is not a ticket.
        SurefootError: If a server or the worker does not come up.
    """
    console = render.console()
    began = time.monotonic()

    def say(message: str) -> None:
        console.print(Text.assemble((f"{time.monotonic() - began:6.1f} s  ", "dim"), message))

    desk_tickets = read_tickets(tickets)
    with (
        stand_ins(seed=seed, faults=faults, tickets=tickets) as services,
        stage(FOLDER / "demo", log=say) as on,
        worker(on, concurrency=CONCURRENCY, environment=_environment(services)) as performing,
        flower(on) as watching,
    ):
        model, whose = _model(services)
        performing.wait()
        say(f"Celery worker up, {CONCURRENCY} jobs at a time; its log is {performing.log}")
        watching.wait()
        say(f"Flower at {watching.address}")
        say(f"Model: {whose}")
        say(f"{len(desk_tickets)} tickets from {tickets.name}; every decision is asked for twice with one key")
        desk = Desk(on.producer, services.orders_url, model, run=f"demo-{secrets.token_hex(3)}")
        handled = _work(desk, desk_tickets, console)
        went = not faults or play_all(["breaker", "approval"], Play(on, services, console, desk.run))
        records = [job.refresh().record for each in handled for job in each.jobs]
        console.print(_chain_worth_reading(desk, handled, on))
        console.print(_summary(handled, records, services))
        problems = _problems(handled, services) + ([] if went else ["the breaker, or what needed a person: see above"])
        console.print(_verdict(problems, handled, records))
        console.print(_where_next(on, desk, handled))
        if stay:
            _stay(console, on, watching.address)
    return 1 if problems else 0


def _work(desk: Desk, tickets: Sequence[Ticket], console: Console) -> list[Handled]:
    columns = (TextColumn("  tickets"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(tickets))
        return desk.work(tickets, done=lambda _: progress.advance(bar))


def _environment(services: StandIns) -> dict[str, str]:
    return ACTIONS | (mail_and_proxy(services) if _has_real_model() else world(services))


def _has_real_model() -> bool:
    return bool(os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"))


def _model(services: StandIns) -> tuple[str, str]:
    if _has_real_model():
        model = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
        return model, f"{model} at {os.environ.get('OPENAI_BASE_URL', 'the SDK default')} (OPENAI_MODEL changes it)"
    return MODEL, f"a STAND-IN at {services.llm_url}: keyword rules, no model. Set OPENAI_API_KEY to use a real one"


def _chain_worth_reading(desk: Desk, handled: Sequence[Handled], on: Stage) -> RenderableType:
    """Draw the chain of the ticket that took the most attempts: it has the most to tell."""

    def attempts(each: Handled) -> int:
        return sum(job.record.attempt for job in each.jobs) + 10 * (each.refunded is not None)

    chosen = max(handled, key=attempts)
    request_id = f"{desk.run}/{chosen.ticket.id}"
    return Group("", render.chain(request_id, on.producer.chain(request_id)), "")


def _summary(handled: Sequence[Handled], records: Sequence[JobRecord], services: StandIns) -> RenderableType:
    table = Table(title="What happened", title_justify="left", box=None, pad_edge=False)
    for name in ("action", "jobs", "succeeded", "otherwise", "attempts", "retried", "asked for again"):
        table.add_column(name, justify="left" if name in ("action", "otherwise") else "right")
    for action in sorted({record.action for record in records}):
        of = [record for record in records if record.action == action]
        other = Counter(record.state for record in of if record.state != "succeeded")
        table.add_row(
            action,
            str(len(of)),
            str(sum(record.state == "succeeded" for record in of)),
            ", ".join(f"{count} {state}" for state, count in other.items()),
            str(sum(record.attempt for record in of)),
            str(sum(record.attempt > 1 for record in of)),
            str(sum(record.replays for record in of)),
        )
    events = [event.data or {} for each in handled for job in each.jobs for event in job.events]
    held = sum(data.get("waiting_for") == "rate" for data in events)
    faults = Counter(f"{fault.service} {fault.kind}" for fault in services.faults.injected)
    lines = [
        f"faults injected: {', '.join(f'{n} {kind}' for kind, n in sorted(faults.items())) or 'none'}",
        f"held, without an attempt spent, since the other side asked for patience: {held} times",
        f"categories: {', '.join(f'{n} {c}' for c, n in Counter(h.category for h in handled).most_common())}",
        f"left to a person: {', '.join(h.ticket.id for h in handled if h.for_a_person) or 'none'}",
    ]
    return Group(table, "", *map(Text, lines), "")


def _problems(handled: Sequence[Handled], services: StandIns) -> list[str]:
    """Compare what the agent did with what the services say happened to them; they are the witnesses."""
    problems = [f"{each.ticket.id}: {each.trouble}" for each in handled if each.trouble]
    for message_id, count in services.mail.by_message_id.items():
        if count > 1:
            problems.append(f"mail {message_id} was sent {count} times")
    refunds = Counter(refund.order for refund in services.orders.refunds)
    problems += [f"order {order} was paid back {count} times" for order, count in refunds.items() if count > 1]
    ours = [str(job.id) for each in handled for job in each.jobs]  # an earlier run's jobs may be done now, too
    arrived = services.mail.by_message_id.items()
    sent = sum(count for message_id, count in arrived if any(job_id in message_id for job_id in ours))
    answered = sum(each.answered for each in handled)
    if answered != sent:
        problems.append(f"{answered} answers succeeded and {sent} arrived")
    asked, replays = sum(len(each.jobs) for each in handled), sum(each.replays for each in handled)
    if asked != replays:
        problems.append(f"{asked} decisions were asked for twice, and {replays} second requests got the first's job")
    return problems


def _verdict(problems: Sequence[str], handled: Sequence[Handled], records: Sequence[JobRecord]) -> RenderableType:
    if problems:
        return Group(Text("Something is wrong:", "bold red"), *(Text(f"  {problem}") for problem in problems))
    mails, refunds = sum(each.answered for each in handled), sum(each.refunded is not None for each in handled)
    return Text(
        f"Nothing happened twice: {2 * len(records)} requests became {len(records)} jobs, {mails} mails and"
        f" {refunds} refunds, by the count of the services that got them.",
        "bold green",
    )


def _where_next(on: Stage, desk: Desk, handled: Sequence[Handled]) -> RenderableType:
    ticket = handled[0].ticket.id
    return Group(
        "",
        Text("Where to look next", "bold"),
        "  .venv/bin/surefoot-worker dev          the same servers, to try things on; then, as it says:",
        "  .venv/bin/surefoot jobs                what there is",
        f"  .venv/bin/surefoot chain {desk.run}/{ticket}",
        "  .venv/bin/surefoot-worker simulate     one job failing twice, step by step",
        f"  {on.folder / 'worker.log'}    every line with its trace_id, request_id, job_id, attempt",
    )


def _stay(console: Console, on: Stage, address: str) -> None:
    with environment_file(on.folder / "env", on.environment) as file, _ending_quietly():
        console.print(f"\nIn other terminals, here:  source .venv/bin/activate && source {file}")
        console.print(f"Everything is still up. Flower: {address}   Ctrl-C ends it.")
        on.servers.until_one_ends()


@contextmanager
def _ending_quietly() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(file=sys.stderr)  # noqa: T201  leaves the ^C on a line of its own
