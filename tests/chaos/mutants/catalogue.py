"""Which defects there are: what each is, the cell or scenario in which it shows, and to which of the invariants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Found:
    """Where a defect shows.

    Attributes:
        what: The defect in a few words.
        cell: The name of a cell of the crash matrix, or of a scenario.
        invariants: Of which the checker must find one broken.
    """

    what: str
    cell: str
    invariants: tuple[str, ...]


FOUND: Mapping[str, Found] = {
    "settle_unfenced": Found("an outcome is written without the fence", "effect.answered-unsafe-sigstop", ("I8",)),
    "rescue_by_id": Found("a rescue takes over by id alone", "rescue.before-keyed-sigstop", ("I7", "I8", "I9")),
    "rescue_requeues": Found("what is unsafe is tried again", "effect.held-unsafe-sigkill", ("I3",)),
    "doubt_hidden": Found("what may have happened is given up for dead", "effect.held-unsafe-group_kill", ("I5", "I6")),
    "rescue_of_the_living": Found("a rescue does not wait for the lease", "effect.held-keyed-redis_kill", ("I9",)),
    "rescue_is_late": Found("a rescue waits for twelve seconds more", "effect.held-keyed-sigkill", ("I15",)),
    "crash_uncapped": Found("a job may take down any number of workers", "poison.perform.before-sigkill", ("I9",)),
    "effect_after_lease": Found("an effect after the lease", "intend.committed-unsafe-sigstop", ("I22",)),
    "lease_by_worker_clock": Found("leases by the worker's clock", "clock.claim.committed-sigkill", ("I1",)),
    "intent_after_effect": Found("the effect before its intent", "effect.held-unsafe-sigkill", ("I2",)),
    "key_per_attempt": Found("another downstream key for each attempt", "effect.held-keyed-sigkill", ("I3",)),
    "unknown_is_none": Found("no answer means no effect", "effect.dropped-unsafe-terminate_backend", ("I3",)),
    "verify_trusted_once": Found(
        "a look that finds nothing is believed", "late_arrival.request.arrived-sigkill", ("I3",)
    ),
    "late_result_written": Found("a late result is written all the same", "effect.answered-unsafe-sigstop", ("I4",)),
    "result_lost": Found("an outcome without its result", "ack.after-keyed-terminate_backend", ("I4",)),
    "outcome_unrecorded": Found("an outcome that is no event", "ack.after-pure-terminate_backend", ("I7",)),
    "hold_spends_attempt": Found("a hold spends an attempt", "hold.settle.committed-sigkill", ("I7",)),
    "backoff_unbounded": Found("a retry waits as long as it likes", "effect.dropped-idempotent-redis_kill", ("I12",)),
    "batch_settles_alike": Found("a batch settles its neighbours' failure", "batch.settle.before-redis_kill", ("I5",)),
    "cancel_overwrites": Found("a cancel overwrites a result", "cancel.settle.committed-sigkill", ("I7",)),
    "cancelled_goes_on": Found("what was cancelled is performed", "cancel.retry.waiting-terminate_backend", ("I18",)),
    "deadline_ignored": Found("a deadline is ignored", "deadline.claim.before-sigstop", ("I17",)),
    "relay_is_deaf": Found("nobody rings what nobody rang", "ring.received-idempotent-sigkill", ("I1",)),
    "ack_before_settle": Found("a ring is acknowledged first, and no relay", "claim.before-keyed-sigkill", ("I1",)),
    "outbox_apart": Found("what is to be rung is noted after the accept", "accept.committed-keyed-sigkill", ("I1",)),
    "accepted_anew": Found("a request sent again is another job", "accept.committed-keyed-sigkill", ("I1",)),
    "follow_ups_apart": Found("follow-ups outside the settle", "follow_ups.bring.committed-sigkill", ("I1",)),
    "tick_without_key": Found("a tick without its key, and no lock", "ticks.tick.accepted-sigstop", ("I1", "I2")),
    "turns_interleave": Found("anybody has the turn", "turns.effect.held-sigstop", ("I19",)),
    "turn_said_twice": Found("a turn is said before it is settled", "turns.bring.before-sigkill", ("I19",)),
    "approval_forgone": Found("nobody is asked to approve", "approval.review.committed-sigkill", ("I20",)),
    "approval_not_used_up": Found("an approval stays as good as new", "approval.consume.committed-sigkill", ("I20",)),
    "reservation_forgotten": Found("an outcome settles nothing", "budget.reserve.committed-sigkill", ("I21",)),
    "spent_twice": Found("a repeat is settled anew", "budget.reserve.committed-sigkill", ("I21",)),
}
