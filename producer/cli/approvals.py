"""The commands for what waits for people: ``surefoot approvals``, ``approval``, ``approve``, ``reject``, and more."""

from __future__ import annotations

from contextlib import closing

import click

from producer import render, render_approvals
from producer.acting import user_here
from producer.as_text import json_of
from producer.canonical import parse_json
from producer.cli.speaking import json_option, speaking_errors
from producer.client import Producer
from producer.errors import ApprovalNotFound
from producer.ledger.approvals import Approval, ApprovalState
from producer.ledger.states import State

digest_option = click.option("--digest", required=True, help="Of the request as you saw it: surefoot approval ID.")
reason_option = click.option("--reason", required=True, help="Why; kept in the job's history.")
who_option = click.option("--who", help="Who says so; by default the user of this process.")
STATES = [*map(str, ApprovalState), "all"]


@click.command()
@click.option("--state", type=click.Choice(STATES), default="pending", show_default=True)
@click.option("--action", help="Only this action.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@speaking_errors
def approvals(state: str, action: str | None, limit: int, as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """List what waits for people, the newest first."""
    with closing(Producer()) as producer:
        which = None if state == "all" else state
        found = producer.approvals.list(state=which, action=action, limit=limit)
    if as_json:
        for each in found:
            click.echo(json_of(render_approvals.approval_facts(each)))
    else:
        render.console().print(render_approvals.approvals(found))


@click.command()
@click.argument("approval_id", metavar="ID")
@json_option
@speaking_errors
def approval(approval_id: str, as_json: bool) -> None:  # noqa: FBT001  as above
    """Show what is asked, with its digest: by its id, or by its job's."""
    with closing(Producer()) as producer:
        found = _find(producer, approval_id)
    if as_json:
        click.echo(json_of(render_approvals.approval_facts(found)))
    else:
        render.console().print(render_approvals.approval(found))


@click.command()
@click.argument("approval_id", metavar="ID")
@digest_option
@reason_option
@who_option
@json_option
@speaking_errors
def approve(approval_id: str, digest: str, reason: str, who: str | None, as_json: bool) -> None:  # noqa: FBT001  as above
    """Say yes to exactly the request that has this digest."""
    with closing(Producer()) as producer:
        found = _find(producer, approval_id)
        said = producer.approvals.approve(found.id, digest=digest, by=who or user_here(), reason=reason)
        _say(producer, said, as_json=as_json)


@click.command()
@click.argument("approval_id", metavar="ID")
@digest_option
@reason_option
@who_option
@json_option
@speaking_errors
def reject(approval_id: str, digest: str, reason: str, who: str | None, as_json: bool) -> None:  # noqa: FBT001  as above
    """Say no: the job will not be performed."""
    with closing(Producer()) as producer:
        found = _find(producer, approval_id)
        said = producer.approvals.reject(found.id, digest=digest, by=who or user_here(), reason=reason)
        _say(producer, said, as_json=as_json)


@click.command()
@click.argument("approval_id", metavar="ID")
@reason_option
@who_option
@json_option
@speaking_errors
def withdraw(approval_id: str, reason: str, who: str | None, as_json: bool) -> None:  # noqa: FBT001  as above
    """Take a question back: its job is cancelled."""
    with closing(Producer()) as producer:
        found = _find(producer, approval_id)
        said = producer.approvals.withdraw(found.id, by=who or user_here(), reason=reason)
        _say(producer, said, as_json=as_json)


@click.command()
@click.argument("approval_id", metavar="ID")
@click.argument("params")
@digest_option
@reason_option
@who_option
@json_option
@speaking_errors
def edit(approval_id: str, params: str, digest: str, reason: str, who: str | None, as_json: bool) -> None:  # noqa: FBT001  as above
    """Ask for something else instead: another job, with PARAMS (JSON), in place of the one that waits."""
    values = parse_json(params, where="params")
    with closing(Producer()) as producer:
        found = _find(producer, approval_id)
        job_id = producer.approvals.edit(found.id, values, digest=digest, by=who or user_here(), reason=reason)
    click.echo(json_of({"id": job_id, "in_place_of": found.job_id}) if as_json else f"edited: now job {job_id}")


@click.group(invoke_without_command=True)
@click.pass_context
def roles(context: click.Context) -> None:
    """Say who has which role, by which policies name people; alone it lists them."""
    if context.invoked_subcommand is None:
        context.invoke(list_roles)


@roles.command("list")
@json_option
@speaking_errors
def list_roles(as_json: bool = False) -> None:  # noqa: FBT001, FBT002  as above
    """List who has which role."""
    with closing(Producer()) as producer:
        found = producer.roles.list()
    if as_json:
        for each in found:
            click.echo(json_of(render_approvals.grant_facts(each)))
    else:
        render.console().print(render_approvals.grants(found))


@roles.command()
@click.argument("role")
@click.argument("person")
@who_option
@speaking_errors
def grant(role: str, person: str, who: str | None) -> None:
    """Give PERSON a ROLE."""
    with closing(Producer()) as producer:
        producer.roles.grant(role, person, who=who)
    click.echo(f"{person} has {role}")


@roles.command()
@click.argument("role")
@click.argument("person")
@who_option
@speaking_errors
def revoke(role: str, person: str, who: str | None) -> None:
    """Take a ROLE from PERSON; what he decided stands."""
    with closing(Producer()) as producer:
        had = producer.roles.revoke(role, person, who=who)
    click.echo(f"{person} {'has' if had else 'never had'} {role}{' no more' if had else ''}")


def _find(producer: Producer, text: str) -> Approval:
    """Return what has this id, or what was last asked of the job that has it."""
    try:
        return producer.approvals.get(text)
    except ApprovalNotFound:
        found = producer.approvals.of_job(text)
        if not found:
            raise
        return found[-1]


def _say(producer: Producer, said: Approval, *, as_json: bool) -> None:
    job = producer.job(said.job_id)
    if as_json:
        click.echo(json_of({"id": said.id, "state": said.state, "missing": said.missing, "job_id": job.id}
                                  | {"job_state": job.state}))  # fmt: skip
        return
    more = f", {said.missing} more to approve" if job.state is State.AWAITING_APPROVAL else ""
    click.echo(f"{said.state}: job {job.id} is {job.state}{more}")
