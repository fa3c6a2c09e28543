"""``surefoot enqueue``: one request, or a file of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import IO, Any

import click
from click.core import ParameterSource

from producer import render
from producer.as_text import json_of
from producer.canonical import DEPTH_LIMIT, parse_json
from producer.cli.speaking import REFUSED, json_option, speaking_errors
from producer.client import Producer
from producer.envelope import DEFAULT_PRIORITY, Request
from producer.errors import InvalidRequest, SurefootError, UnknownAction
from producer.job import Job
from producer.ledger.states import State

FILE_BATCH = 500
FILE_BATCH_BYTES = 1 << 22  # whose requests have fewer characters than a batch may, however numbers are written out


@click.command()
@click.argument("action", required=False)
@click.argument("params", required=False, default="{}")
@click.option("--key", help="Idempotency key; without one, a key is derived from the request and the UTC date.")
@click.option("--from", "source", type=click.File("rb"), help="A JSONL file of requests; - is standard input.")
@click.option("--request-id", help="Chain this decision to others of the same piece of work.")
@click.option("--user", "user_id", help="On whose behalf.")
@click.option("--agent", "agent_id", help="Who decided.")
@click.option("--reasoning", help="Why.")
@click.option("--priority", type=int, default=DEFAULT_PRIORITY, show_default=True, help="0 (soonest) to 9 (last).")
@click.option("--wait", "seconds", type=float, help="Wait this long for the outcome.")
@json_option
@speaking_errors
def enqueue(
    action: str | None,
    params: str,
    source: IO[bytes] | None,
    seconds: float | None,
    as_json: bool,  # noqa: FBT001  click passes flags by name
    key: str | None,
    **fields: Any,
) -> None:
    """Have ACTION performed with PARAMS (JSON), or each line of a file.

    A line of a file is {"action": …, "params": {…}, "idempotency_key": …} and whatever else a request may hold.
    """
    if (action is None) == (source is None):
        raise click.UsageError("name an ACTION, or --from FILE")
    producer = Producer()
    if source is not None:
        given = _given_beside_a_file()
        if given:
            raise click.UsageError(f"each line of a file says for itself what {', '.join(given)} would")
        sys.exit(_enqueue_lines(producer, source, as_json=as_json))
    request = Request(action=str(action), params=parse_json(params, where="params"), idempotency_key=key, **fields)
    job = producer.enqueue_many([request])[0]
    outcome = job.outcome
    if seconds is not None:
        job.wait(seconds)
    _say_enqueued(job, outcome, as_json=as_json)
    if seconds is not None and job.state is not State.SUCCEEDED:
        sys.exit(1)


def _given_beside_a_file() -> list[str]:
    """Return the options of this command line that are for one request alone."""
    context = click.get_current_context()
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in ("action", "params", "source", "as_json")
        and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]


def _enqueue_lines(producer: Producer, source: IO[bytes], *, as_json: bool) -> int:
    """Enqueue a file's lines in batches; a line that is refused stops nothing but itself. Returns the exit status."""
    counts = dict.fromkeys(("created", "replayed", "conflict", "refused"), 0)
    with _progress(as_json=as_json) as advance:
        for batch in _batches(enumerate(source, 1)):
            for number, answer in _enqueue_batch(producer, batch):
                outcome = "refused" if isinstance(answer, SurefootError) else str(answer.outcome)
                counts[outcome] += 1
                if as_json:
                    click.echo(json_of(_line_facts(number, outcome, answer)))
                elif isinstance(answer, SurefootError):
                    click.echo(f"line {number}: {answer}", err=True)
                elif outcome == "conflict":
                    click.echo(f"line {number}: its key stands for another request, job {answer.id}", err=True)
            advance(len(batch))
    click.echo(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count), err=as_json)
    return REFUSED if counts["conflict"] or counts["refused"] else 0


def _batches(lines: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """Yield a file's lines, as many together as one statement takes."""
    batch: list[tuple[int, bytes]] = []
    left = FILE_BATCH_BYTES
    for number, line in lines:
        batch.append((number, line))
        left -= len(line)
        if len(batch) == FILE_BATCH or left <= 0:
            yield batch
            batch, left = [], FILE_BATCH_BYTES
    if batch:
        yield batch


def _enqueue_batch(producer: Producer, lines: list[tuple[int, bytes]]) -> Iterator[tuple[int, Job | SurefootError]]:
    """Accept what can be accepted of a batch in one statement, and answer every line."""
    requests: dict[int, Any] = {}
    for number, line in lines:
        if not line.strip():
            continue
        try:
            requests[number] = _request_of(line)
        except SurefootError as error:
            yield number, error
    while requests:
        numbers = list(requests)
        try:
            jobs = producer.enqueue_many(requests.values(), conflicts="return")
        except (InvalidRequest, UnknownAction) as error:
            yield numbers[error.index], error
            del requests[numbers[error.index]]
        else:
            yield from zip(numbers, jobs, strict=True)
            return


def _request_of(line: bytes) -> dict[str, Any]:
    request = parse_json(line, where="the line", depth_limit=DEPTH_LIMIT + 1)  # params lie one deeper
    if not isinstance(request, dict):
        raise InvalidRequest("the line", f"must be an object, not a {type(request).__name__}")
    for name in ("run_at", "deadline"):
        if isinstance(request.get(name), str):
            try:
                request[name] = datetime.fromisoformat(request[name])
            except ValueError as error:
                raise InvalidRequest(name, f"is no ISO 8601 time: {error}") from error
    return request


def _line_facts(number: int, outcome: str, answer: Job | SurefootError) -> dict[str, Any]:
    facts: dict[str, Any] = {"line": number, "outcome": outcome}
    if isinstance(answer, SurefootError):
        return facts | {"error": str(answer)}
    return facts | {"id": answer.id} | ({"differs_at": answer.conflict_paths} if answer.conflict_paths else {})


def _say_enqueued(job: Job, outcome: str | None, *, as_json: bool) -> None:
    record = job.record
    if as_json:
        click.echo(json_of(render.job_facts(record) | {"outcome": outcome}))
        return
    derived = " (derived; pass --key to choose your own)" if record.key_derived else ""
    click.echo(f"{outcome} {job.id} {record.state}, key {record.idempotency_key}{derived}")
    if record.state is State.DEGRADED:
        stands_in = json_of(render.job_facts(record)["fallback"])
        click.echo(f"no result: {record.degraded_by}; its fallback stands in: {stands_in}", err=True)
    if record.result is not None:
        click.echo(json_of(render.job_facts(record)["result"]))
    elif record.error is not None:
        click.echo(f"{record.error['type']}: {record.error['message']}", err=True)


def _progress(*, as_json: bool) -> Any:
    from contextlib import contextmanager  # noqa: PLC0415  beside its only use

    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415  long work only

    @contextmanager
    def shown() -> Iterator[Callable[[int], None]]:
        columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} lines"), TimeElapsedColumn())
        with Progress(*columns, console=render.console(error=True), transient=True, disable=as_json) as progress:
            task = progress.add_task("", total=None)
            yield lambda lines: progress.advance(task, lines)

    return shown()
