"""``surefoot migrate``: brings the ledger's schema to this version's."""

from __future__ import annotations

import click

from producer.cli.speaking import refuse, speaking_errors
from producer.ledger.engine import open_engine
from producer.ledger.revision import REVISION, is_newer, revision_of
from producer.settings import Settings


@click.command("migrate")
@click.option("--to", "revision", default="head", show_default=True, help="A revision, or base for an empty database.")
@click.option("--yes", is_flag=True, help="Do not ask before going back, which drops what newer code wrote.")
@speaking_errors
def migrate_command(revision: str, yes: bool) -> None:  # noqa: FBT001  click passes flags by name
    """Bring the ledger's schema to this version's, or to another."""
    from alembic.util import CommandError  # noqa: PLC0415  Alembic, for this command alone

    from producer.ledger.migrate import HEAD, migrate  # noqa: PLC0415  as above

    engine = open_engine(Settings.from_env().database_url, connections=1, name="surefoot-migrate")
    before = revision_of(engine)
    if revision != HEAD and not yes:
        click.confirm(f"Going from {before} to {revision} may drop jobs. Go on?", abort=True)
    try:
        migrate(engine, revision)
    except CommandError as error:  # Alembic's: there is no such revision
        refuse(str(error))
    if revision == HEAD and is_newer(before):
        click.echo(f"schema {before} stays as it is: newer code made it, and this version's is {REVISION}")
        return
    click.echo(f"schema {before or 'empty'} → {revision_of(engine) or 'empty'} (this version's is {REVISION})")


@click.command()
@click.argument("role")
@speaking_errors
def grant(role: str) -> None:
    """Give ROLE what producers, the API and workers need, and nothing that could change the record."""
    from producer.ledger.rights import grant_to  # noqa: PLC0415  the tables, for this alone

    engine = open_engine(Settings.from_env().database_url, connections=1, name="surefoot-grant")
    with engine.connect() as connection:
        refused = grant_to(connection, role)
    if refused is not None:
        refuse(f"{role}: {refused}")
    click.echo(f"{role} may read and write what it needs, and change no event")
