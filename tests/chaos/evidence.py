"""The evidence of a run: one folder, written by whoever took part, read by the checker (`evidence_folder.py`).

| file | written by | what |
|---|---|---|
| `run.json` | the harness, at the end | what was run, under which settings, and what must be judged |
| `history.jsonl` | every process that enqueues | what it asked for and what it was answered |
| `effects.jsonl` | the effect server, before it answers | what really happened outside |
| `cancels.jsonl` | every process that cancels | which jobs it asked to be cancelled, and what it was answered |
| `faults.jsonl` | whoever injects faults | what was done to whom |
| `ledger.json` | the harness, after the drain | `ledger_rows.Ledger` |
| `redis.json` | the harness, after the drain | what Redis still holds |
| `processes.json` | the harness, after it told all to end | what lives on |
| `logs/*.log` | every process | its log lines, as JSON; other lines are passed over |

Moments are UTC seconds, of this host's clock: Postgres runs on it, too, so they compare. A line of a `.jsonl` file is
one write and on the disk before the writer goes on; a last line without its end is that of a writer who was killed, and
is left out and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from producer.canonical import canonical_json
from tests.chaos.ledger_rows import Ledger
from tests.chaos.strict import is_digest, is_job_id

Effect = Literal["pure", "idempotent", "keyed", "verifiable", "unsafe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionFacts:
    """What the run's code declares of an action.

    Attributes:
        key_ttl: In seconds, for keyed ones; as `retry_backoff_max`.
        approved: Whether people have to approve each of its jobs.
        budgeted: Whether each of its attempts reserves of a budget.
    """

    effect: Effect
    max_retries: int | None
    key_ttl: float | None
    retry_backoff_max: float
    approved: bool
    budgeted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFacts:
    """A schedule that the run had: its ticks are due every `every` seconds from `since` on, and until `until`.

    Each of them is asked for once, as `action`, under the key ``schedule:NAME:TICK``.
    """

    name: str
    action: str
    every: int
    since: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What was connected before the run's own processes started."""

    postgres_connections: int
    redis_clients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was run; one object in `run.json`.

    Attributes:
        kind: ``cell``: one job of the crash matrix, or few; ``run``: many jobs and faults.
        began: Before the first process of the run started; `ended` once all were told to end.
        lease_seconds: The workers' setting, as is `crash_cap`; `sweep_seconds` is their ``relay_seconds``.
        must_judge: Invariants that must have had something to judge, or the run proves nothing.
        expect_faults: Whether faults were injected. A run without them may leave nothing in doubt.
        quotas: How many faults of a kind must have bitten, or the run proves nothing; empty for a cell.
        schedules: Whose ticks ask for jobs, beside the processes.
        requests_in_time: Whether nobody was held between the last look at a lease and the request: then none leaves
            late.
    """

    kind: Literal["cell", "run"]
    name: str
    began: float
    ended: float
    lease_seconds: float
    sweep_seconds: float
    crash_cap: int
    must_judge: tuple[str, ...]
    actions: Mapping[str, ActionFacts]
    baseline: Baseline
    expect_faults: bool
    quotas: Mapping[str, int]
    schedules: tuple[ScheduleFacts, ...]
    requests_in_time: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A line of `history.jsonl`: a request when it leaves, and again when its answer is there.

    Attributes:
        process: Who asks; unique in the run. With `call` it joins the two lines of a request.
        op: ``invoke``; then ``ok``, ``fail`` (refused: nothing was written by this request) or ``info`` (a timeout, a
            reset, an unreachable ledger: it may have been accepted). A process that was killed leaves no second line.
        job_id: The job that the key stands for; only with ``ok``, as is `outcome`.
        fingerprint: The request's, where the process knows it.
        error: The error's type and message; with ``fail`` and ``info``.
    """

    at: float
    process: str
    op: Literal["invoke", "ok", "fail", "info"]
    call: int
    action: str
    key: str
    job_id: str | None
    outcome: Literal["created", "replayed"] | None
    fingerprint: str | None
    error: str | None
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        """Refuse a line that contradicts itself, when it is written and when it is read."""
        if (self.op == "ok") != (self.job_id is not None) or (self.op == "ok") != (self.outcome is not None):
            raise ValueError(f"job_id and outcome belong to an ok, and this is an {self.op}")
        if (self.op in ("fail", "info")) != (self.error is not None):
            raise ValueError(f"an error belongs to a fail or an info, and this is an {self.op}")
        if self.job_id is not None and not is_job_id(self.job_id):
            raise ValueError(f"job_id is {self.job_id!r}, which is no job's")
        if self.fingerprint is not None and not is_digest(self.fingerprint):
            raise ValueError(f"fingerprint is {self.fingerprint!r}, not 64 hexadecimal digits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """A line of `cancels.jsonl`: a request to cancel when it leaves, and again when its answer is there.

    Attributes:
        process: As in a `Call`, as is `call`.
        answer: ``cancelled`` | ``requested`` | ``in_doubt`` | ``too_late``; only with ``ok``.
        error: Only with ``info``: it may have been cancelled.
    """

    at: float
    process: str
    op: Literal["invoke", "ok", "info"]
    call: int
    job_id: str
    answer: str | None
    error: str | None
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        """Refuse a line that contradicts itself, as a `Call` does."""
        if (self.op == "ok") != (self.answer is not None) or (self.op == "info") != (self.error is not None):
            raise ValueError(f"an answer belongs to an ok and an error to an info, and this is an {self.op}")
        if not is_job_id(self.job_id):
            raise ValueError(f"job_id is {self.job_id!r}, which is no job's")


Phase = Literal["arrived", "applied", "deduped", "looked_up", "answered", "dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectLine:
    """A line of `effects.jsonl`: one thing that the effect server did with one request.

    The body of a request is the job's params as canonical JSON; an action's result is what it was answered. So both
    digests are `digest` of what the ledger has.

    Attributes:
        arrival: Counts requests, look-ups too; the lines of one request share it.
        phase: ``arrived``, then ``applied``, ``deduped`` or ``looked_up`` or none of these, then ``answered`` or
            ``dropped``.
        ref: The job's id, as the request named it.
        key: The downstream key of a keyed request.
        attempt: As the request named it.
        result_hash: Of what is answered; None where that is an error.
        token: What else the request carried to be told apart by.
    """

    at: float
    arrival: int
    phase: Phase
    mode: Effect
    action: str
    ref: str
    key: str | None
    attempt: int | None
    body_hash: str
    result_hash: str | None
    token: str | None
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        """Refuse digests that are none."""
        for name in ("body_hash", "result_hash"):
            value = getattr(self, name)
            if value is not None and not is_digest(value):
                raise ValueError(f"{name} is {value!r}, not 64 hexadecimal digits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A line of `faults.jsonl`.

    A storm notes each of its faults with one line when it begins and one when it is over, both with their `kind`; what
    it did for that in detail, to which process, stands in lines without a kind, as in a cell.

    Attributes:
        fault: ``sigkill``, ``group_kill``, ``sigstop``, ``sigcont``, ``terminate_backend``, ``redis_kill``, …
        phase: A fault that is over at once has a ``begin`` alone.
        target: Whom it hit: a process of the run by its name, as in the name of its log; ``postgres``; ``redis``.
        point: The named place in the code at which it hit; None for one that came at any time.
        kind: The storm's name for it; None for a detail, and in cells.
        began: With a kind, as the next two; `ended` at its end alone.
        bit: At its end, whether there is evidence that somebody felt it; None where nobody can say.
    """

    at: float
    fault: str
    phase: Literal["begin", "end"]
    target: str
    point: str | None
    pid: int | None
    kind: str | None
    began: float | None
    ended: float | None
    bit: bool | None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisLeft:
    """What Redis holds after the drain: `queues` by length; `keys` are all others, by type.

    Of the messages in a queue, so many are rings for jobs that are `over`: at the moment of a retry whoever planned it
    rings, though the job has been let go, and done, before that; where all are told to end meanwhile, nobody hears it.
    """

    queues: Mapping[str, int]
    over: Mapping[str, int]
    unacked: int
    keys: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProcess:
    """A process of the run that lives although it was told to end."""

    pid: int
    name: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessesLeft:
    """What lives on after the run, counted as the baseline was."""

    processes: tuple[LiveProcess, ...]
    postgres_connections: int
    redis_clients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A structured line of a process's log."""

    file: str
    line: int
    event: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a run left behind; `torn` counts lines without an end, by file."""

    run: Run
    history: tuple[Call, ...]
    cancels: tuple[Cancel, ...]
    effects: tuple[EffectLine, ...]
    faults: tuple[Fault, ...]
    ledger: Ledger
    redis: RedisLeft
    processes: ProcessesLeft
    logs: tuple[LogLine, ...]
    torn: Mapping[str, int]


def digest(value: Any) -> str:
    """Return the SHA-256 of the value's canonical JSON: what `body_hash` and `result_hash` are taken with."""
    return hashlib.sha256(canonical_json(value, where="value").encode()).hexdigest()
