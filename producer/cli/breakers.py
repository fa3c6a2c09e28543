"""The commands for the fleet's breakers: ``surefoot breakers``, ``surefoot breaker NAME [open|close|auto]``."""

from __future__ import annotations

import re
from contextlib import closing

import click

from producer import render, render_breakers
from producer.as_text import json_of
from producer.breakers import WORDS, Word
from producer.canonical import shown
from producer.cli.speaking import json_option, speaking_errors
from producer.client import Producer
from producer.errors import InvalidRequest

UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


@click.command()
@json_option
@speaking_errors
def breakers(as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """List the fleet's breakers: how each stands, until when, and how many jobs wait for it."""
    with closing(Producer()) as producer:
        found = producer.breakers.list()
    if as_json:
        for record in found:
            click.echo(json_of(render_breakers.breaker_facts(record)))
    else:
        render.console().print(render_breakers.breakers(found))


@click.command()
@click.argument("name")
@click.argument("word", required=False, type=click.Choice(WORDS))
@click.option("--for", "interval", metavar="INTERVAL", help="Then auto by itself: seconds, or 90s, 10m, 1h.")
@click.option("--reason", help="Why; kept in its history. Needed with a word.")
@click.option("--who", help="Who says so; by default the user of this process.")
@click.option("--new", is_flag=True, help="It may be one of which nothing is known yet.")
@click.option("--limit", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Transitions shown.")
@json_option
@speaking_errors
def breaker(
    name: str,
    word: Word | None,
    interval: str | None,
    reason: str | None,
    who: str | None,
    new: bool,  # noqa: FBT001  as above
    limit: int,
    as_json: bool,  # noqa: FBT001  as above
) -> None:
    """Show a breaker and its history; or override it for the whole fleet: open, close, or auto again."""
    if word is None and (interval or reason or who or new):
        raise InvalidRequest("word", f"is missing: one of {', '.join(WORDS)}")
    with closing(Producer()) as producer:
        if word is None:
            record = producer.breakers.get(name)
        else:
            seconds = None if interval is None else _seconds(interval)
            record = producer.breakers.force(name, word, reason=reason or "", seconds=seconds, who=who, new=new)
        history = producer.breakers.history(name, limit=limit)
    if as_json:
        facts = [render_breakers.transition_facts(each) for each in history]
        click.echo(json_of(render_breakers.breaker_facts(record) | {"history": facts}))
    else:
        render.console().print(render_breakers.breaker(record, history))


def _seconds(interval: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", interval, re.ASCII)
    if found is None:
        raise InvalidRequest("for", f"{shown(interval)} is no interval; write seconds, or 90s, 10m, 1h, 1d")
    return int(found[1]) * UNITS[found[2]]
