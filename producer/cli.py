"""``surefoot``: asks for actions and looks at what became of them, from a terminal or a script."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from functools import wraps
from itertools import islice
from typing import IO, Any, NoReturn

import click
from click.core import ParameterSource
from sqlalchemy.exc import DBAPIError

from producer import render
from producer.canonical import DEPTH_LIMIT, parse_json
from producer.client import Producer
from producer.envelope import DEFAULT_PRIORITY, Request
from producer.errors import InvalidRequest, JobUnfinished, SurefootError, UnknownAction
from producer.job import Job
from producer.ledger.engine import open_engine
from producer.ledger.resolve import Verdict
from producer.ledger.revision import REVISION, revision_of
from producer.ledger.states import State
from producer.settings import Settings

FILE_BATCH = 500
REFUSED = 2  # exit status where a request or a setting was refused; 1 is a job that did not succeed

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, a line each.")


def _speaking_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn our errors into one line and an exit status; anything else keeps its traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except JobUnfinished as error:
            click.echo(f"surefoot: {error}", err=True)
            sys.exit(1)
        except SurefootError as error:
            _refuse(str(error))
        except DBAPIError as error:
            _refuse(f"Postgres: {error.orig}".strip())

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Ask for actions and see what became of them.

    Where the ledger and the broker are is read from SUREFOOT_DATABASE_URL and SUREFOOT_REDIS_URL.
    """


@main.command()
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
@_speaking_errors
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


@main.command()
@click.argument("job_id")
@json_option
@_speaking_errors
def show(job_id: str, as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """Show a job: its decision, where it stands, and its history."""
    job = Producer().job(job_id)
    if as_json:
        events = [render.event_facts(event) for event in job.events]
        click.echo(render.as_json(render.job_facts(job.record) | {"events": events}))
    else:
        render.console().print(render.job(job.record, job.events))


@main.command()
@click.argument("request_id")
@json_option
@_speaking_errors
def chain(request_id: str, as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """Show every decision that was made for a request, in order."""
    records = Producer().chain(request_id)
    if not records:
        _refuse(f"no decision was made for request {request_id!r}")
    if as_json:
        for record in records:
            click.echo(render.as_json(render.job_facts(record)))
    else:
        render.console().print(render.chain(request_id, records))


@main.command()
@click.option("--state", type=click.Choice([str(state) for state in State]), help="Only jobs in this state.")
@click.option("--action", help="Only jobs of this action.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@_speaking_errors
def jobs(state: str | None, action: str | None, limit: int, as_json: bool) -> None:  # noqa: FBT001  as above
    """List jobs, the newest first."""
    found = Producer().jobs(state=State(state) if state else None, action=action, limit=limit)
    if as_json:
        for job in found:
            click.echo(render.as_json(render.job_facts(job.record)))
    else:
        render.console().print(render.jobs(job.record for job in found))


@main.command()
@click.argument("job_id")
@click.option("--reason", help="Why; kept in the job's history.")
@json_option
@_speaking_errors
def cancel(job_id: str, reason: str | None, as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """Cancel a job, or ask the worker that has it to."""
    with closing(Producer()) as producer:  # closed, the word to those who wait for the job is out
        job = producer.job(job_id)
        answer = job.cancel(reason)
    click.echo(
        render.as_json({"id": job.id, "answer": answer, "state": job.state}) if as_json else f"{answer}: {job.state}"
    )
    if answer == "too_late":
        sys.exit(1)


@main.command()
@click.argument("job_id")
@click.option("--happened", "result", metavar="RESULT", help="It happened, and this JSON is its result.")
@click.option("--retry", is_flag=True, help="It did not happen: try it again.")
@click.option("--abandon", is_flag=True, help="Nobody will find out: let it be dead.")
@click.option("--reason", required=True, help="What that rests on; kept in the job's history.")
@click.option("--who", help="Who says so; by default the user of this process.")
@json_option
@_speaking_errors
def resolve(
    job_id: str,
    result: str | None,
    retry: bool,  # noqa: FBT001  as above
    abandon: bool,  # noqa: FBT001  as above
    reason: str,
    who: str | None,
    as_json: bool,  # noqa: FBT001  as above
) -> None:
    """Say what became of a job in doubt: exactly one of --happened, --retry and --abandon."""
    options: dict[Verdict, bool] = {"happened": result is not None, "retry": retry, "abandon": abandon}
    said = [verdict for verdict, given in options.items() if given]
    if len(said) != 1:
        raise InvalidRequest("verdict", "is one of --happened RESULT, --retry and --abandon")
    value = None if result is None else parse_json(result, where="result")
    with closing(Producer()) as producer:
        job = producer.resolve(job_id, said[0], reason=reason, result=value, who=who)
    click.echo(render.as_json({"id": job.id, "state": job.state}) if as_json else f"{said[0]}: {job.state}")


@main.command()
@json_option
@_speaking_errors
def actions(as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """List the actions that workers have published, with their parameters."""
    for action in Producer().actions().values():
        if as_json:
            facts = {name: getattr(action, name) for name in action.__dataclass_fields__}
            click.echo(render.as_json(facts))
        else:
            names = action.params_schema.get("properties", {})
            required = set(action.params_schema.get("required", ()))
            params = ", ".join(n if n in required else f"[{n}]" for n in names)
            click.echo(f"{action.name} ({params})  {action.effect}, version {action.version}\n    {action.description}")


@main.command("migrate")
@click.option("--to", "revision", default="head", show_default=True, help="A revision, or base for an empty database.")
@click.option("--yes", is_flag=True, help="Do not ask before going back, which drops what newer code wrote.")
@_speaking_errors
def migrate_command(revision: str, yes: bool) -> None:  # noqa: FBT001  click passes flags by name
    """Bring the ledger's schema to this version's, or to another."""
    from alembic.util import CommandError  # noqa: PLC0415  Alembic, for this command alone

    from producer.ledger.migrate import HEAD, migrate  # noqa: PLC0415  as above

    engine = open_engine(Settings.from_env().database_url, connections=1, name="surefoot-migrate")
    before = revision_of(engine)
    if revision != HEAD and not yes:
        click.confirm(f"Going from {before} to {revision} may drop jobs. Go on?", abort=True)
    try:
        migrate(engine, revision)
    except CommandError as error:  # Alembic's: there is no such revision
        _refuse(str(error))
    click.echo(f"schema {before or 'empty'} → {revision_of(engine) or 'empty'} (this version's is {REVISION})")


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
        lines = enumerate(source, 1)
        while batch := list(islice(lines, FILE_BATCH)):
            for number, answer in _enqueue_batch(producer, batch):
                outcome = "refused" if isinstance(answer, SurefootError) else str(answer.outcome)
                counts[outcome] += 1
                if as_json:
                    click.echo(render.as_json(_line_facts(number, outcome, answer)))
                elif isinstance(answer, SurefootError):
                    click.echo(f"line {number}: {answer}", err=True)
                elif outcome == "conflict":
                    click.echo(f"line {number}: its key stands for another request, job {answer.id}", err=True)
            advance(len(batch))
    click.echo(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count), err=as_json)
    return REFUSED if counts["conflict"] or counts["refused"] else 0


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
        click.echo(render.as_json(render.job_facts(record) | {"outcome": outcome}))
        return
    derived = " (derived; pass --key to choose your own)" if record.key_derived else ""
    click.echo(f"{outcome} {job.id} {record.state}, key {record.idempotency_key}{derived}")
    if record.result is not None:
        click.echo(render.as_json(render.job_facts(record)["result"]))
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


def _refuse(message: str) -> NoReturn:
    click.echo(f"surefoot: {message}", err=True)
    sys.exit(REFUSED)
