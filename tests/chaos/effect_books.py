"""What the world outside keeps: the effects it applied, and a line for all it did, on the disk before an answer.

One `Books` a run. It knows nothing of HTTP, of jobs or of Surefoot's ledger. Opened anew after its process was killed,
it remembers what its file says: what is not there was not answered, and not done.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.evidence import Effect, EffectLine, Phase, digest
from tests.chaos.evidence_folder import LINES, Appender

# As an `Appender` writes them. Requests are numbered as they arrive, and their lines are in that order.
ARRIVED, APPLIED = b'"phase": "arrived"', b'"phase": "applied"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it arrived.

    Attributes:
        ref: The job's id.
        key: The downstream key; None where the action hands over none.
        attempt: As the request named it.
        token: The process that asks.
        body: The job's params.
    """

    mode: Effect
    action: str
    ref: str
    key: str | None
    attempt: int | None
    token: str | None
    body: Any


class Books:
    """The books of one run, written by many threads."""

    def __init__(self, folder: Path) -> None:
        """Open the run's `effects.jsonl`."""
        self._lock = threading.Lock()
        self._arrivals = 0
        self._by_key: dict[str, Mapping[str, Any]] = {}
        self._by_ref: dict[str, list[Mapping[str, Any]]] = {}
        self._remember(folder / LINES[EffectLine])
        self._lines = Appender(folder, EffectLine)

    def arrive(self, asked: Asked) -> int:
        """Note that a request is here; return its number."""
        with self._lock:
            self._arrivals += 1
            arrival = self._arrivals
            self._note(arrival, "arrived", asked)
            return arrival

    def apply(self, arrival: int, asked: Asked) -> Mapping[str, Any]:
        """Do what is asked, in the way of its mode, and return the answer.

        ``pure`` changes nothing; ``idempotent`` sets a state; ``keyed`` drops the repeats of a key; ``verifiable`` and
        ``unsafe`` do it each time.
        """
        with self._lock:
            known = self._by_key.get(asked.key or "") if asked.mode == "keyed" else None
            if known is not None:
                self._note(arrival, "deduped", asked, known)
                return known
            answer = _answer(asked.mode, asked.key or asked.ref, arrival, digest(asked.body))
            if asked.mode == "pure":
                return answer
            if asked.mode == "keyed":
                self._by_key[asked.key or ""] = answer
            self._by_ref.setdefault(asked.ref, []).append(answer)
            self._note(arrival, "applied", asked, answer)
            return answer

    def look_up(self, asked: Asked) -> tuple[int, Mapping[str, Any]]:
        """Say with authority whether the effect of `asked.ref` has happened, and what it brought; and its number.

        Whoever is killed meanwhile leaves both of its lines or none: the first alone would be a request's.
        """
        with self._lock:
            self._arrivals += 1
            applied = self._by_ref.get(asked.ref, [])
            answer = {"happened": bool(applied), "result": applied[0] if applied else None}
            arrived, looked_up = (
                _line(self._arrivals, "arrived", asked),
                _line(self._arrivals, "looked_up", asked, answer),
            )
            self._lines.write(arrived, looked_up)
            return self._arrivals, answer

    def end(self, arrival: int, asked: Asked, answer: Mapping[str, Any] | None, *, dropped: bool) -> None:
        """Note that the answer is about to be given, or never will be; None is that nothing was done."""
        with self._lock:
            self._note(arrival, "dropped" if dropped else "answered", asked, answer)
        self._lines.sync()  # with whoever else ends now: a disk that is slow must not make the world one

    def _remember(self, path: Path) -> None:
        """Take up what an earlier process has written; a last line without its end was never acted on."""
        if not path.exists():
            return
        *whole, torn = path.read_bytes().split(b"\n")
        if torn:
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size - len(torn))
        # A storm's file has half a million lines, and nobody is served before they are read. They are this class's own,
        # so each is only looked at as far as it takes; the checker reads all of them strictly.
        for text in whole:
            if APPLIED in text:
                self._remember_applied(json.loads(text))
        self._arrivals = next((json.loads(text)["arrival"] for text in reversed(whole) if ARRIVED in text), 0)

    def _remember_applied(self, line: Mapping[str, Any]) -> None:
        answer = _answer(line["mode"], line["key"] or line["ref"], line["arrival"], line["body_hash"])
        if line["mode"] == "keyed":
            self._by_key[line["key"] or ""] = answer
        self._by_ref.setdefault(line["ref"], []).append(answer)

    def _note(self, arrival: int, phase: Phase, asked: Asked, answer: Mapping[str, Any] | None = None) -> None:
        self._lines.write(_line(arrival, phase, asked, answer))


def _line(arrival: int, phase: Phase, asked: Asked, answer: Mapping[str, Any] | None = None) -> EffectLine:
    return EffectLine(
        at=time.time(),
        arrival=arrival,
        phase=phase,
        mode=asked.mode,
        action=asked.action,
        ref=asked.ref,
        key=asked.key,
        attempt=asked.attempt,
        body_hash=digest(asked.body),
        result_hash=None if answer is None else digest(answer),
        token=asked.token,
    )


def _answer(mode: Effect, name: str, arrival: int, body_hash: str) -> Mapping[str, Any]:
    """Return a receipt. A second effect has another one, but for those whose repeats change nothing."""
    which = str(arrival) if mode in ("verifiable", "unsafe") else name
    return {"receipt": hashlib.sha256(f"{mode}:{which}:{body_hash}".encode()).hexdigest()}
