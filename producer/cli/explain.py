"""``surefoot explain``: why did this run, or why is it not running."""

from __future__ import annotations

from contextlib import closing

import click

from producer import render, render_explain
from producer.as_text import json_of
from producer.cli.speaking import json_option, refuse, speaking_errors
from producer.client import Producer
from producer.errors import InvalidRequest, JobNotFound
from producer.explain import Explanation, explanation_facts


@click.command()
@click.argument("job_id", required=False)
@click.option("--key", help="Instead of an id: the idempotency key.")
@click.option("--action", help="With --key: of this action alone.")
@click.option("--request-id", help="Instead of an id: every decision of this request.")
@json_option
@speaking_errors
def explain(
    job_id: str | None,
    key: str | None,
    action: str | None,
    request_id: str | None,
    as_json: bool,  # noqa: FBT001  click passes flags by name
) -> None:
    """Say why a job ran, or why it does not run, and what to do: by its id, its key or its request."""
    if sum(given is not None for given in (job_id, key, request_id)) != 1:
        raise InvalidRequest("job_id", "is one of JOB_ID, --key KEY and --request-id ID")
    if action is not None and key is None:
        raise InvalidRequest("action", "goes with --key alone")
    with closing(Producer()) as producer:
        found = _explained(producer, job_id, key, action, request_id)
    if not found:
        refuse(f"no job has the key {key!r}" if key is not None else f"no decision was made for request {request_id!r}")
    for number, each in enumerate(found):
        if as_json:
            click.echo(json_of(explanation_facts(each)))
        else:
            render.console().print(render_explain.explanation(each), *([""] if number + 1 < len(found) else []))


def _explained(
    producer: Producer, job_id: str | None, key: str | None, action: str | None, request_id: str | None
) -> list[Explanation]:
    if job_id is not None:
        try:
            return [producer.explain(job_id)]
        except JobNotFound as error:  # what a log or a person names may be any of the three
            raise JobNotFound(f"{error}; by its key it is --key, by its request --request-id") from error
    if key is not None:
        return producer.explain_key(key, action=action)
    return producer.explain_request(request_id or "")
