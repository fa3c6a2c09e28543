"""The table of policies: which ones the workers' code declares, so that whoever has not loaded one leaves its jobs."""

from __future__ import annotations

from sqlalchemy import ARRAY, Column, Index, Integer, Table, Text
from sqlalchemy import BigInteger as Bigint

from producer.ledger.metadata import NOW, Timestamp, metadata

policies = Table(
    "policies",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    # Of this version: where code of one version declares several, all of them, lest an older start narrow it.
    Column("patterns", ARRAY(Text), nullable=False),
    Column("declared_in", Text, nullable=False),
    Column("published_at", Timestamp, nullable=False, server_default=NOW),
    Column("retired_at", Timestamp),  # by a person's word: nobody has to have loaded it any more
    # Counts the changes of all of them. A claim brings the newest along, by which a worker sees that there is news.
    Column("changed", Bigint, nullable=False),
    Index("policies_changed", "changed"),
)
