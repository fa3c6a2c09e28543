"""Defects in the steps of a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import worker.doubt
import worker.retry
import worker.runner
import worker.writer
from producer.ledger.accept import accept
from producer.ledger.engine import transaction_on
from producer.ledger.states import State
from tasks import Context
from tasks._classify import classify
from tasks._outcomes import Failure
from tests.chaos.agent import Agent
from tests.chaos.mutants.patching import part, put
from worker.attempt import Settlement
from worker.doubt import Doubt, Ruling
from worker.leases import Leases
from worker.relay import Relay
from worker.runner import Runner
from worker.transport import QoS
from worker.turns import append

# Longer than any policy of a test allows.
UNBOUNDED_SECONDS = 3_600.0


def intent_after_effect(_: Agent) -> None:
    """The effect first, and then the word that it is about to happen."""
    intend, perform = Runner.intend, Runner.perform

    async def nothing_yet(_self: Runner, _performance: Any) -> None:
        return None

    async def both(self: Runner, performance: Any) -> Any:
        returned = await perform(self, performance)
        await intend(self, performance)
        return returned

    put(Runner, "intend", nothing_yet)
    put(Runner, "perform", both)


def effect_after_lease(_: Agent) -> None:
    """A worker that stood still takes its lease for granted."""
    put(Leases, "seconds_left", lambda _self, _job_id, _fence: 1.0)


def key_per_attempt(_: Agent) -> None:
    """Each attempt hands the other side another key."""

    def downstream_key(self: Context, step: int | str = 0) -> str:
        return f"{self.job_id}:{step}:{self.attempt}"

    put(Context, "downstream_key", downstream_key)


def unknown_is_none(_: Agent) -> None:
    """An attempt that was not answered counts as one without an effect."""

    def hopeful(*args: Any, **policy: Any) -> Failure:
        return replace(classify(*args, **policy), effect="none")

    put(worker.runner, "classify", hopeful)


def verify_trusted_once(_: Agent) -> None:
    """A look that does not find the effect is believed, however early it comes."""

    def not_there(_spec: Any, _hook: Any, doubt: Doubt, _cap: int) -> Ruling:
        return worker.doubt._ruling(doubt, "did_not_happen", State.WAITING, "it did not happen", delay=0.0)  # noqa: SLF001

    put(worker.doubt, "_not_there", not_there)


def hold_spends_attempt(_: Agent) -> None:
    """Where the other side asks for patience, the attempt counts."""
    put(worker.retry, "WAITS", {**worker.retry.WAITS, "hold": ("held", "rate", 0)})


def backoff_unbounded(_: Agent) -> None:
    """A retry waits for as long as it likes."""
    put(worker.retry, "backoff", lambda _policy, _attempt, **_: UNBOUNDED_SECONDS)


def relay_is_deaf(_: Agent) -> None:
    """Nobody rings what nobody rang."""
    put(Relay, "_ring_due", lambda _self, _connection: 0)


def ack_before_settle(agent: Agent) -> None:
    """A ring is acknowledged when it comes, and nobody rings what nobody rang."""
    relay_is_deaf(agent)
    ack, taken = QoS.ack, QoS.append

    def append_and_ack(self: QoS, message: Any, delivery_tag: str) -> None:
        taken(self, message, delivery_tag)
        ack(self, delivery_tag)

    put(QoS, "append", append_and_ack)
    put(QoS, "ack", lambda _self, _delivery_tag: None)


def batch_settles_alike(_: Agent) -> None:
    """Where one of a batch fails, its neighbours do."""
    settle = part(worker.writer, "settle")

    def alike(connection: Any, owner: str, settlements: Sequence[Settlement], **how: Any) -> Any:
        failed = next((each for each in settlements if each.becomes is State.FAILED), None)
        if failed is not None:
            settlements = [
                replace(failed, job_id=each.job_id, fence=each.fence, attempt=each.attempt)
                if each.was is failed.was
                else each
                for each in settlements
            ]
        return settle(connection, owner, settlements, **how)

    put(worker.writer, "settle", alike)


def follow_ups_apart(_: Agent) -> None:
    """An outcome is written first, and then, by another transaction, what it asked for."""
    settle_with = part(worker.writer, "settle_with")

    def apart(connection: Any, owner: str, settlements: Sequence[Settlement], *, on_accepted: Any) -> Any:
        bare = [replace(each, follow_ups=()) for each in settlements]
        answers = settle_with(connection, owner, bare, on_accepted=on_accepted)
        for each in settlements:
            if each.follow_ups and answers.get(each.job_id) == "settled":
                accept(connection, each.follow_ups, rings=True)
                on_accepted(each.follow_ups)
        return answers

    put(worker.writer, "settle_with", apart)


def turn_said_twice(_: Agent) -> None:
    """What an attempt has said is there before its outcome is."""
    settle_with = part(worker.writer, "settle_with")

    def said_first(connection: Any, owner: str, settlements: Sequence[Settlement], **how: Any) -> Any:
        with transaction_on(connection):
            append(connection, [each for each in settlements if each.messages])
        return settle_with(connection, owner, [replace(each, messages=()) for each in settlements], **how)

    put(worker.writer, "settle_with", said_first)


DEFECTS: dict[str, Callable[[Agent], None]] = {
    each.__name__: each
    for each in (
        intent_after_effect,
        effect_after_lease,
        key_per_attempt,
        unknown_is_none,
        verify_trusted_once,
        hold_spends_attempt,
        backoff_unbounded,
        relay_is_deaf,
        ack_before_settle,
        batch_settles_alike,
        follow_ups_apart,
        turn_said_twice,
    )
}
