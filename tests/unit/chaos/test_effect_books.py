"""The world outside, by which the crash matrix judges: each mode does what its effect class promises, and no more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.effect_books import Asked, Books
from tests.chaos.evidence import EffectLine, digest
from tests.chaos.evidence_folder import LINES, Appender
from tests.chaos.strict import decode, parse

ASKED = Asked(mode="keyed", action="a.b", ref="job", key="job:0", attempt=1, token="7", body={"n": 1})


def lines(folder: Path) -> list[EffectLine]:
    file = LINES[EffectLine]
    return [decode(EffectLine, parse(line, file=file), file=file) for line in (folder / file).read_bytes().splitlines()]


def ask(books: Books, asked: Asked) -> str:
    arrival = books.arrive(asked)
    answer = books.apply(arrival, asked)
    books.end(arrival, asked, answer, dropped=False)
    return str(answer["receipt"])


def test_a_keyed_effect_is_applied_once_for_its_key_and_answered_alike(tmp_path: Path) -> None:
    books = Books(tmp_path)
    assert ask(books, ASKED) == ask(books, replace(ASKED, attempt=2))
    assert ask(books, ASKED) != ask(books, replace(ASKED, key="job:1"))
    phases = Counter(line.phase for line in lines(tmp_path))
    assert (phases["applied"], phases["deduped"], phases["answered"]) == (2, 2, 4)


@pytest.mark.parametrize("mode", ["verifiable", "unsafe"])
def test_what_has_no_key_is_applied_each_time_and_a_second_effect_shows(mode: str, tmp_path: Path) -> None:
    books = Books(tmp_path)
    asked = replace(ASKED, mode=mode, key=None)  # type: ignore[arg-type]  # both are modes
    assert ask(books, asked) != ask(books, replace(asked, attempt=2))
    assert Counter(line.phase for line in lines(tmp_path))["applied"] == 2


def test_a_repeat_of_an_idempotent_effect_brings_the_same(tmp_path: Path) -> None:
    books = Books(tmp_path)
    asked = replace(ASKED, mode="idempotent", key=None)
    assert ask(books, asked) == ask(books, replace(asked, attempt=2))


def test_a_pure_request_applies_nothing(tmp_path: Path) -> None:
    ask(Books(tmp_path), replace(ASKED, mode="pure", key=None))
    assert [line.phase for line in lines(tmp_path)] == ["arrived", "answered"]


def test_a_look_up_knows_what_was_applied_and_what_was_not(tmp_path: Path) -> None:
    books = Books(tmp_path)
    asked = replace(ASKED, mode="verifiable", key=None)
    assert books.look_up(asked)[1] == {"happened": False, "result": None}
    receipt = ask(books, asked)
    assert books.look_up(asked)[1] == {"happened": True, "result": {"receipt": receipt}}


def test_a_look_up_is_on_record_as_one_from_its_first_line_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = list[list[str]]()
    write = Appender.write

    def noted(self: Appender, *records: EffectLine) -> None:
        written.append([record.phase for record in records])
        write(self, *records)

    monkeypatch.setattr(Appender, "write", noted)
    Books(tmp_path).look_up(ASKED)
    assert written == [["arrived", "looked_up"]]


def test_the_books_hold_the_digests_of_what_was_asked_and_answered(tmp_path: Path) -> None:
    receipt = ask(Books(tmp_path), ASKED)
    arrived, applied, _ = lines(tmp_path)
    assert (arrived.body_hash, arrived.result_hash) == (digest({"n": 1}), None)
    assert applied.result_hash == digest({"receipt": receipt})


def test_books_that_are_opened_anew_remember_what_was_done_and_number_on(tmp_path: Path) -> None:
    receipt = ask(Books(tmp_path), ASKED)
    verifiable = replace(ASKED, mode="verifiable", key=None, ref="other")
    other = ask(Books(tmp_path), verifiable)
    again = Books(tmp_path)
    assert ask(again, replace(ASKED, attempt=2)) == receipt
    found = {"happened": True, "result": {"receipt": other}}
    assert again.look_up(verifiable) == (4, found)
    assert sorted({line.arrival for line in lines(tmp_path)}) == [1, 2, 3, 4]


def test_a_line_that_its_writer_did_not_end_is_taken_back(tmp_path: Path) -> None:
    ask(Books(tmp_path), ASKED)
    with (tmp_path / LINES[EffectLine]).open("ab") as file:
        file.write(b'{"at": 10')
    ask(Books(tmp_path), replace(ASKED, ref="other", key="other:0"))
    assert [line.arrival for line in lines(tmp_path)] == [1, 1, 1, 2, 2, 2]


def test_an_effect_is_on_the_disk_before_it_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    books, synced = Books(tmp_path), list[list[str]]()
    sync = Appender.sync

    def noted(self: Appender) -> None:
        synced.append([line.phase for line in lines(tmp_path)])
        sync(self)

    monkeypatch.setattr(Appender, "sync", noted)
    ask(books, ASKED)
    assert synced == [["arrived", "applied", "answered"]]


def test_whoever_waits_for_the_disk_at_the_same_time_shares_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[int]()
    monkeypatch.setattr("os.fsync", waits.append)
    lines_of = Appender(tmp_path, EffectLine)
    Books(tmp_path).arrive(ASKED)
    lines_of.write(lines(tmp_path)[0])
    lines_of.write(lines(tmp_path)[0])
    lines_of.sync()
    lines_of.sync()
    assert len(waits) == 1
