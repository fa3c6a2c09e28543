"""The tables by which changes to the record show: operators' acts, and seals over the events. Both are append-only."""

from __future__ import annotations

from sqlalchemy import JSON, CheckConstraint, Column, Index, Integer, LargeBinary, Table, Text, Uuid
from sqlalchemy import BigInteger as Bigint

from producer.ledger.metadata import NOW, Timestamp, metadata

# What people did: each holds the hash of all before it, so that none can be changed, left out or put in between.
acts = Table(
    "acts",
    metadata,
    Column("n", Bigint, primary_key=True, autoincrement=False),
    Column("at", Timestamp, nullable=False, server_default=NOW),
    Column("tenant", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("job_id", Uuid),  # no foreign key: a job may be pruned
    Column("who", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("reason", Text),
    Column("data", JSON),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
    Index("acts_by_time", "tenant", "at"),
)

# Each covers the events that were added since the one before, and holds its hash.
seals = Table(
    "seals",
    metadata,
    Column("n", Bigint, primary_key=True, autoincrement=False),
    Column("at", Timestamp, nullable=False, server_default=NOW),
    Column("horizon", Timestamp, nullable=False),  # what is older, and was committed by then, is sealed
    Column("late", JSON),  # [from, to, transaction]: what may still be committed with an older time
    Column("jobs", Integer, nullable=False),
    Column("events", Integer, nullable=False),
    # A job each: id, last event, the hash over all its events up to that one, four bytes of each one's digest.
    Column("body", LargeBinary, nullable=False),
    Column("acts", Bigint, nullable=False),  # the last one, and its hash
    Column("acts_hash", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("key_id", Text),
    Column("signature", LargeBinary),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
    CheckConstraint("(key_id IS NULL) = (signature IS NULL)", name="signature"),
)
