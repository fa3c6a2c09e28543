"""Writing a run's evidence line by line, so that no death of a writer loses more than its last, and reading it back."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.chaos.evidence import Call, Cancel, EffectLine, Evidence, Fault, LogLine, ProcessesLeft, RedisLeft, Run
from tests.chaos.ledger_rows import FILE as LEDGER_FILE
from tests.chaos.ledger_rows import Ledger, Snapshot
from tests.chaos.strict import UnreadableEvidence, decode, encode, parse

LINES: Mapping[type, str] = {
    Call: "history.jsonl",
    Cancel: "cancels.jsonl",
    EffectLine: "effects.jsonl",
    Fault: "faults.jsonl",
}
OBJECTS: Mapping[type, str] = {Run: "run.json", RedisLeft: "redis.json", ProcessesLeft: "processes.json"}
T = TypeVar("T")
Line = Call | Cancel | EffectLine | Fault
L = TypeVar("L", Call, Cancel, EffectLine, Fault)


class Appender:
    """Adds lines to one of the folder's `.jsonl` files; several threads and processes may do so at once."""

    def __init__(self, folder: Path, kind: type[Line]) -> None:
        """Open the file for lines of this kind."""
        self._kind = kind
        self._file = os.open(folder / LINES[kind], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._written = self._synced = 0

    def add(self, *records: Line) -> None:
        """Write lines; they are on the disk when this returns. Whoever is killed meanwhile leaves a part of them."""
        self.write(*records)
        self.sync()

    def write(self, *records: Line) -> None:
        """Write lines, which outlive this process; on the disk they are after the next `sync`."""
        for record in records:
            if type(record) is not self._kind:
                raise TypeError(f"{LINES[self._kind]} holds no {type(record).__name__}")
        lines = b"".join(
            json.dumps(encode(record), ensure_ascii=False, allow_nan=False).encode() + b"\n" for record in records
        )
        with self._writing:
            if os.write(self._file, lines) < len(lines):
                raise OSError(f"{LINES[self._kind]}: the disk took a part of a line")
            self._written += 1

    def sync(self) -> None:
        """Wait until what this thread has written is on the disk; threads that wait at the same time share the wait."""
        mine = self._written
        with self._syncing:
            if self._synced < mine:
                reached = self._written
                os.fsync(self._file)
                self._synced = reached

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def write_object(folder: Path, record: Run | RedisLeft | ProcessesLeft) -> None:
    """Write one of the `.json` files, whole or not at all."""
    _write_whole(folder / OBJECTS[type(record)], encode(record))


def write_ledger(folder: Path, ledger: Ledger) -> None:
    """Write `ledger.json`, whole or not at all."""
    _write_whole(folder / LEDGER_FILE, {"first": ledger.first.plain(), "second": ledger.second.plain()})


def read(folder: Path) -> Evidence:
    """Read a run's folder.

    Raises:
        UnreadableEvidence: If a file is missing, or holds anything but what its format says.
    """
    torn: dict[str, int] = {}
    snapshots = decode(_Snapshots, _read_json(folder, LEDGER_FILE), file=LEDGER_FILE)
    return Evidence(
        run=_read_object(folder, Run),
        history=tuple(_read_lines(folder, Call, torn)),
        cancels=tuple(_read_lines(folder, Cancel, torn)),
        effects=tuple(_read_lines(folder, EffectLine, torn)),
        faults=tuple(_read_lines(folder, Fault, torn)),
        ledger=Ledger(Snapshot.of(snapshots.first, "first"), Snapshot.of(snapshots.second, "second")),
        redis=_read_object(folder, RedisLeft),
        processes=_read_object(folder, ProcessesLeft),
        logs=tuple(_read_logs(folder)),
        torn=torn,
    )


@dataclass(frozen=True, slots=True)
class _Snapshots:
    first: Any
    second: Any


def _read_object(folder: Path, kind: type[T]) -> T:
    return decode(kind, _read_json(folder, OBJECTS[kind]), file=OBJECTS[kind])


def _read_json(folder: Path, file: str) -> Any:
    return parse(_bytes_of(folder, file), file=file)


def _read_lines(folder: Path, kind: type[L], torn: dict[str, int]) -> Iterator[L]:
    file = LINES[kind]
    *whole, last = _bytes_of(folder, file).split(b"\n")
    if last:
        torn[file] = 1
    for number, line in enumerate(whole, 1):
        record = decode(kind, parse(line, file=file, line=number), file=file, line=number)
        yield replace(record, line=number)


def _read_logs(folder: Path) -> Iterator[LogLine]:
    logs = folder / "logs"
    if not logs.is_dir():
        raise UnreadableEvidence("logs", None, "there is no such folder")
    for path in sorted(logs.glob("*.log")):
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            found = _structured(line)
            if found is not None:
                yield LogLine(file=f"logs/{path.name}", line=number, event=found["event"], fields=found)


def _structured(line: bytes) -> dict[str, Any] | None:
    """Return a structured line's fields; None for what a library or a traceback wrote."""
    if not line.startswith(b"{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None


def _bytes_of(folder: Path, file: str) -> bytes:
    try:
        return (folder / file).read_bytes()
    except OSError as error:
        raise UnreadableEvidence(file, None, error.strerror or str(error)) from error


def _write_whole(path: Path, value: Any) -> None:
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
