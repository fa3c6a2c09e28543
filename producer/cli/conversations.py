"""``surefoot conversation``: what was said, and whose turn it is."""

from __future__ import annotations

import click

from producer import render
from producer.as_text import json_of
from producer.cli.speaking import json_option, speaking_errors
from producer.client import Producer
from producer.ledger.conversations import HISTORY_MESSAGES


@click.command()
@click.argument("conversation_id")
@click.option("--limit", type=click.IntRange(1, 100_000), default=HISTORY_MESSAGES, show_default=True, help="Messages.")
@json_option
@speaking_errors
def conversation(conversation_id: str, limit: int, as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """Show a conversation's newest messages, in order, and whose turn it is."""
    found = Producer().conversation(conversation_id, limit=limit)
    if as_json:
        click.echo(json_of(render.conversation_facts(found)))
    else:
        render.console().print(render.conversation(found))
