"""Verifying the record: whether anybody has changed, removed, reordered or cut off any of it since it was sealed."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy.engine import Connection

from producer.canonical import canonical_json
from producer.ledger import seals as ledger
from producer.ledger.acts import ACTS_NOTHING
from producer.ledger.seals import Entry, Seal, SealKey
from producer.ledger.verification import (
    ACTS_CHAIN,
    ERASED_UNSAID,
    ODD_HISTORIES,
    UNSEALED,
    JobRow,
    job_rows,
)

SEALS_AT_ONCE, JOBS_AT_ONCE = 50, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it was.

    Attributes:
        what: ``changed`` | ``missing`` | ``reordered`` | ``cut off`` | ``added`` | ``erased`` | ``forged``.
        of: ``event`` | ``job`` | ``decision`` | ``act`` | ``seal`` | ``anchor``.
        text: Which, in a sentence.
    """

    what: str
    of: str
    text: str
    job_id: UUID | None = None
    seqs: tuple[int, ...] = ()
    n: int | None = None


@dataclass(slots=True)
class Verification:
    """What was found, and what was looked at.

    Attributes:
        seals: How many seals were verified.
        unsigned: How many of those have no signature, or one by a key that is not known here.
        jobs: Entries of jobs that were verified; a job has one for each span in which it had events.
        events: How many events those cover.
        acts: How many acts were verified.
        anchors: How many anchors were.
        unsealed: Events that are too new to be sealed; a change to one of these is not found.
        sealed_until: What is older is sealed; None where nothing is.
    """

    findings: list[Finding] = field(default_factory=list)
    seals: int = 0
    unsigned: int = 0
    jobs: int = 0
    events: int = 0
    acts: int = 0
    anchors: int = 0
    unsealed: int = 0
    sealed_until: datetime | None = None

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(
    connection: Connection,
    *,
    key: SealKey | None,
    since: datetime | None = None,
    anchors: Sequence[Mapping[str, Any]] = (),
) -> Verification:
    """Compare the record with its seals, the seals with one another, and all that with what was anchored elsewhere.

    Reads every event; what is added meanwhile is not held against anybody.

    Args:
        connection: With one snapshot for all that follows.
        key: By which the seals were signed; None leaves the signatures unverified.
        since: Only what was sealed since; the seal before is believed.
        anchors: As `worker.anchors` exports them.
    """
    found = Verification()
    after = 0 if since is None else max(0, ledger.first_since(connection, since) - 1)
    known: dict[int, bytes] = {}
    told: set[tuple[UUID, int]] = set()
    for seal in _seals(connection, after, found, key, known):
        _verify_entries(connection, seal, found, told)
    _verify_acts(connection, found, after)
    _verify_histories(connection, found, told, since)
    _verify_anchors(found, anchors, known, after, key)
    found.unsealed = connection.execute(UNSEALED, {"horizon": found.sealed_until}).scalar_one()
    return found


# ---- seals ---------------------------------------------------------------------------------------------------------


def _seals(
    connection: Connection, after: int, found: Verification, key: SealKey | None, known: dict[int, bytes]
) -> Iterator[Seal]:
    """Yield the seals, each compared with the one before."""
    before: Seal | None = None
    while batch := ledger.seals_after(connection, after, limit=SEALS_AT_ONCE):
        for seal in batch:
            _verify_seal(seal, before, after, found, key)
            known[seal.n] = seal.hash
            yield seal
            before, after = seal, seal.n
            found.sealed_until = seal.horizon
            found.seals += 1


def _verify_seal(seal: Seal, before: Seal | None, after: int, found: Verification, key: SealKey | None) -> None:
    n = seal.n
    if n != after + 1:
        gone = f"seal {after + 1}" if n == after + 2 else f"seals {after + 1} to {n - 1}"
        found.findings.append(Finding(what="missing", of="seal", n=after + 1, text=f"{gone} of the record is missing."))
    elif before is not None and seal.previous != before.hash:
        text = f"Seal {n} does not follow seal {after}: one of them was changed."
        found.findings.append(Finding(what="changed", of="seal", n=n, text=text))
    elif n == 1 and seal.previous != ledger.NOTHING_BEFORE:
        found.findings.append(Finding(what="missing", of="seal", n=0, text="What was before seal 1 is missing."))
    if ledger.hash_of(seal) != seal.hash:
        found.findings.append(Finding(what="changed", of="seal", n=n, text=f"Seal {n} was changed."))
    if seal.signature is None or key is None or seal.key_id != key.id:
        found.unsigned += 1
        if key is not None and found.unsigned == 1:  # one is enough: an old key's are many
            text = f"Seal {n}, and perhaps more, is not signed by the key that is known here ({key.id})."
            found.findings.append(Finding(what="forged", of="seal", n=n, text=text))
    elif not hmac.compare_digest(key.sign(seal.hash), seal.signature):
        text = f"The signature of seal {n} is not by the key that it names."
        found.findings.append(Finding(what="forged", of="seal", n=n, text=text))


# ---- events --------------------------------------------------------------------------------------------------------


def _verify_entries(connection: Connection, seal: Seal, found: Verification, told: set[tuple[UUID, int]]) -> None:
    try:
        entries = list(ledger.entries_in(seal.body))
    except ValueError as error:
        text = f"Seal {seal.n} cannot be read: {error}."
        found.findings.append(Finding(what="changed", of="seal", n=seal.n, text=text))
        return
    for batch in _batches(entries, JOBS_AT_ONCE):
        digests = ledger.digests_of(connection, [entry.job_id for entry in batch])
        for entry in batch:
            found.jobs += 1
            found.events += entry.last
            for finding in compare(entry, digests[entry.job_id]):
                new = tuple(seq for seq in finding.seqs if (entry.job_id, seq) not in told)
                if new:
                    told.update((entry.job_id, seq) for seq in new)
                    found.findings.append(finding)


def compare(entry: Entry, digests: Mapping[int, bytes]) -> Iterator[Finding]:
    """Yield what differs between a job's events and what a seal says of them. Pure.

    Args:
        entry: The seal's.
        digests: Of the events that there are now, by their numbers.
    """
    expected = range(1, entry.last + 1)
    if all(seq in digests for seq in expected) and ledger.chain_of([digests[seq] for seq in expected]) == entry.chain:
        return
    gone = [seq for seq in expected if seq not in digests]
    if gone:
        yield _missing(entry, gone, digests)
    odd = [seq for seq in expected if seq in digests and digests[seq][: ledger.CHECK_BYTES] != entry.checks[seq - 1]]
    moved = _moved(entry, digests, odd)
    if moved:
        yield _finding("reordered", entry, moved, f"{_events(moved)} of job {entry.job_id} have changed places.")
    changed = [seq for seq in odd if seq not in moved]
    if changed:
        yield _finding("changed", entry, changed, f"{_events(changed)} of job {entry.job_id} {_was(changed)} changed.")
    if not gone and not odd:
        text = f"One of the events up to {entry.last} of job {entry.job_id} was changed, or what its seal says of it."
        yield _finding("changed", entry, list(expected), text)


def _missing(entry: Entry, gone: list[int], digests: Mapping[int, bytes]) -> Finding:
    if len(gone) == entry.last:
        return _finding("missing", entry, gone, f"Every event of job {entry.job_id} is missing, {entry.last} of them.")
    if gone == list(range(gone[0], entry.last + 1)) and not any(seq > entry.last for seq in digests):
        end = f"The end of job {entry.job_id} is cut off: {_events(gone)} {_was(gone)} removed."
        return _finding("cut off", entry, gone, end)
    return _finding("missing", entry, gone, f"{_events(gone)} of job {entry.job_id} {_was(gone)} removed.")


def _moved(entry: Entry, digests: Mapping[int, bytes], odd: list[int]) -> list[int]:
    """Return those of the events that stand where others of them stood."""
    here = Counter(digests[seq][: ledger.CHECK_BYTES] for seq in odd)
    there = Counter(entry.checks[seq - 1] for seq in odd)
    both = here & there
    return [
        seq for seq in odd if digests[seq][: ledger.CHECK_BYTES] in both and entry.checks[seq - 1] in both
    ]  # fmt: skip


def _finding(what: str, entry: Entry, seqs: list[int], text: str) -> Finding:
    return Finding(what=what, of="event", job_id=entry.job_id, seqs=tuple(seqs), text=text)


def _events(seqs: Sequence[int]) -> str:
    named = ", ".join(map(str, seqs[:20])) + (", …" if len(seqs) > 20 else "")  # noqa: PLR2004  enough to look at
    return f"{'Event' if len(seqs) == 1 else 'Events'} {named}"


def _was(seqs: Sequence[int]) -> str:
    return "was" if len(seqs) == 1 else "were"


# ---- acts ----------------------------------------------------------------------------------------------------------


def _verify_acts(connection: Connection, found: Verification, after: int) -> None:
    """Follow the acts' own chain, and see that what the seals name of it is still there."""
    last, head = 0, ACTS_NOTHING
    hashes: dict[int, bytes] = {0: ACTS_NOTHING}
    for row in connection.execute(ACTS_CHAIN):
        if row.n != last + 1:
            gone = f"Act {last + 1}" if row.n == last + 2 else f"Acts {last + 1} to {row.n - 1}"
            found.findings.append(
                Finding(what="missing", of="act", n=last + 1, text=f"{gone} of the record is missing.")
            )
        elif not row.follows:
            text = f"Act {row.n} ({row.act} {row.target}) was changed, or the one before."
            found.findings.append(Finding(what="changed", of="act", n=row.n, text=text))
        last, head = row.n, bytes(row.hash)
        hashes[last] = head
        found.acts += 1
    for seal in _heads(connection, after):
        if seal.acts not in hashes:
            text = f"Acts up to {seal.acts} were sealed, and there are {last}: the end is cut off."
            found.findings.append(Finding(what="cut off", of="act", n=seal.acts, text=text))
            return
        if hashes[seal.acts] != seal.acts_hash:
            text = f"Acts up to {seal.acts} are not those that seal {seal.n} was made over."
            found.findings.append(Finding(what="changed", of="act", n=seal.acts, text=text))
            return


def _heads(connection: Connection, after: int) -> Iterator[Seal]:
    while batch := ledger.seals_after(connection, after, limit=SEALS_AT_ONCE):
        yield from batch
        after = batch[-1].n


# ---- jobs and decisions --------------------------------------------------------------------------------------------


def _verify_histories(
    connection: Connection, found: Verification, told: set[tuple[UUID, int]], since: datetime | None
) -> None:
    """See that each job has the events that it counts, and that params and results are those that events name."""
    for row in connection.execute(ODD_HISTORIES, {"since": since}):
        if any(job_id == row.id for job_id, _ in told):
            continue
        if row.last_seq is None:
            text = f"Job {row.id} has {row.events} events, and is not there itself."
            found.findings.append(Finding(what="missing", of="job", job_id=row.id, text=text))
        else:
            text = f"Job {row.id} counts {row.last_seq} events, and {row.events} are there, the last being {row.last}."
            what = "missing" if row.events < row.last_seq else "added"
            found.findings.append(Finding(what=what, of="event", job_id=row.id, text=text))
    for row in connection.execute(ERASED_UNSAID, {"since": since}):
        text = f"Event {row.seq} of job {row.job_id} was erased, and no act says by whom."
        found.findings.append(Finding(what="erased", of="event", job_id=row.job_id, seqs=(row.seq,), text=text))
    for job in job_rows(connection, since, limit=JOBS_AT_ONCE):
        found.findings += decision_findings(job)


def decision_findings(job: JobRow) -> Iterator[Finding]:
    """Yield what of a job's decision is not what its events say. Pure."""
    if job.erased:
        return
    text = None
    if job.accepted != job.fingerprint:
        text = f"The fingerprint of job {job.id} is not the one that it was accepted with."
    elif _fingerprint(job) != job.fingerprint:
        text = f"The params of job {job.id} are not those that it was accepted with."
    if text is not None:
        yield Finding(what="changed", of="decision", job_id=job.id, text=text)
    if job.settled is not None and job.settled != job.result:
        gone = "is gone" if job.result is None else "is not the one that was recorded"
        yield Finding(what="changed", of="decision", job_id=job.id, text=f"The result of job {job.id} {gone}.")


def _fingerprint(job: JobRow) -> str | None:
    try:
        canonical = canonical_json(json.loads(job.params), where="params")
    except Exception:  # noqa: BLE001  whatever somebody has put there is not what was accepted
        return None
    return hashlib.sha256(f"{job.version}\n{canonical}".encode()).hexdigest()


# ---- anchors -------------------------------------------------------------------------------------------------------


def _verify_anchors(
    found: Verification,
    anchors: Iterable[Mapping[str, Any]],
    known: Mapping[int, bytes],
    after: int,
    key: SealKey | None,
) -> None:
    last = max(known, default=after)
    for anchor in anchors:
        n, hash_ = int(anchor["seal"]), bytes.fromhex(anchor["hash"])
        if n <= after:
            continue
        found.anchors += 1
        signed: str | None = anchor.get("signature")
        ours = key if signed and key is not None and anchor.get("key_id") == key.id else None
        if ours is not None and not hmac.compare_digest(ours.sign(hash_), bytes.fromhex(signed or "")):
            text = f"The anchor of seal {n} is not signed by the key that it names."
            found.findings.append(Finding(what="forged", of="anchor", n=n, text=text))
            continue
        if n > last:
            text = f"Seal {n} was anchored, and the record ends with seal {last}: its end is cut off."
            found.findings.append(Finding(what="cut off", of="seal", n=n, text=text))
            return
        if n not in known:
            continue  # told of already
        if known[n] != hash_:
            text = f"Seal {n} is not the one that was anchored: the record was written anew from there on, or before."
            found.findings.append(Finding(what="changed", of="seal", n=n, text=text))
            return


def _batches(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    rest = iter(entries)
    while batch := list(islice(rest, size)):
        yield batch
