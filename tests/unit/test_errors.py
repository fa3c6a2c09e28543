"""Errors cross process boundaries whole, and say what was refused and what to do."""

from __future__ import annotations

import copy
import inspect
import pickle
from uuid import UUID

import pytest

from producer import errors
from producer.errors import (
    AccessRefused,
    ApiUnavailable,
    ApprovalClosed,
    ApprovalMismatch,
    ApprovalNotFound,
    ApproverRefused,
    BreakerNotFound,
    BreakersUnavailable,
    BudgetNotFound,
    Conflict,
    ConversationNotFound,
    IdempotencyConflict,
    InvalidBudget,
    InvalidRequest,
    InvalidSchedule,
    JobDegraded,
    JobFailed,
    JobNotDead,
    JobNotFound,
    JobNotInDoubt,
    JobNotUndoable,
    JobUnfinished,
    KeyInFlight,
    KeyNotFound,
    LedgerUnavailable,
    PolicyNotFound,
    RequestRefused,
    ScheduleExists,
    ScheduleNotFound,
    SchemaBehind,
    SettingsError,
    SurefootError,
    TokenRefused,
    UnknownAction,
)

ID = UUID(int=7)
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SurefootError)]


def conflict(*paths: str) -> Conflict:
    return Conflict(0, "email.send", "invoice-7", ID, paths)


ONE_OF_EACH: list[SurefootError] = [
    SurefootError("a"),
    SettingsError("a"),
    RequestRefused("a"),
    InvalidRequest("params.to", "is not text", index=3),
    InvalidSchedule("cron", "'0 0 30 2 *' never fires"),
    InvalidBudget("usd", "'-1' is not an amount of US dollars"),
    UnknownAction("a.b", ["a.c"], "; did you mean 'a.c'?"),
    IdempotencyConflict([conflict("params.to"), conflict("params.cc")]),
    KeyInFlight(),
    ScheduleExists("nightly", ["cron", "zone"]),
    ScheduleNotFound("a"),
    KeyNotFound("a"),
    LedgerUnavailable("a"),
    SchemaBehind("a"),
    BudgetNotFound("a"),
    PolicyNotFound("a"),
    BreakerNotFound("a"),
    BreakersUnavailable("a"),
    ApiUnavailable("a"),
    AccessRefused("a"),
    JobNotFound("a"),
    ConversationNotFound("a"),
    JobNotInDoubt(ID, "queued"),
    JobNotDead(ID, "dead"),
    JobNotUndoable(ID, "it failed"),
    ApprovalNotFound("a"),
    ApprovalClosed(ID, "rejected", "ada", "too much"),
    ApprovalMismatch(ID, altered=True),
    ApproverRefused("ada", "asked for it"),
    TokenRefused("a"),
    JobUnfinished("a"),
    JobFailed(ID, "dead", {"type": "Unknown", "message": "no answer"}),
    JobDegraded(ID, "out of retries", {"total": 0}, {"type": "Unknown", "message": "no answer"}),
]


def test_the_list_holds_one_of_each() -> None:
    assert {type(error) for error in ONE_OF_EACH} == set(KINDS)


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_and_copying(error: SurefootError) -> None:
    through_pickle = pickle.loads(pickle.dumps(error))  # noqa: S301  its own bytes
    for twin in (through_pickle, copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_of_each_kind_is_drawn_in_the_tree(kind: type[SurefootError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")
    assert kind.__name__ in errors.__all__


@pytest.mark.parametrize(
    "kind", [JobNotFound, KeyInFlight, ScheduleNotFound, LedgerUnavailable, JobUnfinished, SettingsError]
)
def test_an_error_without_a_message_says_what_its_kind_means(kind: type[SurefootError]) -> None:
    assert str(kind()) == (kind.__doc__ or "").partition("\n")[0]


def test_waiting_in_vain_is_a_timeout_to_the_standard_library() -> None:
    assert isinstance(JobUnfinished(), TimeoutError)


def test_a_conflict_names_key_job_and_place() -> None:
    assert str(IdempotencyConflict([conflict("params.to", "params.cc")])) == (
        "idempotency key 'invoice-7' of email.send already stands for job 00000000-0000-0000-0000-000000000007,"
        " which differs at params.to, params.cc; use another key for another request"
    )


def test_a_conflict_counts_the_others_of_its_batch() -> None:
    assert str(IdempotencyConflict([conflict("a"), conflict("b"), conflict("c")])).endswith("(2 more in this batch)")


def test_a_conflict_of_very_many_places_names_ten_and_holds_all() -> None:
    error = IdempotencyConflict([conflict(*(f"params[{n}]" for n in range(5_000)))])
    assert "params[9] and 4,990 more places;" in str(error)
    assert len(error.conflicts[0].paths) == 5_000


def test_a_failed_job_says_where_it_ended_and_why() -> None:
    assert str(JobFailed(ID, "dead", {"type": "Unknown", "message": "no answer"})) == (
        "job 00000000-0000-0000-0000-000000000007 is dead: Unknown: no answer"
    )
    assert str(JobFailed(ID, "cancelled")) == "job 00000000-0000-0000-0000-000000000007 is cancelled"
