"""Alembic's entry; `producer.ledger.migrate` hands it the connection and the transaction."""

from alembic import context

from producer.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
