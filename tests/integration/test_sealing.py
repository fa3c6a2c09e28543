"""Seals over a real ledger: whatever a superuser does to what is sealed is found, and it is said which it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import Connection

from producer import InvalidRequest, Producer, Settings
from producer.anchoring import anchor_of, read_anchors
from producer.ledger.engine import in_transaction
from producer.ledger.seals import SealKey, entries_in, hash_of, seals_after
from tests.integration.sealing import KEY, LATER, Sealing, history, superuser
from worker import sealer
from worker.sealer import Sealer


@pytest.fixture
def sealing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Sealing:
    return Sealing(engine, monkeypatch)


@pytest.fixture
def sealed(lone_producer: Producer, sealing: Sealing) -> tuple[Sealing, UUID]:
    """Three jobs of four events each, sealed; and the second one's id."""
    ids = [history(lone_producer, key) for key in ("one", "two", "three")]
    sealing.seal()
    return sealing, ids[1]


def texts(producer: Producer) -> list[str]:
    return [finding.text for finding in producer.verify().findings]


def test_a_record_that_nobody_has_touched_is_sound(lone_producer: Producer, sealed: tuple[Sealing, UUID]) -> None:
    found = lone_producer.verify()
    assert found.is_sound
    assert (found.seals, found.jobs, found.events, found.acts, found.unsealed) == (1, 3, 12, 3, 0)
    history(lone_producer, "four")
    assert lone_producer.verify().unsealed == 4
    sealed[0].seal()
    assert (lone_producer.verify().seals, lone_producer.verify().events) == (2, 16)


# What is done to the job's events, and what is said of it then.
ATTACKS: dict[str, tuple[str, str]] = {
    "data": ("UPDATE events SET data = '{}' WHERE job_id = :id AND seq = 4", "Event 4 of job {} was changed."),
    "a word of it": (
        ("UPDATE events SET data = CAST(replace(CAST(data AS text), 'not wanted', 'unwanted') AS json)"
        " WHERE job_id = :id AND seq = 4"),
        "Event 4 of job {} was changed.",
    ),
    "no data": ("UPDATE events SET data = NULL WHERE job_id = :id AND seq = 2", "Event 2 of job {} was changed."),
    "time": ("UPDATE events SET at = now() WHERE job_id = :id AND seq = 2", "Event 2 of job {} was changed."),
    "kind": ("UPDATE events SET kind = 'x' WHERE job_id = :id AND seq = 3", "Event 3 of job {} was changed."),
    "worker": ("UPDATE events SET worker = 'x' WHERE job_id = :id AND seq > 2", "Events 3, 4 of job {} were changed."),
    "fence": ("UPDATE events SET fence = 7 WHERE job_id = :id AND seq = 1", "Event 1 of job {} was changed."),
    "attempt": ("UPDATE events SET attempt = 0 WHERE job_id = :id AND seq = 1", "Event 1 of job {} was changed."),
    "deleted": ("DELETE FROM events WHERE job_id = :id AND seq = 2", "Event 2 of job {} was removed."),
    "deleted at the end": (
        "DELETE FROM events WHERE job_id = :id AND seq > 2",
        "The end of job {} is cut off: Events 3, 4 were removed.",
    ),
    "the end cut off with care": (
        ("WITH gone AS (DELETE FROM events WHERE job_id = :id AND seq = 4)"
        " UPDATE jobs SET last_seq = 3, state = 'queued', finished_at = NULL WHERE id = :id"),
        "The end of job {} is cut off: Event 4 was removed.",
    ),
    "closed up": (
        ("WITH gone AS (DELETE FROM events WHERE job_id = :id AND seq = 1)"
        " UPDATE jobs SET last_seq = 3 WHERE id = :id"),
        "Event 1 of job {} was removed.",
    ),
    "truncated": ("TRUNCATE events", "Every event of job {} is missing, 4 of them."),
    "all of it gone": (
        ("WITH a AS (DELETE FROM events WHERE job_id = :id), b AS (DELETE FROM decisions WHERE job_id = :id)"
        " DELETE FROM jobs WHERE id = :id"),
        "Every event of job {} is missing, 4 of them.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_superuser_does_to_an_event_is_found_and_said_which_it_was(
    lone_producer: Producer, sealed: tuple[Sealing, UUID], engine: Engine, attack: str
) -> None:
    _, job_id = sealed
    statement, said = ATTACKS[attack]
    with superuser(engine) as connection:
        connection.execute(text(statement), {"id": job_id})
    assert said.format(job_id) in texts(lone_producer)
    others = [finding for finding in lone_producer.verify().findings if finding.job_id != job_id]
    assert bool(others) == (attack == "truncated")


def swap(connection: Connection, job_id: UUID, one: int, other: int) -> None:
    for before, after in ((one, -1), (other, one), (-1, other)):
        asked = {"id": job_id, "before": before, "after": after}
        connection.execute(text("UPDATE events SET seq = :after WHERE job_id = :id AND seq = :before"), asked)


def test_events_that_have_changed_places_are_called_that(
    lone_producer: Producer, sealed: tuple[Sealing, UUID], engine: Engine
) -> None:
    with superuser(engine) as connection:
        swap(connection, sealed[1], 2, 4)
    assert texts(lone_producer) == [f"Events 2, 4 of job {sealed[1]} have changed places."]


def test_an_event_that_was_added_is_found(
    lone_producer: Producer, sealed: tuple[Sealing, UUID], engine: Engine
) -> None:
    with superuser(engine) as connection:
        connection.execute(text("INSERT INTO events (job_id, seq, kind) VALUES (:id, 5, 'x')"), {"id": sealed[1]})
    assert texts(lone_producer) == [f"Job {sealed[1]} counts 4 events, and 5 are there, the last being 5."]


def test_what_is_changed_before_it_is_sealed_is_not_found_but_a_removal_is(
    lone_producer: Producer, sealing: Sealing, engine: Engine
) -> None:
    """The window, about two seconds: said in docs/audit.md, and shown here."""
    job_id = history(lone_producer, "early")
    with superuser(engine) as connection:
        connection.execute(text("UPDATE events SET worker = 'x' WHERE job_id = :id AND seq = 2"), {"id": job_id})
        sealing.seal()
        assert texts(lone_producer) == []
        other = history(lone_producer, "removed")
        connection.execute(text("DELETE FROM events WHERE job_id = :id AND seq = 2"), {"id": other})
    sealing.seal()
    assert texts(lone_producer) == [f"Job {other} counts 4 events, and 3 are there, the last being 4."]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE decisions SET params = '{\"a\": 1, \"b\": 3}' WHERE job_id = :id", "The params of job {} are not"),
        ("UPDATE jobs SET fingerprint = sha256('x') WHERE id = :id", "The fingerprint of job {} is not the one"),
    ],
)  # fmt: skip
def test_params_that_are_not_those_that_were_accepted_are_found(
    lone_producer: Producer, sealed: tuple[Sealing, UUID], engine: Engine, statement: str, said: str
) -> None:
    with superuser(engine) as connection:
        connection.execute(text(statement), {"id": sealed[1]})
    (found,) = texts(lone_producer)
    assert found.startswith(said.format(sealed[1]))


# ---- seals and acts ------------------------------------------------------------------------------------------------


@pytest.fixture
def three(lone_producer: Producer, sealing: Sealing) -> Sealing:
    """Three seals over a job each."""
    for key in ("a", "b", "c"):
        history(lone_producer, key)
        sealing.seal()
    assert len(sealing.seals) == 3
    return sealing


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM seals WHERE n = 2", ["seal 2 of the record is missing."]),
        ("DELETE FROM seals WHERE n = 1", ["seal 1 of the record is missing."]),
        ("UPDATE seals SET body = '' WHERE n = 2", ["Seal 2 was changed."]),
        ("UPDATE seals SET body = substr(body, 2) WHERE n = 2", ["Seal 2 was changed.", "Seal 2 cannot be read: "]),
        ("UPDATE seals SET at = now() WHERE n = 3", ["Seal 3 was changed."]),
        ("UPDATE seals SET hash = sha256('x') WHERE n = 1", ["Seal 1 was changed.", "Seal 2 does not follow seal 1"]),
        ("UPDATE acts SET who = 'eve' WHERE n = 2", ["Act 2 (cancel ", ""]),
        ("UPDATE acts SET reason = NULL WHERE n = 1", ["Act 1 (cancel "]),
        ("DELETE FROM acts WHERE n = 2", ["Act 2 of the record is missing.", "Acts up to 2 were sealed, and"]),
        ("DELETE FROM acts WHERE n = 3", ["Acts up to 3 were sealed, and there are 2: the end is cut off."]),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("three")
def test_what_a_superuser_does_to_seals_and_acts_is_found(
    lone_producer: Producer, engine: Engine, statement: str, said: list[str]
) -> None:
    with superuser(engine) as connection:
        connection.execute(text(statement))
    found = texts(lone_producer)
    for words in said:
        assert any(each.startswith(words) for each in found), found


def test_seals_made_anew_by_somebody_without_the_key_are_found(
    lone_producer: Producer, engine: Engine, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    signed = Sealing(engine, monkeypatch, KEY)
    job_id = history(lone_producer, "signed")
    anchor = anchor_of(signed.seal())
    knows = Producer(replace(settings, signing_key="k" * 32))
    assert knows.verify(anchors=[anchor]).is_sound
    for key in (None, SealKey.of("another key")):
        forge(engine, job_id, key)
        (finding,) = knows.verify().findings
        assert (finding.what, finding.of) == ("forged", "seal")
        # Who has no key finds it by what was exported alone.
        assert lone_producer.verify().is_sound
        (finding,) = lone_producer.verify(anchors=[anchor]).findings
        assert finding.text.startswith("Seal 1 is not the one that was anchored")
    knows.close()


def forge(engine: Engine, job_id: UUID, key: SealKey | None) -> None:
    """Change an event, and make the seals anew, as if they had always been so."""
    with superuser(engine) as connection:
        connection.execute(text("UPDATE events SET worker = 'forged' WHERE job_id = :id"), {"id": job_id})
        (old,) = seals_after(connection, 0, limit=10)
        connection.execute(text("DELETE FROM seals"))
        anew = Sealer(key)
        anew._began = old.at.replace(year=2000)  # noqa: SLF001  from the beginning
        for _ in range(3):
            anew.seal(connection)
        (forged,) = seals_after(connection, 0, limit=10)
        assert forged.hash not in (old.hash, b"")


def test_a_record_whose_end_was_cut_off_altogether_is_found_by_what_was_exported(
    lone_producer: Producer, three: Sealing, engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "anchors"
    path.write_text("\n".join(json.dumps(anchor_of(seal)) for seal in three.seals))
    anchors = read_anchors(path)
    assert lone_producer.verify(anchors=anchors).is_sound
    with superuser(engine) as connection:
        gone = lone_producer.find("test.add", "c")
        assert gone is not None
        connection.execute(text("DELETE FROM seals WHERE n = 3"))
        connection.execute(text("DELETE FROM acts WHERE n = 3"))
        connection.execute(text("DELETE FROM events WHERE job_id = :id"), {"id": gone.id})
        connection.execute(text("DELETE FROM decisions WHERE job_id = :id"), {"id": gone.id})
        connection.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": gone.id})
    assert lone_producer.verify().is_sound  # there is nothing left that could tell
    (finding,) = lone_producer.verify(anchors=anchors).findings
    assert finding.text == "Seal 3 was anchored, and the record ends with seal 2: its end is cut off."


@pytest.mark.parametrize(
    "line", ["{", "[]", "7", '{"seal": 1}', '{"seal": "1", "hash": "00"}', '{"seal": 1, "hash": "zz"}']
)
def test_a_file_that_holds_no_anchors_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "anchors"
    path.write_text(line)
    with pytest.raises(InvalidRequest, match="line 1 is no anchor"):
        read_anchors(path)


def test_only_what_was_sealed_since_is_verified_where_that_is_asked(
    lone_producer: Producer, three: Sealing, engine: Engine
) -> None:
    with superuser(engine) as connection:
        connection.execute(text("DELETE FROM seals WHERE n = 1"))
    found = lone_producer.verify(since=three.seals[1].at)
    assert (found.seals, found.findings) == (2, [])


# ---- sealing -------------------------------------------------------------------------------------------------------


def test_nothing_is_sealed_while_nothing_happens(sealed: tuple[Sealing, UUID]) -> None:
    sealing, _ = sealed
    for _ in range(5):
        sealing.look()
    assert len(sealing.seals) == 1


def test_an_event_of_a_transaction_that_was_committed_late_is_sealed_all_the_same(
    lone_producer: Producer, sealing: Sealing, engine: Engine
) -> None:
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as late, late.begin():
        job = lone_producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key="late", connection=late, run_at=LATER)
        history(lone_producer, "meanwhile")
        sealing.seal()
        history(lone_producer, "and-then")
        before = sealing.seal()
    sealing.seal()
    sealing.look()
    sealed = {entry.job_id for seal in sealing.seals if seal.n > before.n for entry in entries_in(seal.body)}
    assert job.id in sealed
    with superuser(engine) as connection:
        connection.execute(text("UPDATE events SET worker = 'x' WHERE job_id = :id"), {"id": job.id})
    assert texts(lone_producer) == [f"Event 1 of job {job.id} was changed."]
    many = len(sealing.seals)
    sealing.look()
    assert len(sealing.seals) == many  # it was gone over once, and no more


def test_a_large_seal_has_the_next_one_wait_so_that_sealing_never_costs_more_than_its_share(
    lone_producer: Producer, sealed: tuple[Sealing, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing, _ = sealed
    monkeypatch.setattr(sealer, "EVENTS_PER_SECOND", 0.001)
    history(lone_producer, "more")
    for _ in range(5):
        sealing.look()
    assert (len(sealing.seals), lone_producer.verify().unsealed) == (1, 4)
    monkeypatch.setattr(sealer, "EVENTS_PER_SECOND", 1e9)
    sealing.seal()
    assert (len(sealing.seals), lone_producer.verify().unsealed) == (2, 0)


def test_two_that_seal_at_once_make_one_chain(
    lone_producer: Producer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [Sealing(engine, monkeypatch) for _ in range(4)]

    def seal(sealing: Sealing) -> None:
        for _ in range(20):
            sealing.look()

    with ThreadPoolExecutor(5) as threads:
        done = [threads.submit(seal, each) for each in both]
        for number in range(10):
            history(lone_producer, f"job-{number}")
        for each in done:
            each.result(30)
    both[0].seal()
    found = lone_producer.verify()
    assert found.is_sound
    assert found.seals == sum(len(each.seals) for each in both)
    assert found.unsealed == 0


def test_a_seal_says_what_its_hash_is_taken_of(sealed: tuple[Sealing, UUID], engine: Engine) -> None:
    (made,) = sealed[0].seals
    (read,) = in_transaction(engine, lambda c: seals_after(c, 0, limit=10))
    assert read == made
    assert hash_of(read) == read.hash
    entry = next(entry for entry in entries_in(read.body) if entry.job_id == sealed[1])
    assert (entry.last, len(entry.checks)) == (4, 4)


# ---- erasing -------------------------------------------------------------------------------------------------------


def test_an_event_that_was_erased_without_a_word_is_found(
    lone_producer: Producer, sealed: tuple[Sealing, UUID], engine: Engine
) -> None:
    with engine.connect() as connection:  # as its owner may: the trigger sees to it that the digest is the data's
        erase: Callable[[str], object] = lambda digest: connection.execute(  # noqa: E731
            text("UPDATE events SET data = CAST(:data AS json) WHERE job_id = :id AND seq = 4"),
            {"id": sealed[1], "data": f'{{"erased":"{digest}"}}'},
        )
        with pytest.raises(Exception, match="events are only ever added"):
            erase("0" * 64)
        digest = connection.execute(
            text(
                "SELECT encode(sha256(convert_to(CAST(data AS text), 'UTF8')), 'hex') FROM events"
                " WHERE job_id = :id AND seq = 4"
            ),
            {"id": sealed[1]},
        ).scalar_one()
        erase(digest)
    assert texts(lone_producer) == [f"Event 4 of job {sealed[1]} was erased, and no act says by whom."]
