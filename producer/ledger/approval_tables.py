"""The tables of approvals: what waits for a person, who said what of it, the tokens of links, who has which role."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    JSON,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)

from producer.ledger.metadata import NOW, Timestamp, metadata

# What waits for a person, or did: one row for each time that somebody was asked. No foreign key to the job, which may
# be pruned: who approved what stays.
approvals = Table(
    "approvals",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("job_id", Uuid, nullable=False),
    Column("action", Text, nullable=False),
    Column("action_version", Integer, nullable=False),
    Column("rule", Text, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # of the request as it is stored: producer.ledger.approvals.DIGEST
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("approvers", ARRAY(Text), nullable=False),
    Column("roles", ARRAY(Text), nullable=False),
    Column("excluded", ARRAY(Text), nullable=False),  # who asked, whose agent, and who edited it
    Column("quorum", SmallInteger, nullable=False),
    Column("preview", JSON),
    Column("preview_error", Text),
    Column("effect", Text),  # its class with these params, as the next NULL where older code asked
    Column("cost", JSON),  # at most, of an attempt; NULL where the action declares none
    Column("requested_at", Timestamp, nullable=False, server_default=NOW),
    Column("expires_at", Timestamp, nullable=False),
    Column("valid_seconds", Double, nullable=False),  # from the decision to the first intent
    Column("valid_until", Timestamp),
    Column("escalate_at", Timestamp),
    Column("escalate_to", ARRAY(Text), nullable=False),
    Column("escalate_roles", ARRAY(Text), nullable=False),
    Column("escalated_at", Timestamp),
    Column("decided_at", Timestamp),
    Column("decided_by", Text),  # a person's name; never set by an expiry
    Column("decided_why", Text),
    Column("consumed_at", Timestamp),  # by the intent of its job, once
    Column("superseded_by", Uuid),  # the job, where an edit made another of it
    CheckConstraint("state IN ('approved', 'expired', 'pending', 'rejected', 'superseded', 'withdrawn')", name="state"),
    CheckConstraint("octet_length(digest) = 32", name="digest"),
    CheckConstraint("quorum >= 1", name="quorum"),
    CheckConstraint("(state = 'pending') = (decided_at IS NULL)", name="decided"),
    CheckConstraint("state = 'approved' OR consumed_at IS NULL", name="consumed"),
    Index("approvals_of_job", "job_id"),
    Index("approvals_pending", "job_id", unique=True, postgresql_where=text("state = 'pending'")),
    Index("approvals_newest", "tenant", "id"),
    Index("approvals_to_expire", "expires_at", postgresql_where=text("state = 'pending'")),
    Index(
        "approvals_to_escalate",
        "escalate_at",
        postgresql_where=text("state = 'pending' AND escalated_at IS NULL AND escalate_at IS NOT NULL"),
    ),
    Index("approvals_replaced", "superseded_by"),
    Index("approvals_to_tell", "decided_at", postgresql_where=text("state = 'expired'")),  # for the alerts
)

approval_votes = Table(
    "approval_votes",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("approval_id", Uuid, ForeignKey("approvals.id")),  # NULL for one that was cast before anybody asked
    Column("digest", LargeBinary, nullable=False),
    Column("voter", Text, nullable=False),
    Column("voter_key", Text, nullable=False),  # the name as it is compared: producer.people.key_of
    Column("verdict", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("address", Text),
    Column("at", Timestamp, nullable=False, server_default=NOW),
    CheckConstraint("verdict IN ('approve', 'reject')", name="verdict"),
    Index("approval_votes_once", "approval_id", "voter_key", unique=True),
    Index(
        "approval_votes_ahead",
        "job_id",
        "digest",
        "voter_key",
        unique=True,
        postgresql_where=text("approval_id IS NULL"),
    ),
)

approval_tokens = Table(
    "approval_tokens",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("approval_id", Uuid, ForeignKey("approvals.id"), nullable=False),
    Column("person", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("expires_at", Timestamp, nullable=False),
    Column("used_at", Timestamp),
    CheckConstraint("verdict IN ('approve', 'reject')", name="verdict"),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
)

roles = Table(
    "roles",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("person", Text, primary_key=True),
    Column("granted_at", Timestamp, nullable=False, server_default=NOW),
    Column("granted_by", Text, nullable=False),
)
