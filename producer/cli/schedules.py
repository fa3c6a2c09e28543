"""The commands for actions at fixed times: ``surefoot schedules add``, list, show, pause, resume and remove."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

import click

from producer import render, render_schedules
from producer.as_text import json_of
from producer.canonical import parse_json, shown
from producer.cli.speaking import json_option, speaking_errors
from producer.client import Producer
from producer.declaration import MISSED
from producer.envelope import DEFAULT_PRIORITY
from producer.errors import InvalidSchedule
from producer.ledger.schedules import ScheduleRecord

UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
TICKS_LIMIT = 1_000


@click.group()
def schedules() -> None:
    """Have actions asked for at fixed times, and see when they are due."""


@schedules.command()
@click.argument("name")
@click.argument("action")
@click.argument("params", required=False, default="{}")
@click.option("--cron", help="Five fields: '0 3 * * 1-5' is at three on weekdays.")
@click.option("--every", metavar="INTERVAL", help="Seconds, or 90s, 5m, 1h, 1d; counted from 1970-01-01 00:00 UTC.")
@click.option("--zone", help="The time zone of --cron, such as Europe/Berlin; UTC by default.")
@click.option(
    "--missed", type=click.Choice(MISSED), default="latest", show_default=True, help="What becomes of missed ticks."
)
@click.option("--request-id", help="Chain the jobs of all ticks; by default each tick has a chain of its own.")
@click.option("--user", "user_id", help="On whose behalf.")
@click.option("--agent", "agent_id", help="Who decided.")
@click.option("--reasoning", help="Why.")
@click.option("--queue", help="The queue of its jobs; by default the action's.")
@click.option("--priority", type=int, default=DEFAULT_PRIORITY, show_default=True, help="0 (soonest) to 9 (last).")
@json_option
@speaking_errors
def add(name: str, action: str, params: str, every: str | None, as_json: bool, **fields: Any) -> None:  # noqa: FBT001  click passes flags by name
    """Have ACTION asked for with PARAMS (JSON) at fixed times, as the schedule NAME: --cron or --every."""
    values = parse_json(params, where="params")
    seconds = None if every is None else _seconds(every)
    with closing(Producer()) as producer:
        _say(producer.schedules.add(name, action, values, every=seconds, **fields), as_json=as_json)


@schedules.command("list")
@json_option
@speaking_errors
def list_command(as_json: bool) -> None:  # noqa: FBT001  as above
    """List the schedules with their next ticks."""
    with closing(Producer()) as producer:
        found = producer.schedules.list()
    if as_json:
        for record in found:
            click.echo(json_of(render_schedules.schedule_facts(record)))
    else:
        render.console().print(render_schedules.schedules(found))


@schedules.command()
@click.argument("name")
@click.option("--next", "count", type=click.IntRange(0, TICKS_LIMIT), default=5, show_default=True, help="Ticks ahead.")
@json_option
@speaking_errors
def show(name: str, count: int, as_json: bool) -> None:  # noqa: FBT001  as above
    """Show a schedule and its next ticks, in its time zone and in UTC; a paused one's as if it were not."""
    with closing(Producer()) as producer:
        record, ticks = producer.schedules.get(name), producer.schedules.next_ticks(name, count)
    if as_json:
        click.echo(json_of(render_schedules.schedule_facts(record) | {"next_ticks": ticks}))
    else:
        render.console().print(render_schedules.schedule(record, ticks))


@schedules.command()
@click.argument("name")
@json_option
@speaking_errors
def pause(name: str, as_json: bool) -> None:  # noqa: FBT001  as above
    """Have a schedule make no more jobs until it is resumed, whatever code declares meanwhile."""
    with closing(Producer()) as producer:
        _say(producer.schedules.pause(name), as_json=as_json)


@schedules.command()
@click.argument("name")
@json_option
@speaking_errors
def resume(name: str, as_json: bool) -> None:  # noqa: FBT001  as above
    """Have a paused schedule go on at its next tick; those of its pause are not made up for."""
    with closing(Producer()) as producer:
        _say(producer.schedules.resume(name), as_json=as_json)


@schedules.command()
@click.argument("name")
@json_option
@speaking_errors
def remove(name: str, as_json: bool) -> None:  # noqa: FBT001  as above
    """Remove a schedule; its jobs stay."""
    with closing(Producer()) as producer:
        record = producer.schedules.remove(name)
    click.echo(json_of(render_schedules.schedule_facts(record)) if as_json else f"removed {record.name}")
    if record.declared_in is not None:
        click.echo(
            f"surefoot: {record.declared_in} declares {record.name} again when a worker starts;"
            " to keep it off, pause it, or take it out of the code",
            err=True,
        )


def _say(record: ScheduleRecord, *, as_json: bool) -> None:
    click.echo(
        json_of(render_schedules.schedule_facts(record))
        if as_json
        else f"{record.name}: {render_schedules.coming(record)}"
    )


def _seconds(interval: str) -> int:
    found = re.fullmatch(r"([0-9]{1,12})([smhd]?)", interval)
    if found is None:
        raise InvalidSchedule("every", f"{shown(interval)} is no interval; write seconds, or 90s, 5m, 1h, 1d")
    return int(found[1]) * UNITS[found[2]]
