"""Migrations: from empty to head and back, and what they make is what the tables say."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from producer.ledger.engine import open_engine
from producer.ledger.migrate import migrate, newest_migration
from producer.ledger.revision import REVISION, revision_of
from producer.ledger.tables import metadata

# Everything that tells two schemas apart, as Postgres itself spells it; Alembic's own table aside.
SCHEMA = text("""
SELECT 'column', c.table_name, c.column_name, concat_ws(' ', c.data_type, c.numeric_precision, c.numeric_scale,
       c.is_nullable, c.column_default) FROM information_schema.columns c WHERE c.table_schema = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid)
  FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'function', '', proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
""")


@pytest.fixture
def empty(empty_url: str) -> Iterator[Engine]:
    engine = open_engine(empty_url, connections=3, name="tests")
    yield engine
    engine.dispose()


def schema(engine: Engine) -> set[tuple[str, ...]]:
    with engine.connect() as connection:
        rows = {tuple(" ".join(str(part).split()) for part in row) for row in connection.execute(SCHEMA)}
    return {row for row in rows if "alembic_version" not in row[1]}


def test_an_empty_database_migrates_to_head_and_back_to_empty(empty: Engine) -> None:
    assert revision_of(empty) is None
    migrate(empty)
    assert revision_of(empty) == REVISION
    assert schema(empty)
    migrate(empty, "base")
    assert revision_of(empty) is None
    assert schema(empty) == set()
    migrate(empty)
    assert revision_of(empty) == REVISION


def test_the_revision_that_the_code_names_is_the_newest_migrations() -> None:
    assert newest_migration() == REVISION


def test_migrating_twice_changes_nothing(empty: Engine) -> None:
    migrate(empty)
    before = schema(empty)
    migrate(empty)
    assert schema(empty) == before


def test_what_the_migrations_make_is_what_the_tables_say(empty: Engine) -> None:
    migrate(empty)
    migrated = schema(empty)
    migrate(empty, "base")
    metadata.create_all(empty)
    assert schema(empty) == migrated


def test_two_processes_that_migrate_at_once_wait_for_one_another(empty: Engine) -> None:
    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(migrate, empty) for _ in range(3)]:
            done.result(30)
    assert revision_of(empty) == REVISION


def test_a_migration_that_fails_leaves_nothing_behind(empty: Engine) -> None:
    with empty.connect() as connection:
        connection.execute(text("CREATE TABLE events (in_the_way int)"))
    before = schema(empty)
    with pytest.raises(Exception, match="already exists"):
        migrate(empty)
    assert schema(empty) == before
    assert revision_of(empty) is None
