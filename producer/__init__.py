"""Surefoot's producer side: asks for actions, decides and looks. All that another service installs.

The names below load on first use, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import Producer
    from producer.conversation import Conversation, Message
    from producer.envelope import Request
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
    from producer.http import HttpProducer
    from producer.job import Job
    from producer.ledger.approvals import Approval, ApprovalState, Vote
    from producer.ledger.states import State
    from producer.settings import Settings

__all__ = [
    "AccessRefused",
    "ApiUnavailable",
    "Approval",
    "ApprovalClosed",
    "ApprovalMismatch",
    "ApprovalNotFound",
    "ApprovalState",
    "ApproverRefused",
    "BreakerNotFound",
    "BreakersUnavailable",
    "BudgetNotFound",
    "Conversation",
    "ConversationNotFound",
    "HttpProducer",
    "IdempotencyConflict",
    "InvalidBudget",
    "InvalidRequest",
    "InvalidSchedule",
    "Job",
    "JobDegraded",
    "JobFailed",
    "JobNotDead",
    "JobNotFound",
    "JobNotInDoubt",
    "JobNotUndoable",
    "JobUnfinished",
    "LedgerUnavailable",
    "Message",
    "PolicyNotFound",
    "Producer",
    "Request",
    "RequestRefused",
    "ScheduleExists",
    "ScheduleNotFound",
    "SchemaBehind",
    "Settings",
    "SettingsError",
    "State",
    "SurefootError",
    "TokenRefused",
    "UnknownAction",
    "Vote",
]

_HOMES = {
    "Approval": "producer.ledger.approvals",
    "ApprovalState": "producer.ledger.approvals",
    "Conversation": "producer.conversation",
    "HttpProducer": "producer.http",
    "Job": "producer.job",
    "Message": "producer.conversation",
    "Producer": "producer.client",
    "Request": "producer.envelope",
    "Settings": "producer.settings",
    "State": "producer.ledger.states",
    "Vote": "producer.ledger.approvals",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'producer' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "producer.errors")), name)
