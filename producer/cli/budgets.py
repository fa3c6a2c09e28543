"""The commands for budgets: ``surefoot budgets``, and ``surefoot budget set|add|reset|remove NAME``."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from producer import render, render_budgets
from producer.as_text import json_of
from producer.budget_words import ON_EXHAUSTED, PER, BudgetRecord, OnExhausted
from producer.budgets import KEPT
from producer.canonical import shown
from producer.cli.speaking import json_option, speaking_errors
from producer.client import Producer
from producer.errors import InvalidBudget

reason_option = click.option("--reason", required=True, help="Why; kept with it.")
who_option = click.option("--who", help="Who says so; by default the user of this process.")


@click.command()
@click.argument("name", required=False)
@click.option("--everybody", is_flag=True, help="Every tenant's shares.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Shares shown.")
@json_option
@speaking_errors
def budgets(name: str | None, everybody: bool, limit: int, as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """Show what of each budget is spent, reserved and left: of days, today's."""
    with closing(Producer()) as producer:
        found = producer.budgets(name, everybody=everybody, limit=limit)
    if as_json:
        for standing in found:
            click.echo(json_of(render_budgets.standing_facts(standing)))
    else:
        render.console().print(render_budgets.standings(found))


@click.group()
def budget() -> None:
    """Change a budget for everybody, at once: its ceilings, or whether there is one."""


@budget.command("set")
@click.argument("name")
@click.option("--usd", help="US dollars; 'none' takes the ceiling away.")
@click.option("--tokens", help="In and out together; or 'none'.")
@click.option("--calls", help="Attempts, and what they reserve beside; or 'none'.")
@reason_option
@who_option
@json_option
@speaking_errors
def set_(
    name: str,
    usd: str | None,
    tokens: str | None,
    calls: str | None,
    reason: str,
    who: str | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Put other ceilings in force, until they are reset; who waits for the budget tries anew."""
    with closing(Producer()) as producer:
        record = producer.budgets.set(
            name, usd=_usd(usd), tokens=_whole(tokens, "tokens"), calls=_whole(calls, "calls"), reason=reason, who=who
        )
    _show(record, as_json=as_json)


@budget.command()
@click.argument("name")
@click.option(
    "--per", required=True, multiple=True, type=click.Choice(PER), help="What has a share of its own; again for more."
)
@click.option("--actions", multiple=True, help="Names, or patterns such as 'llm.*'; again for more. By default all.")
@click.option("--usd", help="US dollars.")
@click.option("--tokens", type=int, help="In and out together.")
@click.option("--calls", type=int, help="Attempts, and what they reserve beside.")
@click.option("--on-exhausted", type=click.Choice(ON_EXHAUSTED), default="hold", show_default=True)
@click.option("--only-for", multiple=True, metavar="WHAT=NAME", help="Whose jobs alone: tenant=acme; again for more.")
@click.option("--instead-of", metavar="NAME", help="The budget in whose place it is for these.")
@reason_option
@who_option
@json_option
@speaking_errors
def add(
    name: str,
    per: tuple[str, ...],
    actions: tuple[str, ...],
    usd: str | None,
    tokens: int | None,
    calls: int | None,
    on_exhausted: OnExhausted,
    only_for: tuple[str, ...],
    instead_of: str | None,
    reason: str,
    who: str | None,
    as_json: bool,  # noqa: FBT001  as above
) -> None:
    """Add a budget; workers keep it within five seconds."""
    with closing(Producer()) as producer:
        record = producer.budgets.add(
            name,
            per=per,
            actions=actions or None,
            usd=usd,
            tokens=tokens,
            calls=calls,
            on_exhausted=on_exhausted,
            only_for=_names(only_for),
            instead_of=instead_of,
            reason=reason,
            who=who,
        )
    _show(record, as_json=as_json)


@budget.command()
@click.argument("name")
@click.option("--reason", help="Why; kept on record.")
@who_option
@json_option
@speaking_errors
def reset(name: str, reason: str | None, who: str | None, as_json: bool) -> None:  # noqa: FBT001  as above
    """Put the declared ceilings in force again."""
    with closing(Producer()) as producer:
        record = producer.budgets.reset(name, reason=reason, who=who)
    _show(record, as_json=as_json)


@budget.command()
@click.argument("name")
@click.option("--reason", help="Why; kept on record.")
@who_option
@speaking_errors
def remove(name: str, reason: str | None, who: str | None) -> None:
    """Remove a budget; what was spent stays on record. One that code declares is back when a worker starts."""
    with closing(Producer()) as producer:
        producer.budgets.remove(name, reason=reason, who=who)
    click.echo(f"removed {name}")


def _show(record: BudgetRecord, *, as_json: bool) -> None:
    if as_json:
        click.echo(json_of(render_budgets.budget_facts(record)))
    else:
        render.console().print(render_budgets.budget(record))


def _names(given: tuple[str, ...]) -> dict[str, str] | None:
    named = {}
    for each in given:
        what, is_named, name = each.partition("=")
        if not is_named:
            raise InvalidBudget("only_for", f"{shown(each)} names nobody; write it as tenant=acme")
        named[what] = name
    return named or None


def _usd(given: str | None) -> Any:
    return KEPT if given is None else None if given == "none" else given


def _whole(given: str | None, where: str) -> Any:
    if given is None or given == "none":
        return KEPT if given is None else None
    if not given.isascii() or not given.isdecimal():
        raise InvalidBudget(where, f"{shown(given)} is not a whole number, nor 'none'")
    return int(given)
