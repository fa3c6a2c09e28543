"""The commands for policies: ``surefoot-worker policy list``, ``published``, ``retire`` and ``test``."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from itertools import islice

import click
from rich.table import Table
from rich.text import Text

from producer import render
from producer.as_text import json_of
from producer.canonical import shown
from producer.cli.speaking import json_option, speaking_errors
from producer.client import Producer
from producer.errors import InvalidRequest
from producer.explain.words import moment
from producer.ledger.engine import open_engine
from tasks import declared_rules, load
from tasks._rules import rules_for
from worker import published
from worker.policy_trial import Tried, counts, try_policies
from worker.settings import WorkerSettings

UNITS = {"m": 60, "h": 3_600, "d": 86_400}
SHOWN = 20


@click.group()
def policy() -> None:
    """See which policies there are, and what they would have said of past jobs; retire one."""


@policy.command("list")
@speaking_errors
def list_command() -> None:
    """List the policies of this code, in the order in which they are asked."""
    actions = load(WorkerSettings.from_env().action_modules)
    table = Table("policy", "version", "asked about", "declared in", box=None, pad_edge=False)
    for rule in declared_rules().values():
        matching = ", ".join(sorted(name for name in actions if rule.matches(name))) or "nothing that is here"
        words = (rule.name, str(rule.version), f"{rule.pattern}: {matching}", rule.place)
        table.add_row(*(Text(render.short(word)) for word in words))
    render.console().print(table)


@policy.command("published")
@json_option
@speaking_errors
def published_command(as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """List the policies that workers have published, and what of them this code lacks.

    Jobs that they are asked about are performed by workers that have loaded them, in that version or a newer one.
    """
    actions = load(WorkerSettings.from_env().action_modules)
    with closing(Producer()) as producer:
        found = producer.policies.list()
    if as_json:
        for each in found:
            click.echo(json_of(asdict(each)))
        return
    table = Table("policy", "version", "asked about", "declared in", "published", box=None, pad_edge=False)
    for each in found:
        about, at = ", ".join(each.patterns), moment(each.published_at)
        table.add_row(*(Text(render.short(w)) for w in (each.name, str(each.version), about, each.declared_in, at)))
    render.console().print(table)
    for doubt in published.doubts(actions, {action: rules_for(action) for action in actions}, found):
        render.console().print(Text(f"\n{doubt}", "yellow"))


@policy.command("retire")
@click.argument("name")
@click.option("--reason", required=True, help="Why; kept on record.")
@click.option("--who", help="Who says so; by default the user of this process.")
@speaking_errors
def retire_command(name: str, reason: str, who: str | None) -> None:
    """Have no worker need a policy any more that no code declares. Who has loaded it asks it all the same."""
    with closing(Producer()) as producer:
        producer.policies.retire(name, reason=reason, who=who)
    click.echo(f"retired {name}")


@policy.command("test")
@click.option("--since", default="7d", show_default=True, metavar="INTERVAL", help="How far back: 30m, 12h, 7d.")
@click.option("--action", help="Only this action.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True, help="Jobs looked at.")
@json_option
@speaking_errors
def test_command(since: str, action: str | None, limit: int, as_json: bool) -> None:  # noqa: FBT001  click passes flags by name
    """Say what the policies of this code would have said of past jobs, beside what was said. Nothing is written."""
    settings = WorkerSettings.from_env()
    actions, rules = load(settings.action_modules), [*declared_rules().values()]
    engine = open_engine(settings.database_url, connections=1, name="surefoot-policy-test")
    asked = {"tenant": settings.tenant, "since": _interval(since), "action": action, "most": limit}
    tried = try_policies(engine, actions, rules, **asked)  # type: ignore[arg-type]  # each by its own name
    if as_json:
        for each in tried:
            click.echo(json_of(asdict(each)))
        return
    found = list(tried)
    render.console().print(_sums(found))
    differing = [each for each in found if each.verdict != (each.was or "allow")]
    if differing:
        render.console().print(Text(f"\n{len(differing)} of {len(found)} would go another way", "bold"))
        render.console().print(_each(differing))


def _sums(found: list[Tried]) -> Table:
    table = Table("action", "was said", "would be said", "jobs", box=None, pad_edge=False)
    for (action, was, verdict), count in sorted(counts(found).items()):
        table.add_row(Text(render.short(action)), was, verdict, str(count))
    return table


def _each(differing: list[Tried]) -> Table:
    table = Table("job", "action", "is", "was said", "would be said", "by", "why", box=None, pad_edge=False)
    for each in islice(differing, SHOWN):
        words = (str(each.job_id), each.action, each.state, each.was or "nothing", each.verdict, each.rule, each.reason)
        table.add_row(*(Text(render.short(word or "")) for word in words))
    return table


def _interval(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,6})([mhd])", text, re.ASCII)
    if found is None:
        raise InvalidRequest("since", f"{shown(text)} is no interval; write 30m, 12h or 7d")
    return timedelta(seconds=int(found[1]) * UNITS[found[2]])
