"""Reading a storm's folder: its evidence, strictly, and what stands beside it, as far as it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.evidence import Evidence
from tests.chaos.evidence_folder import read
from tests.chaos.strict import UnreadableEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process at one moment; `rss_kib` is its memory in RAM, `connections` are all its sockets."""

    name: str
    pid: int
    rss_kib: int
    fds: int
    threads: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A line of `samples.jsonl`.

    Attributes:
        at: UTC seconds.
        postgres: Connections by application name; empty where Postgres was away, as `states` is.
        redis_clients: -1 where Redis was away.
        states: Jobs by state.
        done: How many jobs have ended.
    """

    at: float
    processes: tuple[Process, ...]
    postgres: Mapping[str, int]
    redis_clients: int
    states: Mapping[str, int]
    done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What was measured; `held` is whether it meets its target, None where it has none."""

    value: float | None
    unit: str = ""
    target: str | None = None
    held: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was to be; of a storm's `plan.json` what a report says of it.

    Attributes:
        command: What repeats the run.
        not_here: Kinds of faults that could not be had there, and why.
        kinds: What each kind of fault is, in words.
    """

    seed: int | None = None
    size: str | None = None
    command: str | None = None
    machine: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    not_here: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """What went otherwise than the storm's own code thought it would, and when, UTC seconds."""

    at: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A storm's folder."""

    evidence: Evidence
    plan: Plan
    samples: tuple[Sample, ...]
    figures: Mapping[str, Figure]
    oddities: tuple[Oddity, ...]


def read_all(folder: Path) -> Inputs:
    """Read a storm's folder.

    Raises:
        UnreadableEvidence: If the evidence is not as its format says, or what stands beside it is no such thing.
    """
    evidence = read(folder)
    plan = _object(folder, "plan.json")
    figures = _object(folder, "figures.json")
    try:
        return Inputs(
            evidence=evidence,
            plan=Plan(**{name: plan[name] for name in Plan.__dataclass_fields__ if name in plan}),
            samples=tuple(_samples(folder)),
            figures={name: Figure(**figure) for name, figure in figures.items()},
            oddities=tuple(Oddity(**line) for line in _lines(folder / "oddities.jsonl")),
        )
    except (TypeError, KeyError, AttributeError) as error:
        files = "plan.json, figures.json, samples.jsonl or oddities.jsonl"
        raise UnreadableEvidence(files, None, repr(error)) from error


def _object(folder: Path, file: str) -> dict[str, Any]:
    """Return what one of the files holds; nothing where there is no such file, as with a run that was cut off."""
    try:
        found = json.loads((folder / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UnreadableEvidence(file, None, str(error)) from error
    if not isinstance(found, dict):
        raise UnreadableEvidence(file, None, "is no object")
    return found


def _samples(folder: Path) -> Iterator[Sample]:
    for said in _lines(folder / "samples.jsonl"):
        yield Sample(**said | {"processes": tuple(Process(**process) for process in said["processes"])})


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield each line of a file; none where there is no such file. A last one without its end is nobody's."""
    if not file.exists():
        return
    *lines, _ = file.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            said = json.loads(line)
        except ValueError as error:
            raise UnreadableEvidence(file.name, number, str(error)) from error
        yield said
