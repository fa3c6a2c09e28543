"""The evidence of a run: what is written is read back, and what is not as its format says is refused with its place.

These tests, and the checker's, need no service, so they stand among the unit tests and run before every landing.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.chaos.evidence import Call, Evidence, digest
from tests.chaos.evidence_folder import Appender, read
from tests.chaos.ledger_rows import exported
from tests.chaos.strict import UnreadableEvidence
from tests.unit.chaos.folders import write
from tests.unit.chaos.story import Story


def told() -> Evidence:
    story = Story()
    story.accepted().claimed().intended().requested().settled()
    story.fault("sigkill")
    return story.evidence()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, told())
    return tmp_path


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(folder: Path) -> str:
    with pytest.raises(UnreadableEvidence) as caught:
        read(folder)
    return str(caught.value)


def test_what_was_written_is_read_back(folder: Path) -> None:
    assert read(folder) == told()


def test_every_line_remembers_its_number(folder: Path) -> None:
    evidence = read(folder)
    assert [call.line for call in evidence.history] == [1, 2]
    assert [line.line for line in evidence.effects] == [1, 2, 3]


@pytest.mark.parametrize("file", ["history.jsonl", "effects.jsonl", "faults.jsonl"])
def test_a_last_line_without_its_end_is_left_out_and_counted(folder: Path, file: str) -> None:
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole + b'{"at": 10')
    evidence = read(folder)
    assert (evidence.torn, evidence) == ({file: 1}, replace(told(), torn={file: 1}))


def test_a_line_that_is_whole_but_for_its_end_counts_as_torn_too(folder: Path) -> None:
    path = folder / "effects.jsonl"
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert read(folder).torn == {"effects.jsonl": 1}


def test_a_broken_line_before_the_last_is_refused(folder: Path) -> None:
    path = folder / "history.jsonl"
    path.write_bytes(b'{"at": 10\n' + path.read_bytes())
    assert refusal(folder).startswith("history.jsonl:1: not JSON")


@pytest.mark.parametrize(
    "file",
    ["run.json", "history.jsonl", "effects.jsonl", "faults.jsonl", "ledger.json", "redis.json", "processes.json"],
)
def test_every_file_must_be_there(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert refusal(folder) == f"{file}: No such file or directory"


def test_a_folder_without_logs_is_refused(folder: Path) -> None:
    (folder / "logs").rmdir()
    assert refusal(folder) == "logs: there is no such folder"


LINES_EACH = 20  # each is on the disk before the next
LINE: dict[str, Any] = {
    "at": 1.0,
    "process": "p1",
    "op": "invoke",
    "call": 1,
    "action": "a",
    "key": "k",
    "job_id": None,
    "outcome": None,
    "fingerprint": None,
    "error": None,
}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"extra": 1}, "fields: unknown extra"),
        ({"line": 1}, "fields: unknown line"),
        ({"at": "1"}, "at is '1', not float"),
        ({"at": True}, "at is True, not float"),
        ({"call": 1.5}, "call is 1.5, not int"),
        ({"op": "okay"}, "op is 'okay', not one of invoke, ok, fail, info"),
        ({"key": None}, "key is None, not str"),
        ({"op": "ok"}, "job_id and outcome belong to an ok, and this is an ok"),
        ({"outcome": "created"}, "job_id and outcome belong to an ok, and this is an invoke"),
        ({"op": "info"}, "an error belongs to a fail or an info, and this is an info"),
        ({"op": "ok", "outcome": "created", "job_id": "7"}, "job_id is '7', which is no job's"),
        ({"fingerprint": "AB"}, "fingerprint is 'AB', not 64 hexadecimal digits"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_a_line_that_is_not_as_the_format_says_is_refused_with_its_place(
    folder: Path, fields: dict[str, Any], why: str
) -> None:
    (folder / "history.jsonl").write_text(json.dumps(LINE) + "\n" + json.dumps(LINE | fields) + "\n")
    assert refusal(folder) == f"history.jsonl:2: {why}"


def test_a_field_that_is_missing_is_refused(folder: Path) -> None:
    (folder / "history.jsonl").write_text(json.dumps({k: v for k, v in LINE.items() if k != "error"}) + "\n")
    assert refusal(folder) == "history.jsonl:1: fields: missing error"


@pytest.mark.parametrize(
    ("text", "why"), [('{"at": NaN}', "NaN is no number"), ('{"at": 1, "at": 2}', "'at' twice in one object")]
)
def test_json_that_others_would_let_pass_is_refused(folder: Path, text: str, why: str) -> None:
    (folder / "faults.jsonl").write_text(text + "\n")
    assert refusal(folder) == f"faults.jsonl:1: not JSON: {why}"


def test_a_number_beyond_all_numbers_is_refused(folder: Path) -> None:
    (folder / "history.jsonl").write_text(json.dumps(LINE).replace("1.0", "1e999") + "\n")
    assert refusal(folder) == "history.jsonl:1: at is inf, not float"


def test_a_field_deep_inside_is_named_by_its_path(folder: Path) -> None:
    change(folder / "run.json", baseline={"postgres_connections": "3", "redis_clients": 1})
    assert refusal(folder) == "run.json: baseline.postgres_connections is '3', not int"


def test_a_row_must_have_the_columns_of_its_table_and_no_other(folder: Path) -> None:
    ledger = json.loads((folder / "ledger.json").read_text())
    del ledger["second"]["jobs"][0]["fence"]
    ledger["second"]["jobs"][0]["fencing"] = 1
    change(folder / "ledger.json", **ledger)
    assert refusal(folder) == "ledger.json: second.jobs[0] has not exactly the columns of jobs: fence, fencing"


def test_a_row_with_a_value_of_another_type_is_refused(folder: Path) -> None:
    ledger = json.loads((folder / "ledger.json").read_text())
    ledger["first"]["jobs"][0]["state"] = "lost"
    change(folder / "ledger.json", **ledger)
    assert refusal(folder).startswith("ledger.json: first.jobs[0].state is 'lost', not one of awaiting_approval,")


def test_an_error_says_where_also_after_pickling() -> None:
    error = pickle.loads(pickle.dumps(UnreadableEvidence("history.jsonl", 3, "not JSON")))  # noqa: S301  our own
    assert (str(error), error.line) == ("history.jsonl:3: not JSON", 3)


def test_log_lines_that_are_no_json_are_passed_over(folder: Path) -> None:
    lines = ["Traceback (most recent call last):", '{"event": "attempt.late", "job_id": "x"}', "{torn", '{"a": 1}']
    (folder / "logs" / "w1.log").write_text("\n".join(lines))
    (found,) = read(folder).logs
    assert (found.file, found.line, found.event, found.fields["job_id"]) == ("logs/w1.log", 2, "attempt.late", "x")


def test_a_line_of_another_file_is_not_taken(tmp_path: Path) -> None:
    with Appender(tmp_path, Call) as lines, pytest.raises(TypeError, match=r"history.jsonl holds no Fault"):
        lines.add(told().faults[0])


def test_a_line_that_contradicts_itself_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="belong to an ok"):
        Call(**(LINE | {"op": "ok"}))


def test_an_effect_s_digests_are_digests() -> None:
    with pytest.raises(ValueError, match=r"body_hash is 'x'"):
        replace(told().effects[0], body_hash="x")


def append(folder: Path, process: str) -> None:
    with Appender(folder, Call) as lines:
        for number in range(LINES_EACH):
            lines.add(Call(**(LINE | {"process": process, "call": number})))


def test_lines_of_several_processes_stay_whole(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    (folder / "history.jsonl").unlink()
    processes = [context.Process(target=append, args=(folder, f"p{i}")) for i in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    calls = [(call.process, call.call) for call in read(folder).history]
    assert sorted(calls) == [(f"p{i}", number) for i in range(2) for number in range(LINES_EACH)]


def test_rows_are_exported_as_plain_json() -> None:
    row = {
        "id": UUID(int=1),
        "at": datetime(2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC),
        "fingerprint": memoryview(b"\x01\xff"),
        "cost": Decimal("0.10"),
        "params": {"a": [1]},
        "none": None,
    }
    assert exported(row) == {
        "id": "00000000-0000-0000-0000-000000000001",
        "at": 1767225600.25,
        "fingerprint": "01ff",
        "cost": "0.10",
        "params": {"a": [1]},
        "none": None,
    }


def test_a_digest_does_not_hang_on_the_order_of_names() -> None:
    assert digest({"a": 1, "b": [True, None]}) == digest({"b": [True, None], "a": 1})
