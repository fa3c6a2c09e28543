"""``surefoot audit``: what people did; and whether anybody has changed the record since."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from producer import render
from producer.anchoring import read_anchors
from producer.as_text import json_of
from producer.canonical import shown
from producer.cli.speaking import json_option, speaking_errors
from producer.client import Producer
from producer.errors import InvalidRequest
from producer.ledger.acts import ActRecord
from producer.verifying import Verification

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@click.group(invoke_without_command=True)
@click.option("--since", metavar="WHEN", help="90s, 10m, 1h, 7d; or a time in ISO 8601.")
@click.option("--who", help="Only what this person did.")
@click.option("--act", help="Only of this kind: cancel, approve, 'revoke key', ….")
@click.option("--job", "job_id", help="Only what was done to this job.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@json_option
@click.pass_context
@speaking_errors
def audit(
    context: click.Context,
    since: str | None,
    who: str | None,
    act: str | None,
    job_id: str | None,
    limit: int,
    as_json: bool,  # noqa: FBT001  click passes flags by name
) -> None:
    """List what people did, the newest first: to jobs, breakers, keys and schedules; who, when, from where, why."""
    if context.invoked_subcommand is not None:
        return
    with closing(Producer()) as producer:
        found = producer.acts(since=moment(since), act=act, who=who, job_id=job_id, limit=limit)
    if as_json:
        for each in found:
            click.echo(json_of(asdict(each)))
    else:
        render.console().print(_table(found))


@audit.command()
@click.option("--since", metavar="WHEN", help="Only what was sealed since: 90s, 10m, 1h, 7d; or a time in ISO 8601.")
@click.option("--anchors", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="What was exported.")
@json_option
@speaking_errors
def verify(since: str | None, anchors: Path | None, as_json: bool) -> None:  # noqa: FBT001  as above
    """Find what was changed, removed, reordered or cut off since it was sealed; end with 1 where anything was."""
    exported = [] if anchors is None else read_anchors(anchors)
    with closing(Producer()) as producer:
        found = producer.verify(since=moment(since), anchors=exported)
    if as_json:
        click.echo(json_of(asdict(found) | {"is_sound": found.is_sound}))
    else:
        _say(found)
    if not found.is_sound:
        sys.exit(1)


def _say(found: Verification) -> None:
    for finding in found.findings:
        click.echo(render.short(finding.text))
    until = "nothing" if found.sealed_until is None else f"all up to {found.sealed_until:{render.MOMENT}}"
    click.echo(
        f"{found.seals} seals ({found.unsigned} unsigned or by an unknown key), {found.events} events of {found.jobs}"
        f" jobs' spans, {found.acts} acts, {found.anchors} anchors; sealed is {until}, and {found.unsealed} events are"
        " not yet."
    )
    click.echo("Sound." if found.is_sound else f"{len(found.findings)} findings.")


def moment(since: str | None) -> datetime | None:
    """Return the time that somebody means.

    Raises:
        InvalidRequest: If that is none.
    """
    if since is None:
        return None
    ago = re.fullmatch(r"([0-9]{1,9})([smhd])", since, re.ASCII)
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(since)
    except (ValueError, OverflowError):
        raise InvalidRequest("since", f"{shown(since)} is no time; write 90s, 10m, 1h, 7d, or ISO 8601") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _table(found: Iterable[ActRecord]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("when", "who", "via", "act", "target", "why"):
        table.add_column(name, no_wrap=name == "when", overflow="fold")
    for act in found:
        said = {name: value for name, value in (act.data or {}).items() if value is not None}
        done = " ".join([act.act, *(f"{name}={render.short(value)}" for name, value in said.items())])
        row = (act.who, act.via, done, act.target, act.reason or "")
        table.add_row(f"{act.at:{render.MOMENT}}", *(Text(render.short(cell)) for cell in row))
    return table
