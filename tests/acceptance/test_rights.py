"""A role with least rights: everything works by it, and it cannot change what is on record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DBAPIError, ProgrammingError

from producer import Producer, Settings
from producer.ledger.engine import open_engine
from producer.ledger.rights import ADDED_TO
from tests.acceptance.test_audit import all_sealed, work
from tests.acceptance.test_cli import run
from tests.houses import House, house_of, until

PASSWORD = "of-the-test"


@pytest.fixture(scope="module")
def owner(module_settings: Settings) -> Iterator[Engine]:
    made = open_engine(module_settings.database_url, connections=2, name="tests")
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def granted(module_settings: Settings, owner: Engine) -> Iterator[Settings]:
    """The settings of whoever comes in by a role that may log in, and was granted. Roles are the whole cluster's."""
    name = f"app_{make_url(str(owner.url)).database}"
    with owner.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    done = run(module_settings, "surefoot", "grant", name)
    assert (done.returncode, done.stderr) == (0, "")
    url = make_url(module_settings.database_url).set(username=name, password=PASSWORD)
    yield replace(module_settings, database_url=url.render_as_string(hide_password=False))
    with owner.connect() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture(scope="module")
def house(granted: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(granted, tmp_path_factory.mktemp("house")) as made:
        yield made


def test_producers_workers_and_seals_need_no_more(house: House) -> None:
    job_id, *_ = work(house.producer, "all")
    house.producer.keys.create("desk", ["read"])
    house.producer.schedules.add("nightly", "test.add", {"a": 1, "b": 2}, every=3600)
    house.producer.schedules.remove("nightly")
    until(lambda: all_sealed(house.producer))
    found = house.producer.verify()
    assert found.is_sound
    assert found.acts >= 3
    assert house.producer.explain(job_id).headline.startswith("It ran and succeeded")
    assert not house.worker.events("duty.refused")


STATEMENTS = {
    "change": "UPDATE {table} SET {column} = {column}",
    "change nothing": "UPDATE {table} SET {column} = {column} WHERE false",
    "remove": "DELETE FROM {table}",
    "truncate": "TRUNCATE {table}",
    "switch the triggers off": "ALTER TABLE {table} DISABLE TRIGGER ALL",
    "drop its key": "ALTER TABLE {table} DROP CONSTRAINT {table}_pkey",
    "drop it": "DROP TABLE {table}",
    "lock everybody out": "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
    "a trigger of its own": "CREATE TRIGGER mine BEFORE INSERT ON {table} EXECUTE FUNCTION refuse_change()",
    "own it": "ALTER TABLE {table} OWNER TO CURRENT_USER",
    "have no triggers": "SET session_replication_role = replica",
    "another trigger function": "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN RETURN new; END'",
    "grant itself": "GRANT ALL ON {table} TO CURRENT_USER",
}
COLUMNS = {"events": "kind", "acts": "who", "seals": "hash", "breaker_events": "who", "messages": "role"}
COLUMNS |= {"approval_votes": "verdict"}


def test_what_is_only_added_to_is_known() -> None:
    assert COLUMNS.keys() == ADDED_TO


@pytest.mark.parametrize("table", sorted(ADDED_TO))
@pytest.mark.parametrize("attempt", STATEMENTS)
def test_the_role_cannot_change_what_is_on_record(granted: Settings, owner: Engine, table: str, attempt: str) -> None:
    theirs = open_engine(granted.database_url, connections=1, name="tests")
    with theirs.connect() as connection:
        refused = refusal(connection, STATEMENTS[attempt].format(table=table, column=COLUMNS[table]))
        if attempt == "grant itself":  # Postgres warns, and grants nothing
            refused = refusal(connection, STATEMENTS["remove"].format(table=table))
        assert refused == "42501"  # insufficient privilege
    theirs.dispose()
    with owner.connect() as connection:
        connection.exec_driver_sql(f"SELECT 1 FROM {table} LIMIT 1")


def refusal(connection: Connection, statement: str) -> str | None:
    """Return the code with which Postgres refuses a statement; None where it does not."""
    connection.exec_driver_sql("BEGIN")
    try:
        connection.execute(text(statement))
    except DBAPIError as error:
        return str(getattr(error.orig, "pgcode", None))
    finally:
        connection.exec_driver_sql("ROLLBACK")
    return None


def test_erasing_takes_the_owner(house: House, module_settings: Settings) -> None:
    job_id, *_ = work(house.producer, "erased")
    with pytest.raises(ProgrammingError, match="permission denied"):
        house.producer.erase(job_id, reason="asked for")
    assert house.producer.job(job_id).record.params == {"a": 1, "b": 2}
    owner = Producer(module_settings)
    owner.erase(job_id, reason="asked for")
    owner.close()
    assert house.producer.job(job_id).record.params == {}


def test_a_role_that_is_not_there_or_may_everything_is_refused(module_settings: Settings) -> None:
    for name, why in (("nobody_there", "there is no such role"), ("surefoot", "is a superuser, or owns the tables")):
        done = run(module_settings, "surefoot", "grant", name)
        assert (done.returncode, why in done.stderr) == (2, True)
