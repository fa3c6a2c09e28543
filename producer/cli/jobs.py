"""Looking at jobs, and saying what is to become of one: show, chain, jobs, cancel, resolve, retry, actions."""

from __future__ import annotations

import sys
from contextlib import closing

import click

from producer import render
from producer.as_text import json_of
from producer.canonical import parse_json
from producer.cli.speaking import json_option, refuse, speaking_errors
from producer.client import Producer
from producer.errors import InvalidRequest
from producer.ledger.resolve import Verdict
from producer.ledger.states import State


@click.command()
@click.argument("job_id")
@json_option
@speaking_errors
def show(job_id: str, as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """Show a job: its decision, where it stands, and its history."""
    job = Producer().job(job_id)
    if as_json:
        events = [render.event_facts(event) for event in job.events]
        click.echo(json_of(render.job_facts(job.record) | {"events": events}))
    else:
        render.console().print(render.job(job.record, job.events))


@click.command()
@click.argument("request_id")
@json_option
@speaking_errors
def chain(request_id: str, as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """Show every decision that was made for a request, in order."""
    records = Producer().chain(request_id)
    if not records:
        refuse(f"no decision was made for request {request_id!r}")
    if as_json:
        for record in records:
            click.echo(json_of(render.job_facts(record)))
    else:
        render.console().print(render.chain(request_id, records))


@click.command()
@click.option("--state", type=click.Choice([str(state) for state in State]), help="Only jobs in this state.")
@click.option("--action", help="Only jobs of this action.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@speaking_errors
def jobs(state: str | None, action: str | None, limit: int, as_json: bool) -> None:  # noqa: FBT001  as above
    """List jobs, the newest first."""
    found = Producer().jobs(state=State(state) if state else None, action=action, limit=limit)
    if as_json:
        for job in found:
            click.echo(json_of(render.job_facts(job.record)))
    else:
        render.console().print(render.jobs(job.record for job in found))


@click.command()
@click.argument("job_id")
@click.option("--reason", help="Why; kept in the job's history.")
@json_option
@speaking_errors
def cancel(job_id: str, reason: str | None, as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """Cancel a job, or ask the worker that has it to."""
    with closing(Producer()) as producer:  # closed, the word to those who wait for the job is out
        job = producer.job(job_id)
        answer = job.cancel(reason)
    click.echo(json_of({"id": job.id, "answer": answer, "state": job.state}) if as_json else f"{answer}: {job.state}")
    if answer == "too_late":
        sys.exit(1)


@click.command()
@click.argument("job_id")
@click.option("--happened", "result", metavar="RESULT", help="It happened, and this JSON is its result.")
@click.option("--retry", is_flag=True, help="It did not happen: try it again.")
@click.option("--abandon", is_flag=True, help="Nobody will find out: let it be dead.")
@click.option("--reason", required=True, help="What that rests on; kept in the job's history.")
@click.option("--who", help="Who says so; by default the user of this process.")
@json_option
@speaking_errors
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
    click.echo(json_of({"id": job.id, "state": job.state}) if as_json else f"{said[0]}: {job.state}")


@click.command()
@click.argument("job_id")
@click.option("--reason", required=True, help="What has changed; kept in the job's history.")
@click.option("--who", help="Who says so; by default the user of this process.")
@json_option
@speaking_errors
def retry(job_id: str, reason: str, who: str | None, as_json: bool) -> None:  # noqa: FBT001  as above
    """Give a dead job one more attempt."""
    with closing(Producer()) as producer:
        job = producer.retry(job_id, reason=reason, who=who)
    click.echo(json_of({"id": job.id, "state": job.state}) if as_json else f"retried: {job.state}")


@click.command()
@click.argument("job_id")
@click.option("--reason", required=True, help="Why; kept in the history of both jobs.")
@click.option("--who", help="Who wants it; by default the user of this process.")
@json_option
@speaking_errors
def undo(job_id: str, reason: str, who: str | None, as_json: bool) -> None:  # noqa: FBT001  as above
    """Have what a job did taken back, by a job of the action that its own declares for that."""
    with closing(Producer()) as producer:
        job = producer.undo(job_id, reason=reason, who=who)
        facts = {"id": job.id, "outcome": job.outcome, "action": job.record.action, "state": job.state}
    click.echo(json_of(facts) if as_json else f"{job.outcome} {job.id} ({facts['action']}): {job.state}")


@click.command()
@click.argument("job_id")
@click.option("--reason", required=True, help="Why; kept on record.")
@click.option("--who", help="Who says so; by default the user of this process.")
@json_option
@speaking_errors
def erase(job_id: str, reason: str, who: str | None, as_json: bool) -> None:  # noqa: FBT001  as above
    """Erase what was said in a job that has ended, for good; the record stays whole. Takes the owner of the tables."""
    with closing(Producer()) as producer:
        job = producer.erase(job_id, reason=reason, who=who)
    click.echo(json_of({"id": job.id, "state": job.state}) if as_json else f"erased: {job.id}")


@click.command()
@json_option
@speaking_errors
def actions(as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """List the actions that workers have published, with their parameters."""
    for action in Producer().actions().values():
        if as_json:
            facts = {name: getattr(action, name) for name in action.__dataclass_fields__}
            click.echo(json_of(facts))
        else:
            names = action.params_schema.get("properties", {})
            required = set(action.params_schema.get("required", ()))
            params = ", ".join(n if n in required else f"[{n}]" for n in names)
            click.echo(f"{action.name} ({params})  {action.effect}, version {action.version}\n    {action.description}")
