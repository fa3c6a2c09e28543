"""Builds the evidence of a run as a story: each call is something that happened, a tenth of a second after the last.

What a method writes is what the code writes at that step: the row, the decision and the event. A test that wants a lie
tells the truth first and then changes it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal

from producer.ledger import tables
from producer.ledger.states import CLOSED, State
from tests.chaos.evidence import (
    ActionFacts,
    Baseline,
    Call,
    Cancel,
    Effect,
    EffectLine,
    Evidence,
    Fault,
    LogLine,
    Phase,
    ProcessesLeft,
    RedisLeft,
    Run,
    ScheduleFacts,
    digest,
)
from tests.chaos.ledger_rows import Ledger, Snapshot

STEP = 0.1
LEASE_SECONDS = 5.0
BEGAN = 1_000_000.0
ANSWER = {"ok": True}
ACTIONS = {
    f"chaos.{effect}": ActionFacts(
        effect=effect,
        max_retries=3,
        key_ttl=600.0 if effect == "keyed" else None,
        retry_backoff_max=4.0,
        approved=False,
        budgeted=False,
    )
    for effect in ("pure", "idempotent", "keyed", "verifiable", "unsafe")
}
ACTIONS["chaos.approved"] = replace(ACTIONS["chaos.keyed"], approved=True)
ACTIONS["chaos.budgeted"] = replace(ACTIONS["chaos.keyed"], budgeted=True)
BUDGET, SHARE = "chaos", '{"tenant":"default"}'
KINDS = {"retry": "attempt_failed", "rate": "held", "concurrency": "held", "conversation": "held", "worker": "returned"}


class Story:
    """A run as it happens; `evidence` is what it leaves."""

    def __init__(self, *must_judge: str, expect_faults: bool = True) -> None:
        self.now = BEGAN
        self.must_judge = must_judge
        self.expect_faults = expect_faults
        self.jobs: list[JobStory] = []
        self.history: list[Call] = []
        self.cancels: list[Cancel] = []
        self.schedules: tuple[ScheduleFacts, ...] = ()
        self.quotas: dict[str, int] = {}
        self.requests_in_time = False
        self.effects: list[EffectLine] = []
        self.faults: list[Fault] = []
        self.logs: list[LogLine] = []
        self.queues = {"actions": 0}
        self.over: dict[str, int] = {}
        self.unacked = 0
        self.keys: dict[str, tuple[str, ...]] = {
            "set": ("_kombu.binding.actions", "_kombu.binding_permanent.actions"),
            "zset": ("_kombu.binding_deadlines",),
        }
        self.left = ProcessesLeft(processes=(), postgres_connections=3, redis_clients=1)
        self.torn: dict[str, int] = {}
        self.second: Snapshot | None = None
        self.messages: list[dict[str, Any]] = []
        self.approvals: list[dict[str, Any]] = []
        self.reservations: list[dict[str, Any]] = []
        self.account: dict[str, Any] | None = None
        self.calls = 0

    def tick(self, seconds: float = STEP) -> float:
        self.now = round(self.now + seconds, 6)
        return self.now

    def asked(self, action: str, key: str, *, fingerprint: str | None = None) -> int:
        """A request leaves; its number tells it from others."""
        self.calls += 1
        self._said("invoke", self.calls, action, key, fingerprint=fingerprint)
        return self.calls

    def answered(self, call: int, job: JobStory, outcome: Literal["created", "replayed"] = "created") -> None:
        row = job.row
        self._said("ok", call, row["action"], row["idempotency_key"], job_id=job.id, outcome=outcome)

    def unanswered(self, call: int, action: str, key: str) -> None:
        self._said("info", call, action, key, error="LedgerUnavailable: no answer")

    def refused(self, call: int, action: str, key: str) -> None:
        self._said("fail", call, action, key, error="InvalidRequest: params.x is missing")

    def accepted(self, action: str = "chaos.keyed", key: str | None = None) -> JobStory:
        """A request is made, accepted and answered."""
        key = key or f"key-{len(self.jobs) + 1}"
        call = self.asked(action, key)
        job = JobStory(self, action, key)
        self.answered(call, job)
        return job

    def fault(self, fault: str, target: str = "w1", phase: Literal["begin", "end"] = "begin") -> None:
        line = len(self.faults) + 1
        at = self.tick()
        nothing = {"kind": None, "began": None, "ended": None, "bit": None}
        self.faults.append(
            Fault(at=at, fault=fault, phase=phase, target=target, point=None, pid=1, line=line, **nothing)
        )

    def struck(self, kind: str, *, bit: bool | None = True) -> None:
        """A fault of a storm, from its begin to its end."""
        for phase in ("begin", "end"):
            at, over = self.tick(), phase == "end"
            began = at if not over else self.faults[-1].at
            self.faults.append(
                Fault(
                    at=at,
                    fault=kind,
                    phase="end" if over else "begin",
                    target="redis",
                    point=None,
                    pid=None,
                    kind=kind,
                    began=began,
                    ended=at if over else None,
                    bit=bit if over else None,
                    line=len(self.faults) + 1,
                )
            )

    def logged(self, event: str, **fields: Any) -> None:
        line = LogLine(file="logs/w1.log", line=len(self.logs) + 1, event=event, fields={"event": event, **fields})
        self.logs.append(line)

    def evidence(self) -> Evidence:
        ended = self.tick()
        run = Run(
            kind="cell",
            name="a story",
            began=BEGAN,
            ended=ended,
            lease_seconds=LEASE_SECONDS,
            sweep_seconds=1.0,
            crash_cap=3,
            must_judge=self.must_judge,
            actions=ACTIONS,
            baseline=Baseline(postgres_connections=3, redis_clients=1),
            expect_faults=self.expect_faults,
            quotas=self.quotas,
            schedules=self.schedules,
            requests_in_time=self.requests_in_time,
        )
        first = self._snapshot()
        return Evidence(
            run=run,
            history=tuple(self.history),
            cancels=tuple(self.cancels),
            effects=tuple(self.effects),
            faults=tuple(self.faults),
            ledger=Ledger(first, self.second or first),
            redis=RedisLeft(queues=self.queues, over=self.over, unacked=self.unacked, keys=self.keys),
            processes=self.left,
            logs=tuple(self.logs),
            torn=self.torn,
        )

    def _snapshot(self) -> Snapshot:
        rows = {
            "jobs": [job.row for job in self.jobs],
            "decisions": [job.decision for job in self.jobs],
            "events": [event for job in self.jobs for event in job.events],
            "messages": self.messages,
            "approvals": self.approvals,
            "reservations": self.reservations,
            "accounts": [] if self.account is None else [self.account],
        }
        return Snapshot.of({"at": self.now, **rows}, "first")

    def _said(self, op: Any, call: int, action: str, key: str, **more: Any) -> None:
        given = {"job_id": None, "outcome": None, "fingerprint": None, "error": None} | more
        line = len(self.history) + 1
        at = self.tick()
        self.history.append(Call(at=at, process="p1", op=op, call=call, action=action, key=key, line=line, **given))


class JobStory:
    """A job's way: its row, its decision and its events, as the statements of each step leave them."""

    def __init__(self, story: Story, action: str, key: str, parent: JobStory | None = None) -> None:
        """It is accepted."""
        self.story = story
        self.id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{action}/{key}/{len(story.jobs)}"))
        self.effect: Effect = ACTIONS[action].effect
        self.params = {"n": len(story.jobs)}
        fingerprint = digest({"params": self.params})
        now = story.tick()
        self.row: dict[str, Any] = dict.fromkeys(tables.jobs.columns.keys()) | {
            "id": self.id,
            "tenant": "default",
            "action": action,
            "action_version": 1,
            "idempotency_key": key,
            "key_derived": False,
            "rerun": 0,
            "fingerprint": fingerprint,
            "replays": 0,
            "state": "queued",
            "queue": "actions",
            "priority": 5,
            "traceparent": "",
            "accepted_at": now,
            "due_at": now,
            "ring_at": now,
            "attempt": 0,
            "crashes": 0,
            "fence": 0,
            "maybe_happened": False,
            "last_seq": 0,
        }
        self.decision: dict[str, Any] = dict.fromkeys(tables.decisions.columns.keys()) | {
            "job_id": self.id,
            "parent_job_id": None if parent is None else parent.id,
            "request_id": "r",
            "action": action,
            "params": self.params,
            "decided_at": now,
        }
        self.events: list[dict[str, Any]] = []
        self.noted("accepted", data={"fingerprint": fingerprint, "request_id": "r", "due_at": "…"})
        story.jobs.append(self)

    def noted(
        self,
        kind: str,
        *,
        fence: int | None = None,
        worker: str | None = None,
        attempt: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> JobStory:
        """An event is added, and nothing else."""
        self.row["last_seq"] += 1
        self.events.append(
            {
                "job_id": self.id,
                "seq": self.row["last_seq"],
                "at": self.story.now,
                "kind": str(kind),
                "attempt": attempt,
                "fence": fence,
                "worker": worker,
                "data": None if data is None else dict(data),
            }
        )
        return self

    def claimed(self, worker: str = "w1") -> JobStory:
        now = self.story.tick()
        fence = self.row["fence"] + 1
        self._moved(State.CLAIMED, fence=fence, lease_owner=worker, lease_expires_at=now + LEASE_SECONDS)
        return self.noted("claimed", fence=fence, worker=worker, attempt=self.row["attempt"] + 1)

    def asks(self, rule: str = "ask") -> JobStory:
        """People are asked; it is nobody's."""
        self.story.tick()
        approval = {"id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.id}/{len(self.story.approvals)}"))}
        columns = dict.fromkeys(tables.approval_tables.approvals.columns.keys())
        self.story.approvals.append(
            columns | approval | {"job_id": self.id, "rule": rule, "rule_version": 1, "state": "pending"}
        )
        self._noted_by_owner("approval_requested", {"approval": approval["id"], "rule": rule, "version": 1})
        self._moved(State.AWAITING_APPROVAL, lease_owner=None, lease_expires_at=None)
        return self

    def decided(self, kind: Literal["approved", "rejected", "approval_expired"]) -> JobStory:
        """Somebody says what becomes of it, or nobody does in time."""
        now = self.story.tick()
        to = {"approved": State.QUEUED, "rejected": State.REJECTED, "approval_expired": State.EXPIRED}[kind]
        state = {"approved": "approved", "rejected": "rejected", "approval_expired": "expired"}[kind]
        self.story.approvals[-1] |= {"state": state, "decided_at": now}
        self._moved(to, finished_at=now if to in CLOSED else None)
        return self.noted(kind, data={"approval": self.story.approvals[-1]["id"], "to": str(to)})

    def uses(self, *approvals: dict[str, Any]) -> JobStory:
        """Its last intent rests on these approvals, and uses up those that are new."""
        for each in approvals:
            each["consumed_at"] = each["consumed_at"] or self.story.now
        self.events[-1]["data"]["approvals"] = [each["id"] for each in approvals]
        return self

    def reserves(self, usd: str = "0.25") -> JobStory:
        """The intent that follows reserves so much."""
        self.story.tick()
        account = self.story.account or dict.fromkeys(tables.budget_tables.budget_accounts.columns.keys(), 0)
        self.story.account = account | {"budget": BUDGET, "key": SHARE, "day": "", "tenant": "default", "ends_at": None}
        self._counted("reserved", usd, 1)
        columns = dict.fromkeys(tables.budget_tables.budget_reservations.columns.keys())
        mine = {"job_id": self.id, "fence": self.row["fence"], "call": 0, "budget": BUDGET, "key": SHARE, "day": ""}
        self.story.reservations.append(columns | mine | {"usd": usd, "tokens": 0, "calls": 1})
        return self._noted_by_owner("budget_reserved", {"budgets": [self._share(usd)]})

    def spends(self, usd: str = "0.1", *, fence: int | None = None, worker: str | None = None) -> JobStory:
        """What is reserved under its fence is settled with so much."""
        under = fence or self.row["fence"]
        found = next(each for each in self.story.reservations if (each["job_id"], each["fence"]) == (self.id, under))
        found["settled_at"] = self.story.tick()
        self._counted("reserved", f"-{found['usd']}", -1)
        self._counted("spent", usd, 1)
        owner = worker or self.row["lease_owner"]
        data = {"budgets": [self._share(usd)]}
        return self.noted("budget_settled", fence=under, worker=owner, attempt=max(1, self.row["attempt"]), data=data)

    def _counted(self, word: str, usd: str, calls: int) -> None:
        account = self.story.account
        assert account is not None
        account[f"{word}_usd"] = str(Decimal(account[f"{word}_usd"]) + Decimal(usd))
        account[f"{word}_calls"] += calls
        for other in ("spent_usd", "reserved_usd"):
            account[other] = str(account[other])

    def _share(self, usd: str) -> dict[str, Any]:
        return {"budget": BUDGET, "key": {"tenant": "default"}, "usd": usd, "tokens": 0, "calls": 1}

    def intended(self) -> JobStory:
        now = self.story.tick()
        self._moved(
            State.RUNNING, attempt=self.row["attempt"] + 1, effect=self.effect, lease_expires_at=now + LEASE_SECONDS
        )
        data = {"effect": self.effect, "downstream_key": f"{self.id}:0", "timeout": 60.0}
        return self._noted_by_owner("intended", data)

    def requested(
        self, *phases: Phase, attempt: int | None = None, key: str | None = None, error: bool = False
    ) -> JobStory:
        """The effect server hears of it; by default it applies the effect and answers, with an error if told so."""
        arrival = 1 + (self.story.effects[-1].arrival if self.story.effects else 0)
        for phase in ("arrived", *(phases or ("applied", "answered"))):
            self.story.effects.append(
                EffectLine(
                    at=self.story.tick(0.01),
                    arrival=arrival,
                    phase=phase,
                    mode=self.effect,
                    action=self.row["action"],
                    ref=self.id,
                    key=key or (f"{self.id}:0" if self.effect == "keyed" else None),
                    attempt=attempt or self.row["attempt"],
                    body_hash=digest(self.params),
                    result_hash=digest(ANSWER) if phase in ("applied", "deduped", "answered") and not error else None,
                    token=None,
                    line=len(self.story.effects) + 1,
                )
            )
        return self

    def settled(self, becomes: State = State.SUCCEEDED, *, maybe_happened: bool = False) -> JobStory:
        """The attempt ends the job, or leaves it in doubt."""
        now = self.story.tick()
        self._noted_by_owner(becomes, {"why": "as told"})
        finished = now if becomes in CLOSED else None
        self._moved(
            becomes, lease_owner=None, lease_expires_at=None, finished_at=finished, maybe_happened=maybe_happened
        )
        self.decision["result"] = dict(ANSWER) if becomes is State.SUCCEEDED else None
        return self

    def parked(self, waiting_for: str = "retry", *, delay: float = 0.2, maybe_happened: bool = False) -> JobStory:
        """The attempt ends, and the job waits."""
        now = self.story.tick()
        unspent = 0 if waiting_for == "retry" or self.row["state"] == State.CLAIMED else 1
        self._noted_by_owner(KINDS[waiting_for], {"why": "as told", "delay": delay, "waiting_for": waiting_for})
        self._moved(
            State.WAITING,
            waiting_for=waiting_for,
            due_at=now + delay,
            attempt=self.row["attempt"] - unspent,
            lease_owner=None,
            lease_expires_at=None,
            maybe_happened=maybe_happened,
        )
        self.story.tick(delay)
        return self

    def rescued(self, to: State = State.WAITING, *, worker: str = "w2", after: float = LEASE_SECONDS) -> JobStory:
        """Its lease runs out, and somebody takes it over."""
        now = self.story.tick(after + STEP)
        row = self.row
        doubtful = row["maybe_happened"] or (row["state"] == State.RUNNING and row["effect"] != "pure")
        data = {"from": str(row["state"]), "to": str(to), "silent": row["lease_owner"], "crashes": row["crashes"] + 1}
        self._moved(
            to,
            waiting_for="worker" if to is State.WAITING else None,
            fence=row["fence"] + 1,
            crashes=row["crashes"] + 1,
            maybe_happened=doubtful,
            lease_owner=None,
            lease_expires_at=None,
            due_at=now,
            finished_at=now if to in CLOSED else None,
        )
        return self.noted("rescued", fence=row["fence"], worker=worker, attempt=row["attempt"], data=data)

    def superseded(self, by: JobStory) -> JobStory:
        """Another job brings the true result."""
        now = self.story.tick()
        self._moved(State.SUCCEEDED, finished_at=now)
        self.decision["result"] = by.decision["result"]
        return self.noted("superseded", worker="w1", data={"by": by.id, "rule": "out of retries", "fallback": None})

    def late(self, fence: int, *, worker: str = "w1", attempt: int = 1) -> JobStory:
        """A worker that lost the job brings its result after all."""
        self.story.tick()
        return self.noted("late_result", fence=fence, worker=worker, attempt=attempt, data={"would_be": "succeeded"})

    def in_conversation(self, conversation: str) -> JobStory:
        """It is a turn."""
        self.row["conversation_id"] = conversation
        return self

    def said(self, messages: int = 1) -> JobStory:
        """It has said so much."""
        conversation = self.row["conversation_id"]
        for _ in range(messages):
            others = [each for each in self.story.messages if each["conversation_id"] == conversation]
            self.story.messages.append(
                dict.fromkeys(tables.messages.columns.keys())
                | {
                    "tenant": self.row["tenant"],
                    "conversation_id": conversation,
                    "seq": len(others) + 1,
                    "role": "assistant",
                    "content": "…",
                    "job_id": self.id,
                    "at": self.story.now,
                }
            )
        return self

    def cancelled(self) -> JobStory:
        """Somebody cancels it, and nobody owns it."""
        story = self.story
        story.calls += 1
        line: dict[str, Any] = {"process": "p1", "call": story.calls, "job_id": self.id, "error": None}
        story.cancels.append(Cancel(at=story.tick(), op="invoke", answer=None, line=len(story.cancels) + 1, **line))
        now = story.tick()
        becomes = State.IN_DOUBT if self.row["maybe_happened"] else State.CANCELLED
        finished = now if becomes is State.CANCELLED else None
        self._moved(becomes, cancel_requested_at=now, finished_at=finished)
        self.noted(becomes, data={"reason": None})
        story.cancels.append(Cancel(at=story.tick(), op="ok", answer=str(becomes), line=len(story.cancels) + 1, **line))
        return self

    def resolved(self, verdict: str, to: State, *, kind: str = "resolved") -> JobStory:
        """Somebody, or the action's own look, says what became of it."""
        now = self.story.tick()
        again = to is State.WAITING
        row = self.row
        self._moved(
            to,
            fence=row["fence"] + 1,
            waiting_for="retry" if again else None,
            due_at=now,
            maybe_happened=row["maybe_happened"] and not again,
            crashes=0 if again else row["crashes"],
            finished_at=now if to in CLOSED else None,
        )
        if to is State.SUCCEEDED:
            self.decision["result"] = dict(ANSWER)
        data = {"verdict": verdict, "to": str(to), "reason": "the books say so", "who": "ada", "via": "cli"}
        return self.noted(kind, fence=row["fence"], data=data)

    def _moved(self, state: State, **columns: Any) -> None:
        self.row |= {"state": str(state), "waiting_for": None} | columns

    def _noted_by_owner(self, kind: str, data: Mapping[str, Any]) -> JobStory:
        row = self.row
        return self.noted(
            kind, fence=row["fence"], worker=row["lease_owner"], attempt=max(1, row["attempt"]), data=data
        )
