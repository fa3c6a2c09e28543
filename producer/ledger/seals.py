"""Seals: what the events of a span of time were, and the hash of the seal before. Whoever changes one breaks the rest.

An event's digest is SHA-256 of what Postgres sends of its row (types, lengths and values of its columns), with the
digest of its data in place of the data, so that the data can be erased and the digest stays. A job's chain is SHA-256
over the digests of its events, in order. A seal names, for each job that had an event in its span, the last event and
the chain up to there, and four bytes of each digest, to tell which event was changed.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.engine import Connection

SEAL_LOCK = 0x5EEF5EA1  # the number only has to be ours
HASH_BYTES, CHECK_BYTES = 32, 4
NOTHING_BEFORE = b"\0" * HASH_BYTES
_HEAD = struct.Struct(f">16si{HASH_BYTES}s")

# Of an event ``e``.
ERASED = r"""(CAST(e.data AS text) LIKE '{"erased":"%' AND CAST(e.data AS text) ~ '^{"erased":"[0-9a-f]{64}"}$')"""
DIGEST = f"""sha256(record_send(ROW(e.kind, e.at, e.attempt, e.fence, e.worker,
    CASE WHEN {ERASED} THEN decode(substr(CAST(e.data AS text), 12, 64), 'hex')
         ELSE sha256(convert_to(CAST(e.data AS text), 'UTF8')) END)))"""

# One statement a second, without a lock: what there is to seal. `until` is when this process looked before.
LOOK = text("""
SELECT clock_timestamp() AS now,
  CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS oldest,
  CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint) AS next,
  s.horizon, s.late, s.at, s.events
FROM (VALUES (1)) one LEFT JOIN (
  SELECT horizon, CAST(late AS text) AS late, at, events FROM seals ORDER BY n DESC LIMIT 1
) s ON true
""")
# What is planned for a connection that plans once would not find its indexes here.
PLAN = "SET LOCAL plan_cache_mode = auto; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
OURS = text("SELECT pg_try_advisory_xact_lock(:lock)")
FIRST = text("SELECT min(at) FROM events WHERE at >= :begins AND at < :ends")
LAST = text("SELECT n, horizon, CAST(late AS text) AS late, hash FROM seals ORDER BY n DESC LIMIT 1")
# Job by job, in the order of the index: to sort the events of all of them costs half as much again. OFFSET 0 has each
# digest computed once, for the two that it goes into.
CHAINS = text(f"""
WITH seen AS MATERIALIZED (
  SELECT job_id, max(seq) AS last FROM events WHERE at >= :begins AND at < :ends GROUP BY job_id
), chained AS (
  SELECT s.job_id, c.events, uuid_send(s.job_id) || int4send(s.last) || c.chain || c.checks AS entry
  FROM seen s CROSS JOIN LATERAL (
    SELECT count(*) AS events, sha256(string_agg(digest, '' ORDER BY seq)) AS chain,
      string_agg(substr(digest, 1, {CHECK_BYTES}), '' ORDER BY seq) AS checks
    FROM (
      SELECT e.seq, {DIGEST} AS digest FROM events e WHERE e.job_id = s.job_id AND e.seq <= s.last
      ORDER BY e.seq OFFSET 0
    ) of_job
  ) c
  WHERE c.events = s.last
)
SELECT count(*) AS jobs, coalesce(sum(events), 0) AS events, string_agg(entry, '' ORDER BY job_id) AS body FROM chained
""")
ACTS_HEAD = text("SELECT n, hash FROM acts ORDER BY n DESC LIMIT 1")
WRITE = text("""
INSERT INTO seals (n, at, horizon, late, jobs, events, body, acts, acts_hash, previous, hash, key_id, signature)
VALUES (:n, :at, :horizon, CAST(:late AS json), :jobs, :events, :body, :acts, :acts_hash, :previous, :hash, :key_id,
  :signature)
""")
SEALS = text("""
SELECT n, at, horizon, jobs, events, body, acts, acts_hash, previous, hash, key_id, signature FROM seals
WHERE n > :after ORDER BY n LIMIT :limit
""")
FIRST_SINCE = text("SELECT coalesce(min(n), 0) FROM seals WHERE at >= :since")
EVENTS_OF_JOBS = text(f"""
SELECT e.job_id, e.seq, {DIGEST} AS digest FROM events e WHERE e.job_id = ANY(:ids) ORDER BY e.job_id, e.seq
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """One seal, as it is on record.

    Attributes:
        n: Counts from 1 without gaps.
        horizon: What is older, and was committed by then, is sealed.
        jobs: How many entries the body has.
        events: How many events those cover, earlier ones of the same jobs included.
        body: See `entries_in`.
        acts: The last act, as it was then, and its hash.
        previous: The hash of the seal before.
        signature: HMAC-SHA256 of `hash`; None where there was no key.
    """

    n: int
    at: datetime
    horizon: datetime
    jobs: int
    events: int
    body: bytes
    acts: int
    acts_hash: bytes
    previous: bytes
    hash: bytes
    key_id: str | None
    signature: bytes | None


@dataclass(frozen=True, slots=True)
class Entry:
    """What a seal says of a job: its events up to `last`, by their chain and by four bytes of each."""

    job_id: UUID
    last: int
    chain: bytes
    checks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SealKey:
    """What seals are signed with: made of SUREFOOT_SIGNING_KEY, for nothing else. `id` may be shown."""

    id: str
    secret: bytes

    @classmethod
    def of(cls, signing_key: str) -> SealKey | None:
        """Return the key; None where there is none."""
        if not signing_key:
            return None
        secret = hmac.digest(signing_key.encode(), b"surefoot seals", "sha256")
        return cls(hashlib.sha256(secret).hexdigest()[:8], secret)

    def sign(self, hash_: bytes) -> bytes:
        """Return the signature of a seal's hash."""
        return hmac.digest(self.secret, hash_, "sha256")


def hash_of(seal: Seal) -> bytes:
    """Return what a seal's hash has to be: over all that it says, and the hash of the one before."""
    said = [
        *("surefoot seal 1", str(seal.n), _spelled(seal.at), _spelled(seal.horizon), str(seal.jobs), str(seal.events)),
        *(hashlib.sha256(seal.body).hexdigest(), str(seal.acts), seal.acts_hash.hex(), seal.previous.hex()),
    ]
    return hashlib.sha256("\n".join(said).encode()).digest()


def entries_in(body: bytes) -> Iterator[Entry]:
    """Yield what a seal says of each job.

    Raises:
        ValueError: If that is no body of a seal.
    """
    at = 0
    while at < len(body):
        try:
            job_id, last, chain = _HEAD.unpack_from(body, at)
        except struct.error as error:
            raise ValueError("it ends in the midst of an entry") from error
        at += _HEAD.size
        ends = at + CHECK_BYTES * last
        if last < 1 or ends > len(body):
            raise ValueError("an entry has more events than it holds")
        checks = tuple(body[i : i + CHECK_BYTES] for i in range(at, ends, CHECK_BYTES))
        yield Entry(UUID(bytes=job_id), last, chain, checks)
        at = ends


def seals_after(connection: Connection, after: int, *, limit: int) -> list[Seal]:
    """Return the seals after that one, in order."""
    return [_seal(row) for row in connection.execute(SEALS, {"after": after, "limit": limit}).mappings()]


def first_since(connection: Connection, since: datetime) -> int:
    """Return the first seal made since a moment; 0 where there is none."""
    return int(connection.execute(FIRST_SINCE, {"since": since}).scalar_one())


def digests_of(connection: Connection, job_ids: Sequence[UUID]) -> dict[UUID, dict[int, bytes]]:
    """Return the digest of each event of these jobs, as the events are now."""
    found: dict[UUID, dict[int, bytes]] = {job_id: {} for job_id in job_ids}
    for row in connection.execute(EVENTS_OF_JOBS, {"ids": list(job_ids)}):
        found[row.job_id][row.seq] = bytes(row.digest)
    return found


def chain_of(digests: Sequence[bytes]) -> bytes:
    """Return a job's chain up to the last of these events."""
    return hashlib.sha256(b"".join(digests)).digest()


def _seal(row: RowMapping) -> Seal:
    binary = ("body", "acts_hash", "previous", "hash")
    signature = row["signature"]
    facts = dict(row) | {name: bytes(row[name]) for name in binary}
    return Seal(**facts | {"signature": None if signature is None else bytes(signature)})


def _spelled(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
