"""``surefoot keys``: the keys by which services and people come in over HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict

import click
from rich.table import Table

from producer import render
from producer.as_text import json_of
from producer.cli.speaking import json_option, speaking_errors
from producer.client import Producer
from producer.keys import DEFAULT_RATE, SCOPES
from producer.ledger.keys import ApiKey, Scope

DAY_SECONDS = 86_400.0


@click.group()
def keys() -> None:
    """Make, list and revoke keys for the HTTP API, of the tenant in SUREFOOT_TENANT."""


@keys.command()
@click.argument("name")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="What it may do.")
@click.option("--days", type=float, help="Its life; without, it lasts until it is revoked.")
@click.option("--rate", type=float, default=DEFAULT_RATE, show_default=True, help="Requests a second, of one process.")
@click.option("--who", help="Who makes it; by default the user of this process.")
@json_option
@speaking_errors
def create(
    name: str,
    scopes: tuple[Scope, ...],
    days: float | None,
    rate: float,
    who: str | None,
    as_json: bool,  # noqa: FBT001  click passes flags by name
) -> None:
    """Make a key for NAME, and show it: this once, and never again."""
    seconds = None if days is None else days * DAY_SECONDS
    with closing(Producer()) as producer:
        record, key = producer.keys.create(name, scopes, seconds=seconds, rate_per_second=rate, who=who)
    click.echo(json_of({"key": key} | asdict(record)) if as_json else key)
    click.echo("It is not kept, only its hash: put it where its holder will find it.", err=True)


@keys.command("list")
@json_option
@speaking_errors
def list_keys(as_json: bool) -> None:  # noqa: FBT001  as above
    """List the tenant's keys, those that ended, too."""
    with closing(Producer()) as producer:
        found = producer.keys.list()
    if as_json:
        for key in found:
            click.echo(json_of(asdict(key)))
    else:
        render.console().print(_table(found))


@keys.command()
@click.argument("key_id")
@click.option("--in-days", type=float, default=0.0, help="Later, so that its holder can change over to another.")
@click.option("--who", help="Who revokes it; by default the user of this process.")
@json_option
@speaking_errors
def revoke(key_id: str, in_days: float, who: str | None, as_json: bool) -> None:  # noqa: FBT001  as above
    """End a key: at once, unless told otherwise. KEY_ID is the part between sf_ and the secret."""
    with closing(Producer()) as producer:
        key = producer.keys.revoke(key_id, in_seconds=in_days * DAY_SECONDS, who=who)
    click.echo(json_of(asdict(key)) if as_json else f"{key.id} {_end_of(key)}")


def _table(found: Iterable[ApiKey]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("id", "name", "scopes", "requests/s", "made", ""):
        table.add_column(name, no_wrap=name == "id")
    for key in found:
        made = f"{key.created_at:{render.MOMENT}} by {key.created_by}"
        table.add_row(key.id, key.name, ", ".join(key.scopes), f"{key.rate_per_second:g}", made, _end_of(key))
    return table


def _end_of(key: ApiKey) -> str:
    if key.standing == "revoked":
        return f"revoked {key.revoked_at:{render.MOMENT}} by {key.revoked_by}"
    if key.expires_at is None:
        return key.standing
    return f"{'expired' if key.standing == 'expired' else 'active until'} {key.expires_at:{render.MOMENT}}"
